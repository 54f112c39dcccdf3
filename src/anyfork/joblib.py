"""The backend "anyfork" of joblib: ``import anyfork.joblib``, then ``with parallel_config(backend="anyfork"):``.

Further keyword arguments of ``parallel_config`` or ``Parallel`` are ``template``, from which the workers are forked,
and the options of Executor. Without a template the workers come from one that has loaded joblib, and scikit-learn if
this program has loaded it. Workers stay for the next ``Parallel`` with the same options, in this ``parallel_config`` or
a later one, until they have been idle for 10 seconds (``idle_timeout``).
"""

from __future__ import annotations

import os
import sys
import weakref
from importlib.util import find_spec

try:
    from joblib import cpu_count, register_parallel_backend
    from joblib._parallel_backends import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
    )
except ImportError as _error:
    if str(_error.name).partition(".")[0] != "joblib":
        raise
    raise ImportError("anyfork.joblib needs joblib 1.4 or newer: install anyfork[joblib]") from _error

from ._blocking.template import Template
from ._executor.executor import Executor
from ._executor.warm import has_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any

IDLE = 10.0  # seconds until an idle worker ends
KEPT = 2  # Executors that stay for later blocks: a program may take turns between two sets of options
WITH_IT = ("sklearn",)  # modules that jobs need if the program uses them, and that take long to import


_Options = dict[str, object]
_kept: dict[Executor, _Options] = {}  # what blocks that have ended left, the last one last; each step on it is atomic
os.register_at_fork(after_in_child=_kept.clear)


def _take(options: _Options) -> Executor | None:
    """Return an Executor with these options that a block has left, if there is one. Close those that are of no use."""
    for executor, others in _kept.copy().items():
        if _are_same(others, options) and _kept.pop(executor, None) is not None:
            if not _is_lost(executor, options):
                return executor
            executor.shutdown(wait=False)
    return None


def _is_lost(executor: Executor, options: _Options) -> bool:
    """Tell whether an Executor refuses jobs or is another process's, or its template has ended that a new one can
    replace.
    """
    if executor._dispatcher.foreign or executor._dispatcher.refuses:
        return True
    return isinstance(options["template"], tuple) and any(
        has_ended(source.key) for source in executor._dispatcher.scheduler.sources
    )


def _keep(executor: Executor, options: _Options) -> None:
    """Let a later block have this Executor."""
    _kept[executor] = options
    for surplus in [*_kept.copy()][:-KEPT]:
        if _kept.pop(surplus, None) is not None:
            surplus.shutdown(wait=False)


def _are_same(one: object, other: object) -> bool:
    """Tell whether two options mean the same. What is not known to be a plain value is compared by identity."""
    if type(one) is type(other):
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(_are_same(one[name], other[name]) for name in one)
        if isinstance(one, tuple) and isinstance(other, tuple):
            return len(one) == len(other) and all(map(_are_same, one, other))
        if isinstance(one, str | int | float):
            return one == other
    return one is other


class _Backend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """A joblib backend that runs batches of calls in the workers of an Executor."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    _executor: Executor | None = None
    _template: Template | None = None
    _options: _Options

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many jobs run at once."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: object) -> int:
        """Have workers for this many jobs at once; return the number."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if parallel is not None and not isinstance(parallel, weakref.ProxyTypes):
            parallel = weakref.proxy(parallel)  # it has this backend: without a circle, its end is seen
        self.parallel = parallel
        options = {"idle_timeout": IDLE, **self.backend_kwargs, "max_workers": n_jobs}
        if options.get("template") is None:
            options["template"] = tuple(name for name in WITH_IT if name in sys.modules)
        first = options.pop("initializer", None), options.pop("initargs", ())
        options["initializer"] = f"{__name__}:prepare"
        options["initargs"] = (self._prepare_worker_env(n_jobs), *first)
        if self._executor is None or not _are_same(self._options, options) or _is_lost(self._executor, options):
            self._leave()
            self._executor, self._options = _take(options) or self._start(**options), options
        return n_jobs

    def _start(self, template: Template | tuple[str, ...], **options: Any) -> Executor:
        if isinstance(template, tuple):
            if self._template is None or self._template._link.foreign or has_ended(self._template):
                self._template = Template().preload("joblib.parallel", "anyfork.joblib", *template)
            template = self._template
        return Executor(template, **options)

    def _leave(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None and not executor._dispatcher.foreign:  # a forked copy of the program starts its own
            _keep(executor, self._options)

    __del__ = _leave

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None) -> Future[Any]:
        """Run a batch of calls in a worker."""
        assert self._executor is not None
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch."""
        return out.result()

    def terminate(self) -> None:
        """End one Parallel, but keep the workers: the next one may use them."""
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill everything that runs, because its results are not wanted."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.kill()
            executor.shutdown(wait=False)
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


def prepare(env: Mapping[str, object], initializer: Callable[..., object] | str | None, args: Sequence[object]) -> None:
    """Keep libraries with threads of their own from using too many, then run the initializer. Runs in each worker."""
    from _anyfork_child.values.decode import named

    os.environ.update({name: str(value) for name, value in env.items()})
    limit = next((int(str(env[name])) for name in ("OMP_NUM_THREADS",) if str(env.get(name, "")).isdigit()), 0)
    if limit and "numpy" in sys.modules and find_spec("threadpoolctl") is not None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(limit)  # loaded libraries have read their environment already
    if initializer is not None:
        named(initializer)(*args)


_Backend.__name__ = "AnyforkBackend"  # as joblib shows it
register_parallel_backend("anyfork", _Backend)
