"""Pools of workers, for async programs."""

from __future__ import annotations

from functools import partial

from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from .._calls.known_functions import label_of
from .._calls.progress import UnlessStarted, progress_of
from .._calls.worker_options import check_window
from .._pools.pool_options import NewLimits, check_job_options
from .._pools.records import JobState
from .._processes.arguments import refused_keywords
from .._processes.handles import HasTemplates
from .._processes.undelivered import destructor
from .._system.signatures import overload
from ._call_job import CallJob
from ._map import WINDOW, AsyncMapItems, PoolMap
from ._waiting import shielded
from ._warm_pool import WarmPoolLoop
from ._worker_channel import write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, Self, TypedDict, Unpack

    from .._calls.call import Handler
    from .._calls.progress import ProgressCallback
    from .._pools.pool_options import PoolOptions
    from .._pools.stats import PoolStats
    from .._processes.handles import TemplateHandle
    from .._system.signatures import Arguments, Item, Items, Later, Result
    from ._loop import Loop
    from ._template import Template
    from ._warm import Warm

    class CallOptions(TypedDict, total=False):
        """Options of a call."""

        timeout: float | None
        priority: float
        idempotent: bool
        on_event: Handler | None

    class MapOptions(TypedDict, total=False):
        """Options of a map, without ``return_exceptions``."""

        window: int | None
        ordered: bool
        progress: bool | ProgressCallback
        timeout: float | None
        priority: float
        idempotent: bool


MAP_OPTIONS = "window, ordered, progress, timeout, priority, idempotent, return_exceptions"


