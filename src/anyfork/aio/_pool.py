"""Pools of workers: the async face."""

from __future__ import annotations

from collections import deque
from math import inf

from anyio import CancelScope, Event
from anyio.lowlevel import checkpoint

from _anyfork_child._message import Message

from .._errors import AnyforkError, ArgumentError, HandleError
from .._jobs import JobState
from .._pool_handle import PoolHandle
from .._pool_jobs import CallJob
from .._pool_map import MOST, MapWork
from .._progress import Progress
from .._seat import Seat
from ._loop import running_loop
from ._pool_map import PoolMap
from ._process import Process
from ._pump import attend
from ._talk import Talk, write_files
from ._template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping
    from typing import Any, Self, Unpack

    from .._pending import Handler
    from .._pool_calls import PoolCalls
    from .._pool_options import PoolOptions
    from .._workforce import Worker
    from ._loop import Handle, Loop, Waiting


class Pool(PoolHandle):
    """Workers that are forked from a template as they are needed, and one queue of calls for them.

    ``template`` is forked for each worker and stays yours; None is the default template. Several are given as a mapping
    of templates to how many workers each may have; they are used in this order. Times are in seconds, zero is valid
    everywhere:

    ``max_workers`` (4, or the sum of the limits) at most; ``min_idle`` (0) of them are kept although they have nothing
    to do, others leave after ``idle_timeout`` (10). ``load`` (2) is how many calls a worker is given at once: it runs
    one, the others wait there. While all have so many and calls wait, one worker is started each ``start_after`` (0.1).
    A worker leaves after ``max_calls``, after a call that leaves it with ``max_memory`` bytes (``memory``: "private" or
    "pss") or ``max_age`` old, or when it has called ``retire``. A call that runs longer than ``timeout`` is ended with
    its worker. ``max_queued`` calls may wait for workers; a further one waits for room, or raises QueueFullError with
    ``when_full="raise"``. ``on_event``, ``serializer``, ``initializer``, ``initargs``, ``concurrency`` (then the
    ``load`` too), ``backend`` and ``on_cancel`` are those of Worker.

    What goes on beside your tasks lives in the event loop, from the first use until the pool is closed; no task group
    is needed. As an async context manager the pool is closed at the end; left by an exception, or cancelled meanwhile,
    it is killed. One that is not closed ends with its loop. Raises ArgumentError.
    """

    def __init__(
        self, template: Template | Mapping[Template, int] | None = None, **options: Unpack[PoolOptions]
    ) -> None:
        super().__init__("Pool", template, options)
        self._loop: Loop | None = None
        self._asked = False  # decide will be called soon
        self._timer: Handle | None = None
        self._timer_at = inf
        self._waiters: deque[Waiting] = deque()  # for room in the queue
        self._gone: list[Event] = []  # of those that wait for the end
        self._waits = self._settings.worker.on_cancel == "wait"
        self._bounded = self.scheduler.limits.max_queued is not None
        loop = running_loop()
        if loop is not None:
            self._live_in(loop)

    def _live_in(self, loop: Loop) -> None:
        self._loop = loop
        self._decide_soon()

    def _here(self, call: str) -> Loop:
        """The loop, which is that of the first use. Raises HandleError."""
        self._check(call)
        if self._loop is None:
            loop = running_loop()
            if loop is None:
                raise HandleError(f"{call}() on an async pool needs an event loop that runs")
            self._live_in(loop)
            return loop
        if not self._loop.runs:
            raise HandleError(f"{call}() on a pool that belongs to another event loop")
        return self._loop

    # --- Calls ---

    async def call(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        timeout: float | None = None,
        priority: float = 0,
        idempotent: bool = False,
        on_event: Handler | None = None,
    ) -> Any:
        """The result of ``function(*args)`` in a worker; raises what it raises, with the remote traceback as cause.

        Of those that wait the greatest ``priority`` goes first. ``timeout`` is how many seconds it may run, not
        counting how long it waits; ``math.inf`` for one without the timeout of the pool. An ``idempotent`` one is run
        again, twice at most, when its worker dies. ``on_event`` gets what it emits.

        Raises ArgumentError at once for what cannot travel, CallTimeoutError, WorkerDiedError, QueueFullError, and the
        other kinds of CallError; what stands in the way of a worker, if there is none. Cancelled, it does not run if it
        has not begun; one that runs is ended with its worker, or waited for with ``on_cancel="wait"``.
        """
        loop = self._here("call")
        if self._bounded:
            await self._enter_queue()
        named, body = self.encoder.encode(function, args)
        if type(body) is Message and body.fills:
            await write_files(body)
        job = _Call(self, named, body, on_event, priority, self._timeout if timeout is None else timeout, idempotent)
        job.attempt = job.error = None
        job.waiting = waiting = loop.waiting()
        scheduler = self.scheduler
        scheduler.submit(job)
        if not self._asked and scheduler.unsettled:
            self._decide_soon()
        try:
            await waiting
        except BaseException:
            await self._abandon(job)
            raise
        return job.result()

    async def _abandon(self, job: _Call) -> None:
        """Nobody waits for it any more."""
        if self._waits and job.state in (JobState.SENT, JobState.RUNNING):
            assert self._loop is not None
            job.waiting = self._loop.waiting()
            with CancelScope(shield=True):
                await job.waiting
        if not job.done:
            self.withdraw(job)
        elif job.attempt is not None:
            job.attempt.drop()

    def map(
        self,
        function: Callable[..., Any] | str,
        items: Iterable[object] | AsyncIterable[object],
        /,
        *,
        window: int | None = None,
        ordered: bool = True,
        progress: bool = False,
        timeout: float | None = None,
        priority: float = 0,
        idempotent: bool = False,
        return_exceptions: bool = False,
    ) -> PoolMap:
        """The results of ``function(item)`` for all items, as an async iterator: in their order, or as they are done.

        At most ``window`` items are under way at a time (by default 64 for each call that workers may have at once).
        Small and quick ones are given to workers several together. It raises what a call raises, and ends with that;
        with ``return_exceptions`` such an exception takes the place of the result instead. ``progress`` shows on a
        terminal how far it is. Closing it early (``aclose``, or its end as an async context manager) cancels what has
        not begun. The other options are those of ``call``, for each item.
        """
        self._here("map")
        limits = self.scheduler.limits
        if window is None:
            window = MOST * max(1, limits.load * limits.max_workers)
        if window < 1:
            raise ArgumentError(f"the window of map() must be 1 or more, not {window}")
        shown = Progress.on_terminal(_name(function), _length(items)) if progress else None
        options = (priority, self._timeout if timeout is None else timeout, idempotent)
        return PoolMap(self, MapWork(self, function, window, ordered, shown, options), items, return_exceptions)

    # --- Room in the queue ---

    async def _enter_queue(self) -> None:
        """Wait until there is room, in turn. Raises QueueFullError where nobody is to wait."""
        if not self._waiters and self.scheduler.has_room:
            return
        if self._settings.raises:
            self._refuse()
        await self.wait_for_room()

    async def wait_for_room(self) -> None:
        """Wait until there is room, in turn, for a job that is submitted right afterwards."""
        assert self._loop is not None
        scheduler, waiting = self.scheduler, self._loop.waiting()
        scheduler.waiters += 1
        self._waiters.append(waiting)
        self._decide_soon()
        try:
            await waiting
        except BaseException:
            if waiting in self._waiters:
                self._waiters.remove(waiting)
            raise
        finally:
            scheduler.waiters -= 1
            if waiting.done():
                scheduler.promised -= 1
            self._decide_soon()

    # --- Deciding ---

    def _decide_soon(self) -> None:
        """Decide when all tasks that can run now have said what they want."""
        if not self._asked and self._loop is not None:
            self._asked = True
            self._loop.soon(self._decide_now)

    def later(self, action: Callable[[], None]) -> None:
        """Do something in the loop, if there still is one. May be called from anywhere."""
        if self._loop is not None:
            self._loop.from_anywhere(action)

    def _decide_now(self) -> None:
        self._asked = False
        self.decide()

    def decide(self) -> None:
        """Do what is to be done now."""
        super().decide()
        scheduler = self.scheduler
        while self._waiters and scheduler.has_room:
            scheduler.promised += 1
            self._waiters.popleft().set_result(None)
        if self._gone and scheduler.finished and not self.seats:
            for event in self._gone:
                event.set()

    def _wake_at(self, when: float) -> None:
        """A timer that would be too early is left alone: what is due moves on with every job."""
        if when < self._timer_at and self._loop is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._loop.at(when, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, self._timer_at = None, inf
        self.decide()

    # --- Workers ---

    def _begin(self, worker: Worker) -> None:
        try:
            template = Template() if worker.source.key is None else worker.source.key.fork()
            link = self._settings.worker.start(template)
        except (AnyforkError, OSError) as error:
            self.not_started(worker, error)
            self._decide_soon()
            return
        attend()
        calls = self._calls()
        seat = Seat(self, worker, Talk(Process._of(link), calls), calls)
        self.seats.add(seat)
        assert self._loop is not None
        self._loop.spawn(self._attend, seat)

    async def _attend(self, seat: Seat) -> None:
        """One worker, from its start to its end."""
        talk = seat.talk
        assert isinstance(talk, Talk)
        try:
            try:
                await talk.connect()
            except AnyforkError as error:
                seat.not_started(error)
            else:
                await self._converse(seat, talk)
        finally:  # cancelled only at the end of the loop
            seat.kill()
            self.seats.discard(seat)
            with CancelScope(shield=True):
                await talk.drop()
            self._decide_soon()

    async def _converse(self, seat: Seat, talk: Talk) -> None:
        """Take what comes from a worker, until it has ended."""
        assert self._loop is not None
        assert talk.watch is not None
        awaited: Any = None
        ended = False

        def come() -> bool:
            nonlocal awaited, ended
            if seat.read():
                awaited = seat.take()
            else:
                ended = True
            self.decide()
            return ended or awaited is not None

        while not ended:
            await self._loop.read(talk.watch.fileno(), come)
            while awaited is not None:
                await talk.await_handler(*awaited)
                awaited = seat.take()
                self.decide()
        seat.ended(await talk.fate())

    # --- The end ---

    async def aclose(self) -> None:
        """Let all that was asked be done, then all workers end, and wait until they have. Closing twice is harmless."""
        self._closed = True
        self.scheduler.close()
        await checkpoint()
        if self._loop is None:
            return
        if self.seats or not self.scheduler.finished:
            event = Event()
            self._gone.append(event)
            self._decide_soon()
            await event.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, inf

    async def __aenter__(self) -> Self:
        if self._loop is None:
            self._here("async with")
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
