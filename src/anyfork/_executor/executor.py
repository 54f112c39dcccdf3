"""The Executor: a pool of workers for blocking programs, with the interface of concurrent.futures."""

from __future__ import annotations

from _signal import SIGKILL, SIGTERM
from concurrent.futures import Executor as AnyExecutor
from itertools import islice
from math import inf

from .._blocking.waiting import warn_in_loop
from .._calls.known_functions import label_of
from .._calls.progress import UnlessStarted, progress_of
from .._errors import ArgumentError
from .._pools.jobs import write_files
from .._pools.pool_options import NewLimits, check_job_options
from .._processes.arguments import Stays, check_function, refused_keywords
from .._processes.handles import HasTemplates
from .._system.limits import usable_cpus
from .._system.signatures import overload
from .._system.timeouts import deadline as deadline_of
from .errors import drop_in
from .future import FutureJob, JobFuture
from .map import ExecutorMap, flat, in_chunks, results_of
from .warm import WarmDispatcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent import futures
    from concurrent.futures import Future
    from typing import Any, TypedDict, TypeVar, Unpack

    from .._blocking.template import Template
    from .._blocking.warm import Warm
    from .._calls.call import Handler
    from .._calls.progress import ProgressCallback
    from .._pools.pool_options import CommonOptions
    from .._pools.stats import PoolStats
    from .._processes.handles import TemplateHandle
    from .._system.signatures import Parameters, Result

    One = TypeVar("One")
    Two = TypeVar("Two")
    Three = TypeVar("Three")

    class MapOptions(TypedDict, total=False):
        """Options of ``map``, without ``return_exceptions``."""

        timeout: float | None
        chunksize: int
        buffersize: int | None
        ordered: bool
        progress: bool | ProgressCallback

    class ExecutorOptions(CommonOptions, total=False):
        """Options of an Executor."""

        load: int | None


NAMES = (
    "min_idle",
    "load",
    "start_after",
    "idle_timeout",
    "max_calls",
    "max_memory",
    "memory",
    "max_age",
    "timeout",
    "max_queued",
    "when_full",
    "initializer",
    "initargs",
    "on_event",
    "trace",
    "logs",
    "name",
    "serializer",
    "concurrency",
    "backend",
)


MAP_OPTIONS = "timeout, chunksize, buffersize, ordered, progress, return_exceptions"


