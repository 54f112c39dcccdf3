"""Pools of workers: the async face."""

from __future__ import annotations

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from _anyfork_child.values.message import Message

from .._errors import ArgumentError
from .._pools.calls import CallJob
from .._pools.jobs import JobState
from .._pools.map import MOST, MapWork
from .._pools.pool_options import check_job_options
from .._pools.progress import Progress
from .._processes.arguments import Stays, refused_keywords
from .._signatures import overload
from ._map import PoolMap
from ._pool_loop import Keeper
from ._worker_channel import write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, Self, TypedDict, Unpack

    from .._calls.call import Handler
    from .._pools.pool_options import PoolOptions
    from .._pools.stats import PoolStats
    from .._pools.worker_queue import PoolCalls
    from .._signatures import Arguments, Item, Items, Later, Result
    from ._loop import Waiting
    from ._template import Template

    class CallOptions(TypedDict, total=False):
        """What a call may be told."""

        timeout: float | None
        priority: float
        idempotent: bool
        on_event: Handler | None

    class MapOptions(TypedDict, total=False):
        """What a map may be told, but ``return_exceptions``."""

        window: int | None
        ordered: bool
        progress: bool
        timeout: float | None
        priority: float
        idempotent: bool


MAP_OPTIONS = "window, ordered, progress, timeout, priority, idempotent, return_exceptions"


