"""The backend "anyfork" of joblib: ``import anyfork.joblib``, then ``with parallel_config(backend="anyfork"):``.

Further keyword arguments of ``parallel_config`` or ``Parallel`` are ``template``, from which the workers are forked,
and the options of Executor. Without a template the workers come from one that has loaded joblib, and scikit-learn if
this program has loaded it. Workers stay as long as the ``parallel_config`` does, or end earlier when they have been
idle for a while.
"""

from __future__ import annotations

import os
import sys
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any

IDLE = 10.0  # seconds until an idle worker ends
WITH_IT = ("sklearn",)  # modules that jobs need if the program uses them, and that take long to import


class _Backend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """A joblib backend that runs batches of calls in the workers of an Executor."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    _executor: Executor | None = None
    _template: Template | None = None
    _n_jobs = 0

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
        self.parallel = parallel
        if self._executor is None or n_jobs != self._n_jobs:
            self._stop()
            self._executor = self._start(n_jobs)
            self._n_jobs = n_jobs
        return n_jobs

    def _start(self, n_jobs: int) -> Executor:
        options = {"idle_timeout": IDLE, **self.backend_kwargs}
        template = options.pop("template", None)
        if template is None:
            if self._template is None:
                self._template = _template()
            template = self._template
        first = options.pop("initializer", None), options.pop("initargs", ())
        options["initializer"] = f"{__name__}:prepare"
        options["initargs"] = (self._prepare_worker_env(n_jobs), *first)
        return Executor(template, n_jobs, **options)

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
        if self._executor is not None:
            self._executor.kill()
        self._stop()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def _stop(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)


def _template() -> Template:
    return Template().preload("joblib.parallel", "anyfork.joblib", *(name for name in WITH_IT if name in sys.modules))


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