class Submitter(Stays, AnyExecutor):
    """An object with ``submit`` and ``map``: an Executor, or a view of one with other options for its jobs."""

    _instead = "make an Executor there, or submit its jobs here"

    _dispatcher: WarmDispatcher
    _executor: Executor
    _options: tuple[float, float | None, bool]  # priority, timeout, idempotent
    _on_event: Handler | None

    @overload
    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]: ...
    @overload
    def submit(self, fn: str, /, *args: object, **kwargs: object) -> Future[Any]: ...
    def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn(*args, **kwargs)`` in a worker; return the future of its result.

        ``fn`` may also be a function's name, as ``"package.module:qualified.name"``. If the function or an argument
        cannot be sent to a worker, the future has that error. Raises RuntimeError after ``shutdown``, BrokenExecutor or
        TemplateError if no worker can be started, QueueFullError with ``when_full="raise"``, and ArgumentError if
        ``fn`` is not a function.

        For example::

            import anyfork

            with anyfork.Executor() as executor:
                assert executor.submit(pow, 2, 10).result() == 1024
        """
        dispatcher = self._dispatcher
        dispatcher.check_owner("submit")
        future = JobFuture()
        try:
            encoded = dispatcher.encoder.encode(fn, args, kwargs)
            if type(encoded[2]) is not bytes:
                write_files(encoded)
        except ArgumentError as error:
            check_function("submit", fn)
            dispatcher.check_open()
            future.end(drop_in(error), None)
            return future
        future._dispatcher = dispatcher
        future._job = job = FutureJob(encoded, future, self._on_event, *self._options)
        if dispatcher.traced:
            job.label = label_of(fn)
        dispatcher.submit(job)
        return future

    @overload  # type: ignore[override]  # stricter than the class of concurrent.futures: items fit the function
    def map(
        self, fn: Callable[[One], Result], one: Iterable[One], /, **options: Unpack[MapOptions]
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        fn: Callable[[One, Two], Result],
        one: Iterable[One],
        two: Iterable[Two],
        /,
        **options: Unpack[MapOptions],
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        fn: Callable[[One, Two, Three], Result],
        one: Iterable[One],
        two: Iterable[Two],
        three: Iterable[Three],
        /,
        **options: Unpack[MapOptions],
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        fn: Callable[..., Result],
        one: Iterable[Any],
        two: Iterable[Any],
        three: Iterable[Any],
        four: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[MapOptions],
    ) -> Iterator[Result]: ...
    @overload
    def map(self, fn: str, /, *iterables: Iterable[Any], **options: Unpack[MapOptions]) -> Iterator[Any]: ...
    @overload
    def map(
        self,
        fn: Callable[..., Result],
        /,
        *iterables: Iterable[Any],
        return_exceptions: bool,
        **options: Unpack[MapOptions],
    ) -> Iterator[Result | Exception]: ...
    @overload
    def map(
        self, fn: str, /, *iterables: Iterable[Any], return_exceptions: bool, **options: Unpack[MapOptions]
    ) -> Iterator[Any]: ...
    def map(
        self,
        fn: Callable[..., Any] | str,
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        ordered: bool = True,
        progress: bool | ProgressCallback = False,
        return_exceptions: bool = False,
        **keywords: object,
    ) -> Iterator[Any]:
        """Call ``fn`` with the items of all iterables, combined as by ``zip``. Return an iterator of results.

        Results come in the order of the items; with ``ordered=False``, as they are done. All items are collected at
        once. With ``buffersize``, at most that many items, or chunks, are in progress at a
        time, and further ones are collected as results are taken. A result that is not there ``timeout`` seconds after
        this call raises TimeoutError. Each job is a chunk of ``chunksize`` items; small and quick items need no chunks,
        because several are sent together anyway. ``progress`` shows the progress on stderr, or is called in the
        Executor's thread with the number of items that are done and that of all items (None if it is not known), at
        most ten times a second, and at the end. The iterator raises the exception of a call, and ends with it; with
        ``return_exceptions``, such an exception takes the place of the result instead, and there are no chunks. Closing
        the iterator cancels the items that have not begun.

        For example::

            import anyfork

            with anyfork.Executor() as executor:
                assert list(executor.map(pow, [2, 3], [4, 5])) == [16, 243]
                print(list(executor.map(int, ["1", "two"], return_exceptions=True)))
        """
        if keywords:
            raise refused_keywords("map", fn, keywords, MAP_OPTIONS)
        dispatcher = self._dispatcher
        dispatcher.check_owner("map")
        check_function("map", fn)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if not isinstance(buffersize, int | None):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = deadline_of(timeout)
        chunked = chunksize > 1 and not (return_exceptions or dispatcher.concurrent)
        priority, limit, idempotent = self._options
        options = {"priority": priority, "timeout": limit, "idempotent": idempotent}
        with UnlessStarted(progress_of("map", progress, fn, iterables)) as shown:
            work = ExecutorMap(dispatcher, fn, chunked, self._on_event, options, shown, ordered, return_exceptions)
            items: Iterator[Any] = zip(*iterables, strict=False)
            if chunked:
                items = in_chunks(items, chunksize)
            ahead = list(islice(items, buffersize))
            work.add(ahead)
        found = results_of(work, items, len(ahead), deadline)
        return flat(found) if chunked else found


class Executor(Submitter, HasTemplates):
    """A pool of workers that are forked from a template when needed, with the interface of concurrent.futures.

    It replaces ProcessPoolExecutor, and any thread may use it. Each worker is a fork of ``template``, which stays
    yours; None is the default template. With a Warm, a job runs in a worker of the template that is up to date when the
    job is submitted. Several templates are given as a mapping of each template to its maximum number
    of workers. Times are in seconds, defaults in parentheses:

    There are at most ``max_workers`` workers (one for each CPU that this process may use, by its affinity and its
    control group's quota). A worker is started when a job finds no idle worker and all have been busy for
    ``start_after`` (0). A worker ends when it has been idle for ``idle_timeout`` (never), but ``min_idle`` (0) idle
    workers are kept. ``load`` is the number of jobs that a worker is given at once; by default, as many as it does
    within a moment, and then no job waits behind a long one. Jobs that have not begun are given to an idle worker. A
    worker retires after ``max_calls`` calls, after a job that leaves it with ``max_memory`` bytes (``memory``:
    "private" or "pss") or ``max_age`` old, or when it has called ``retire``. A job that runs longer than ``timeout`` is
    ended together with its worker. At most ``max_queued`` jobs wait for workers; a further one waits for space in the
    queue, or raises QueueFullError with ``when_full="raise"``. ``initializer(*initargs)`` is called in each worker.
    ``on_event`` is called with the values that jobs ``emit``, in the Executor's own thread. ``serializer``,
    ``concurrency`` (which is then the ``load``, too) and ``backend`` are the options of Worker. ``trace`` names a file
    for a timeline in Chrome's trace format. With ``logs``, log records of workers come to the loggers of this program.
    ``name`` is what ``anyfork top`` calls the Executor, and ``ps`` its workers.

    When a worker dies, the job that it was running fails with WorkerDiedError, which is also a BrokenExecutor; no other
    job fails. Raises ArgumentError, and ValueError if ``max_workers`` is below 1.

    For example::

        import anyfork

        with anyfork.Executor(max_workers=2, timeout=60) as executor:
            assert executor.submit(pow, 2, 10).result() == 1024
            assert list(executor.map(abs, [-1, -2])) == [1, 2]
    """

    def __init__(
        self,
        template: Template | Warm | Mapping[Template | Warm, int] | None = None,
        max_workers: int | None = None,
        **options: Unpack[ExecutorOptions],
    ) -> None:
        if isinstance(template, int):
            raise ArgumentError(f"Executor() needs a template, not int: for workers write max_workers={template}")
        if isinstance(max_workers, int) and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        unknown = options.keys() - NAMES
        if unknown:
            raise ArgumentError(f"Executor() has no option {min(unknown)!r}; there are {', '.join(NAMES)}")
        given: Any = {"start_after": 0, "idle_timeout": inf, **options}
        given["max_workers"] = usable_cpus() if max_workers is None else max_workers
        adaptive = options.get("load") is None
        if adaptive or options.get("max_memory") is not None:
            given["load"] = 1
        self._dispatcher = WarmDispatcher(template, given, adaptive)
        self._options = 0, options.get("timeout"), False
        self._on_event = None

    def options(
        self,
        *,
        timeout: float | None = None,
        priority: float = 0,
        idempotent: bool = False,
        on_event: Handler | None = None,
    ) -> futures.Executor:
        """Return a view of this executor that submits jobs with other options.

        Of the jobs that wait, the one with the greatest ``priority`` goes first. ``timeout`` is the number of seconds
        that a job may run, without its time in the queue; ``math.inf`` means no limit. An ``idempotent`` job is run
        again, at most twice, when its worker dies. ``on_event`` is called with the values that the job emits. (These
        are not arguments of ``submit``, because all keyword arguments there belong to the function.)

        For example::

            import anyfork

            with anyfork.Executor() as executor:
                urgent = executor.options(priority=1, timeout=60, idempotent=True)
                urgent.submit(pow, 2, 10).result()
        """
        check_job_options("options", timeout, priority)
        submitter = Submitter()
        submitter._dispatcher = self._dispatcher
        submitter._executor = self  # keeps it alive: an Executor ends when it is deleted
        submitter._options = priority, self._options[1] if timeout is None else timeout, idempotent
        submitter._on_event = on_event
        return submitter

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs, finish those submitted, and end the workers.

        With ``cancel_futures``, cancel the jobs that have not begun. With ``wait``, return when all of that is done.
        Calling it twice is harmless; in a forked copy of the owner it does nothing. Raises HandleError where it cannot
        wait: in a signal handler or a destructor that has interrupted another call.

        For example::

            import anyfork

            executor = anyfork.Executor()
            future = executor.submit(pow, 2, 10)
            executor.shutdown()
            assert future.done()
        """
        dispatcher = self._dispatcher
        if dispatcher.foreign:
            return
        dispatcher.close(cancel_futures)
        if wait:
            warn_in_loop()
            dispatcher.join()

    def terminate_workers(self) -> None:
        """Accept no more jobs, cancel those that have not begun, and send SIGTERM to all workers. Do not wait.

        Running jobs fail with WorkerDiedError when their worker ends. ProcessPoolExecutor has the same method in Python
        3.14.

        For example::

            import anyfork

            executor = anyfork.Executor(max_workers=1)
            executor.submit(pow, 2, 10).result()
            executor.terminate_workers()
        """
        self._end_workers(SIGTERM)

    def kill_workers(self) -> None:
        """Do the same as ``terminate_workers``, with SIGKILL.

        For example::

            import anyfork

            executor = anyfork.Executor(max_workers=1)
            executor.submit(pow, 2, 10).result()
            executor.kill_workers()
        """
        self._end_workers(SIGKILL)

    def _end_workers(self, signal: int) -> None:
        dispatcher = self._dispatcher
        if not dispatcher.foreign:
            dispatcher.end_workers(signal)

    def kill(self) -> None:
        """End the Executor now: kill its workers, and fail jobs that have no result yet with CallCancelledError.

        For example::

            import time
            import anyfork

            executor = anyfork.Executor()
            future = executor.submit(time.sleep, 1000)
            executor.kill()
            assert isinstance(future.exception(), anyfork.CallCancelledError)
        """
        dispatcher = self._dispatcher
        if not dispatcher.foreign:
            dispatcher.kill()

    def resize(
        self,
        max_workers: int | None = None,
        *,
        min_idle: int | None = None,
        load: int | None = None,
        limits: Mapping[Any, int] | None = None,
    ) -> None:
        """Change the limits of the running Executor. Workers in excess finish their jobs, and end.

        ``limits`` maps some of several templates to their new limits; ``max_workers`` is then the sum of all limits,
        unless it is given. Raises ArgumentError.

        For example::

            import anyfork

            with anyfork.Executor(max_workers=1) as executor:
                executor.resize(4, min_idle=1)
        """
        dispatcher = self._dispatcher
        dispatcher.check_owner("resize")
        dispatcher.resize(NewLimits(max_workers, min_idle, load, limits))

    def replace_template(self, new: Template | Warm, old: Template | Warm | None = None) -> None:
        """Fork workers from another template from now on, in place of ``old`` if there are several.

        Workers of the old template finish their jobs, and end. No job is lost or run twice. The old template is not
        closed. With a Warm, the Executor goes on as if it had been made with it. Raises ArgumentError, and what
        prevents the template of a Warm from being made; the Executor keeps the old template then.

        For example::

            import anyfork

            with anyfork.Executor() as executor:
                executor.replace_template(anyfork.Template().preload("json"))
        """
        dispatcher = self._dispatcher
        dispatcher.check_owner("replace_template")
        dispatcher.replace_template(new, old)

    def _templates(self, call: str) -> list[TemplateHandle]:
        self._dispatcher.check_owner(call)
        return self._dispatcher.templates(call)

    def stats(self) -> PoolStats:
        """Return the present numbers of jobs and workers, and the totals so far.

        For example::

            import anyfork

            with anyfork.Executor() as executor:
                executor.submit(pow, 2, 10).result()
                print(executor.stats())
        """
        self._dispatcher.check_owner("stats")
        return self._dispatcher.read_stats()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers, as far as they are known, without workers that have done their last job.

        For example::

            import os
            import anyfork

            with anyfork.Executor(max_workers=1) as executor:
                assert executor.submit(os.getpid).result() in executor.pids
        """
        self._dispatcher.check_owner("pids")
        return self._dispatcher.list_pids()

    @property
    def _max_workers(self) -> int:  # Dask and others read this attribute of executors of concurrent.futures
        return self._dispatcher.scheduler.limits.max_workers

    def __repr__(self) -> str:
        return self._dispatcher.describe()

    def __del__(self) -> None:
        dispatcher = getattr(self, "_dispatcher", None)
        if dispatcher is not None:
            dispatcher.abandon()