class Pool(Stays):
    """Workers that are forked from a template as they are needed, and one queue of calls for them.

    ``template`` is forked for each worker and stays yours; None is the default template. Several are given as a mapping
    of templates to how many workers each may have; they are used in this order. Times are in seconds, zero is valid
    everywhere:

    ``max_workers`` at most (4, or one for each CPU that may be used where there are fewer, or the sum of the limits);
    ``min_idle`` (0) of them are kept although they have nothing to do, others leave after ``idle_timeout`` (10).
    ``load`` (2) is how many calls a worker is given at once: it runs one, the others wait there. Where it is not said,
    it may be more of functions whose calls have taken less than 0.2 milliseconds so far: as many as take about one.
    While all have so many and calls wait, one worker is started each ``start_after`` (0.1). A worker leaves after
    ``max_calls``, after a call that leaves it with ``max_memory`` bytes (``memory``: "private" or "pss") or ``max_age``
    old, or when it has called ``retire``. A call that runs longer than ``timeout`` is ended with its worker.
    ``max_queued`` calls may wait for workers; a further one waits for room, or raises QueueFullError with
    ``when_full="raise"``. ``on_event``, ``serializer``, ``initializer``, ``initargs``, ``concurrency`` (then the
    ``load`` too), ``backend`` and ``on_cancel`` are those of Worker.

    What goes on beside your tasks lives in the event loop, from the first use until the pool is closed; no task group
    is needed. As an async context manager the pool is closed at the end; left by an exception, or cancelled meanwhile,
    it is killed. One that is not closed ends with its loop. Raises ArgumentError.
    """

    _instead = "make a Pool there, or call its functions here"

    def __init__(
        self, template: Template | Mapping[Template, int] | None = None, **options: Unpack[PoolOptions]
    ) -> None:
        self._keeper = Keeper(template, options)

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
        """The result of ``function(*args)`` in a worker; raises what it raises, with the remote traceback as cause.

        Of those that wait the greatest ``priority`` goes first. ``timeout`` is how many seconds it may run, not
        counting how long it waits; ``math.inf`` for one without the timeout of the pool. An ``idempotent`` one is run
        again, twice at most, when its worker dies. ``on_event`` gets what it emits.

        Raises ArgumentError at once for what cannot travel, CallTimeoutError, WorkerDiedError, QueueFullError, and the
        other kinds of CallError; what stands in the way of a worker, if there is none. Cancelled, it does not run if it
        has not begun; one that runs is ended with its worker, or waited for with ``on_cancel="wait"``.
        """
        if keywords:
            raise refused_keywords("call", function, keywords, "timeout, priority, idempotent, on_event")
        keeper = self._keeper
        loop = keeper.here("call")
        if timeout is not None or priority:
            check_job_options("call", timeout, priority)
        if keeper.bounded:
            await keeper.enter_queue()
        named, body = keeper.encoder.encode(function, args)
        if type(body) is Message and body.fills:
            await write_files(body)
        limit = keeper.timeout if timeout is None else timeout
        job = _Call(keeper, named, body, on_event, priority, limit, idempotent)
        job.attempt = job.error = job.tempo = None
        if keeper.deepens and named is not None and type(body) is bytes:
            job.tempo = tempo = keeper.tempo_of(function)
            job.depth = tempo.depth
        job.waiting = waiting = loop.waiting()
        scheduler = keeper.scheduler
        keeper.busy = True
        scheduler.submit(job)
        keeper.busy = False
        if not keeper.asked and scheduler.unsettled:
            keeper.decide_soon()
        try:
            await waiting
        except BaseException:
            await self._abandon(job)
            raise
        return job.result()

    async def _abandon(self, job: _Call) -> None:
        """Nobody waits for it any more."""
        keeper = self._keeper
        if keeper.waits and job.worker is not None and job.state is JobState.SENT:
            keeper.take_back(job.worker)
            keeper.decide_soon()
        if keeper.waits and job.state in (JobState.SENT, JobState.RUNNING):
            job.waiting = keeper.here("call").waiting()
            with CancelScope(shield=True):
                await job.waiting
        if not job.done:
            keeper.withdraw(job)
        elif job.attempt is not None:
            job.attempt.drop()

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
        progress: bool = False,
        timeout: float | None = None,
        priority: float = 0,
        idempotent: bool = False,
        return_exceptions: bool = False,
        **keywords: object,
    ) -> PoolMap[Any]:
        """The results of ``function(item)`` for all items, as an async iterator: in their order, or as they are done.

        At most ``window`` items are under way at a time (by default 64 for each call that workers may have at once).
        Small and quick ones are given to workers several together. It raises what a call raises, and ends with that;
        with ``return_exceptions`` such an exception takes the place of the result instead. ``progress`` shows on a
        terminal how far it is. Closing it early (``aclose``, or its end as an async context manager) cancels what has
        not begun. The other options are those of ``call``, for each item.
        """
        if keywords:
            raise refused_keywords("map", function, keywords, MAP_OPTIONS)
        keeper = self._keeper
        keeper.here("map")
        check_job_options("map", timeout, priority)
        limits = keeper.scheduler.limits
        if window is None:
            window = MOST * max(1, limits.load * limits.max_workers)
        if window < 1:
            raise ArgumentError(
                f"the window of map() must be 1 or more, not {window}: it is how many items are under way at once"
            )
        shown = Progress.on_terminal(_name(function), _length(items)) if progress else None
        options = (priority, keeper.timeout if timeout is None else timeout, idempotent)
        work = MapWork(keeper, function, window, ordered, shown, options)
        return PoolMap._of(keeper, work, items, return_exceptions)

    # --- The pool as a whole ---

    @property
    def pids(self) -> list[int]:
        """The process ids of its workers, as far as they are known."""
        return self._keeper.pids

    def stats(self) -> PoolStats:
        """What it has and has done, at this moment."""
        return self._keeper.stats()

    def resize(
        self,
        max_workers: int | None = None,
        *,
        min_idle: int | None = None,
        load: int | None = None,
        limits: Mapping[Template, int] | None = None,
    ) -> None:
        """Change its numbers while it runs. Workers above them finish what they have, and leave.

        ``limits`` are those of some of several templates; without a ``max_workers`` that is the sum of all then. Raises
        ArgumentError.
        """
        self._keeper.resize(max_workers, min_idle=min_idle, load=load, limits=limits)

    def replace_template(self, new: Template, old: Template | None = None) -> None:
        """Take workers from another template from now on: in the place of ``old``, where there are several.

        Workers of the old one finish what they have, and leave. No call is lost or run twice. The old template is not
        closed. Raises ArgumentError.
        """
        self._keeper.replace_template(new, old)

    # --- The end ---

    async def aclose(self) -> None:
        """Let all that was asked be done, then all workers end, and wait until they have. Closing twice is harmless."""
        await self._keeper.end()
        await checkpoint()

    def kill(self) -> None:
        """End it now: its workers are killed, and calls that have no result yet fail with CallCancelledError."""
        self._keeper.kill()

    async def __aenter__(self) -> Self:
        self._keeper.here("async with")
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()
        try:
            await self.aclose()
        except BaseException:
            self.kill()
            with CancelScope(shield=True):
                await self.aclose()
            raise

    def __repr__(self) -> str:
        return repr(self._keeper)


class _Call(CallJob):
    __slots__ = ("waiting",)
    waiting: Waiting

    def send(self, calls: PoolCalls) -> None:
        if self.waiting.done():  # cancelled before anything could be sent
            self.pool.skip(self)
        else:
            super().send(calls)

    def wake(self) -> None:
        if not self.waiting.done():
            self.waiting.set_result(None)


def _name(function: Callable[..., Any] | str) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)


def _length(items: object) -> int | None:
    return len(items) if hasattr(items, "__len__") else None