class Pool(HasTemplates):
    """A pool of workers that are forked from a template when needed, with one queue of calls for all of them.

    Each worker is a fork of ``template``, which stays yours; None is the default template. With a Warm, a call runs in
    a worker of the template that is up to date at the call, and ``min_idle`` counts from the first call on. Several
    templates are given as a mapping of each template to its maximum number of workers; they are used in this order.
    Times are in seconds, defaults in parentheses, and zero is valid everywhere:

    There are at most ``max_workers`` workers (4, or one for each usable CPU if there are fewer, or the sum of the
    templates' limits). ``min_idle`` (0) idle workers are kept; others end after they were idle for ``idle_timeout``
    (10). ``load`` (2) is the number of calls that a worker is given at once: it runs one, and the others wait there. If
    ``load`` is not given, it may be greater for functions whose calls have taken less than 0.2 milliseconds so far: as
    many calls as take about one millisecond; and no call waits behind a long one, because the pool takes it back. While
    all workers have their load and calls wait, one worker is started every ``start_after`` (0.1). A worker retires
    after ``max_calls`` calls, after a call that leaves it with ``max_memory`` bytes (``memory``: "private" or "pss") or
    ``max_age`` old, or when it has called ``retire``. A call that runs longer than ``timeout`` is ended together with
    its worker. At most ``max_queued`` calls wait for workers; a further one waits for space in the queue, or raises
    QueueFullError with ``when_full="raise"``. ``on_event``, ``serializer``, ``initializer``, ``initargs``,
    ``concurrency`` (which is then the ``load``, too), ``backend`` and ``on_cancel`` are the options of Worker.
    ``trace`` names a file for a timeline in Chrome's trace format. With ``logs``, log records of workers come to the
    loggers of this program. ``name`` is what ``anyfork top`` calls the pool, and ``ps`` its workers.

    The pool runs in the event loop beside your tasks, from its first use until it is closed; no task group is needed.
    As an async context manager, the pool is closed at the end of the block. It is killed instead if an exception leaves
    the block, or if the closing is cancelled. A pool that is not closed ends with its loop. Raises ArgumentError.

    For example::

        import asyncio
        from anyfork import aio

        async def main():
            async with aio.Pool(max_workers=2) as pool:
                assert await pool.call(pow, 2, 10) == 1024
                assert [each async for each in pool.map(abs, [-1, -2])] == [1, 2]

        asyncio.run(main())
    """

    _instead = "make a Pool there, or call its functions here"

    def __init__(
        self,
        template: Template | Warm | Mapping[Template | Warm, int] | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        self._pool_loop = WarmPoolLoop(template, options)

    # --- Calls ---

    @overload
    async def call(
        self, function: Callable[[*Arguments], Later[Result]], /, *args: *Arguments, **options: Unpack[CallOptions]
    ) -> Result: ...
    @overload
    async def call(
        self, function: Callable[[*Arguments], Result], /, *args: *Arguments, **options: Unpack[CallOptions]
    ) -> Result: ...
    @overload
    async def call(self, function: str, /, *args: object, **options: Unpack[CallOptions]) -> Any: ...
    async def call(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        timeout: float | None = None,
        priority: float = 0,
        idempotent: bool = False,
        on_event: Handler | None = None,
        **keywords: object,
    ) -> Any:
        """Return the result of ``function(*args)`` in a worker, or raise its error with the remote traceback as cause.

        Of the calls that wait, the one with the greatest ``priority`` goes first. ``timeout`` is the number of seconds
        that the call may run, without its time in the queue; ``math.inf`` lifts the timeout of the pool. An
        ``idempotent`` call is run again, at most twice, when its worker dies. ``on_event`` is called with the values
        that the call emits.

        Raises ArgumentError at once if the function or an argument cannot be sent; CallTimeoutError, WorkerDiedError,
        QueueFullError and the other kinds of CallError; and, if there is no worker, the error that prevents one. A call
        that is cancelled does not run if it has not begun; if it runs, it is ended together with its worker, or waited
        for with ``on_cancel="wait"``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool() as pool:
                    assert await pool.call(pow, 2, 10, timeout=60, priority=1) == 1024

            anyio.run(main)
        """
        if keywords:
            raise refused_keywords("call", function, keywords, "timeout, priority, idempotent, on_event")
        pool_loop = self._pool_loop
        loop = pool_loop.here("call")
        if timeout is not None or priority:
            check_job_options("call", timeout, priority)
        if pool_loop.bounded:
            await pool_loop.enter_queue()
        encoded = pool_loop.encoder.encode(function, args)
        if type(encoded[2]) is not bytes:
            await write_files(encoded[2])  # type: ignore[arg-type]  # it is a message
        limit = pool_loop.timeout if timeout is None else timeout
        waiting = loop.waiting()
        job = CallJob(pool_loop, encoded, waiting, on_event, priority, limit, idempotent)
        if pool_loop.boosts_load and type(encoded[2]) is bytes:
            job.depth = encoded[0].duration.depth
        if pool_loop.traced:
            job.label = label_of(function)
        try:
            pool_loop.submit(job)
            await waiting
        except BaseException:
            await self._abandon(job, loop)
            raise
        return job.result()

    async def _abandon(self, job: CallJob, loop: Loop) -> None:
        """Withdraw a call whose task was interrupted; with ``on_cancel="wait"``, wait for it first if it runs."""
        pool_loop = self._pool_loop
        pool_loop.leave_handlers(job)
        if pool_loop.waits and pool_loop.busy:
            await cancel_shielded_checkpoint()  # so that the loop can recover the pool from an interrupt
        if pool_loop.waits and job.worker is not None and job.state is JobState.SENT:
            pool_loop.take_back(job.worker)
            pool_loop.decide_soon()
        if pool_loop.waits and job.state in (JobState.SENT, JobState.RUNNING):
            job.waiting = loop.waiting()
            await shielded(lambda: job.waiting)
        if job.answered:
            job.drop()
        else:
            pool_loop.request(partial(pool_loop.withdraw_jobs, (job,)))

    @overload
    def map(
        self,
        function: Callable[[Item], Later[Result]],
        items: Items[Item],
        /,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> PoolMap[Result]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], Result],
        items: Items[Item],
        /,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> PoolMap[Result]: ...
    @overload
    def map(
        self,
        function: str,
        items: Items[object],
        /,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> PoolMap[Any]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], Later[Result]],
        items: Items[Item],
        /,
        *,
        return_exceptions: bool,
        **options: Unpack[MapOptions],
    ) -> PoolMap[Result | Exception]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], Result],
        items: Items[Item],
        /,
        *,
        return_exceptions: bool,
        **options: Unpack[MapOptions],
    ) -> PoolMap[Result | Exception]: ...
    @overload
    def map(
        self, function: str, items: Items[object], /, *, return_exceptions: bool, **options: Unpack[MapOptions]
    ) -> PoolMap[Any]: ...
    def map(
        self,
        function: Callable[..., Any] | str,
        items: Items[Any],
        /,
        *,
        window: int | None = None,
        ordered: bool = True,
        progress: bool | ProgressCallback = False,
        timeout: float | None = None,
        priority: float = 0,
        idempotent: bool = False,
        return_exceptions: bool = False,
        **keywords: object,
    ) -> PoolMap[Any]:
        """Call ``function(item)`` for all items. Return an async iterator of results, in order or as they are done.

        At most ``window`` items are in progress at a time (by default 128 for each call that workers may have at once).
        Several small and quick items are sent to a worker together. The iterator raises the exception of a call, and
        ends with it; with ``return_exceptions``, such an exception takes the place of the result instead. ``progress``
        shows the progress on stderr, or is called with the number of items that are done and that of all items (None if
        it is not known), at most ten times a second, and at the end. Closing the iterator early (by ``aclose``, or at
        its end as an async context manager) cancels the items that have not begun. The other options are those of
        ``call``, for each item.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool() as pool:
                    assert [result async for result in pool.map(abs, [-1, -2])] == [1, 2]

            anyio.run(main)
        """
        if keywords:
            raise refused_keywords("map", function, keywords, MAP_OPTIONS)
        pool_loop = self._pool_loop
        pool_loop.here("map")
        check_job_options("map", timeout, priority)
        limits = pool_loop.scheduler.limits
        if window is None:
            window = WINDOW * max(1, limits.load * limits.max_workers)
        check_window(window)
        limit = pool_loop.timeout if timeout is None else timeout
        options = {"priority": priority, "timeout": limit, "idempotent": idempotent}
        with UnlessStarted(progress_of("map", progress, function, (items,))) as shown:
            work = AsyncMapItems(pool_loop, function, options, ordered=ordered, progress=shown, window=window)
            return PoolMap._of(pool_loop, work, items, return_exceptions)

    # --- The pool as a whole ---

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers, as far as they are known, without workers that have done their last job.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool(max_workers=1) as pool:
                    await pool.call(abs, -1)
                    print(pool.pids)

            anyio.run(main)
        """
        return self._pool_loop.pids

    def stats(self) -> PoolStats:
        """Return the present numbers of calls and workers, and the totals so far.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool() as pool:
                    await pool.call(abs, -1)
                    print(pool.stats())

            anyio.run(main)
        """
        return self._pool_loop.stats()

    def resize(
        self,
        max_workers: int | None = None,
        *,
        min_idle: int | None = None,
        load: int | None = None,
        limits: Mapping[Template | Warm, int] | None = None,
    ) -> None:
        """Change the limits of the running pool. Workers in excess finish their calls, and end.

        ``limits`` maps some of several templates to their new limits; ``max_workers`` is then the sum of all limits,
        unless it is given. Raises ArgumentError.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool(max_workers=1) as pool:
                    pool.resize(4, min_idle=1)

            anyio.run(main)
        """
        self._pool_loop.resize(NewLimits(max_workers, min_idle, load, limits))

    def replace_template(self, new: Template | Warm, old: Template | Warm | None = None) -> None:
        """Fork workers from another template from now on, in place of ``old`` if there are several.

        Workers of the old template finish their calls, and end. No call is lost or run twice. The old template is not
        closed. With a Warm, the pool goes on as if it had been made with it: from the next call on. Raises
        ArgumentError.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Template().preload("json") as new, aio.Pool() as pool:
                    pool.replace_template(new)

            anyio.run(main)
        """
        self._pool_loop.replace_template(new, old)

    def _templates(self, call: str) -> list[TemplateHandle]:
        return self._pool_loop.templates(call)

    # --- The end ---

    async def aclose(self) -> None:
        """Finish all calls, let all workers end, and wait until they have ended. Closing twice is harmless.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                pool = aio.Pool()
                await pool.call(abs, -1)
                await pool.aclose()

            anyio.run(main)
        """
        await self._pool_loop.end()
        await checkpoint()

    def kill(self) -> None:
        """End the pool now: kill its workers, and fail calls that have no result yet with CallCancelledError.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool() as pool:
                    pool.kill()

            anyio.run(main)
        """
        self._pool_loop.kill()

    async def __aenter__(self) -> Self:
        self._pool_loop.here("async with")
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()
        try:
            await self.aclose()
        except BaseException:
            self.kill()
            await shielded(self.aclose)
            raise

    def __repr__(self) -> str:
        return repr(self._pool_loop)

    @destructor
    def __del__(self) -> None:
        pool_loop = getattr(self, "_pool_loop", None)
        if pool_loop is not None:
            pool_loop.leave()
