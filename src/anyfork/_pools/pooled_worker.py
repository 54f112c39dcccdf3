"""One worker of a pool, with its channel, as far as both faces do the same with it: nothing here waits."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._calls.call import Event
    from .._calls.worker_channel import Conversation
    from .._errors import AnyforkError
    from .._status import ExitStatus
    from .calls import PoolJob
    from .pool import PoolHandle
    from .worker_queue import PoolCalls
    from .worker_table import Worker


class Seat:
    """``worker`` is what the scheduler knows of it, ``talk`` its channel."""

    __slots__ = ("_entered", "calls", "last", "pool", "talk", "worker")

    def __init__(self, pool: PoolHandle, worker: Worker, talk: Conversation, calls: PoolCalls) -> None:
        self.pool = pool
        self.worker = worker
        self.talk = talk
        self.calls = calls
        self._entered = False  # the scheduler knows that it is ready, or never will be
        self.last = 0.0  # when it was done with a job of a map
        worker.seat = self

    @property
    def pid(self) -> int | None:
        """Its process id, once it is known."""
        return self.talk.process.pid

    # --- What the scheduler wants ---

    def give(self, jobs: Iterable[PoolJob]) -> None:
        """Send it these, as far as the socket takes them now; the rest goes on when it is readable or writable."""
        calls = self.calls
        for job in jobs:
            job.send(calls)
        calls.gather()
        self.talk.flush()

    def flush(self) -> None:
        """Send what was begun meanwhile."""
        self.calls.gather()
        if self.calls.out and self.talk.sock is not None:
            self.talk.flush()

    def take_back(self) -> list[PoolJob]:
        """Take back the jobs that the worker has not begun, and will not now. The scheduler has to be told."""
        return self.calls.take_back()

    def leave(self) -> None:
        """Let it end: it has nothing to do. One that is not there yet is given up."""
        if self._entered and self.talk.sock is not None:
            self.talk.shut()
        else:
            self.kill()

    def kill(self) -> None:
        """End it now."""
        self.calls.drop_out()
        self.talk.process.kill()

    # --- What comes ---

    def read(self) -> bool:
        """Read what has come, for ``take``; False when the worker has ended, and everything from it was read."""
        return self.talk.came() is not False

    def take(self) -> tuple[Event, Any] | None:
        """Take all that was read, up to an event whose handler has to be awaited: that, and what is to be awaited.

        Take again after that. The pool has to ``decide`` afterwards.
        """
        talk = self.talk
        while talk.incoming:
            event = talk.take()
            if event is not None:
                answer = talk.handle(event)
                if hasattr(answer, "__await__"):
                    return event, answer
        if not self._entered:
            self._enter()
        elif self.calls.retired:
            self.pool.scheduler.retire(self.worker)
        return None

    def _enter(self) -> None:
        calls, pool = self.calls, self.pool
        if calls.ready:
            self._entered = True
            pool.scheduler.ready(self.worker, pool.now())
        elif calls.failed:
            self.not_started(self.death())

    # --- The end ---

    def not_started(self, error: BaseException) -> None:
        """It will never be there."""
        if not self._entered:
            self._entered = True
            self.pool.not_started(self.worker, error)

    def ended(self, status: ExitStatus) -> None:
        """It has ended, and everything from it was taken."""
        self.talk.died(status)
        if self._entered:
            self.pool.scheduler.died(self.worker, self.pool.now())
        else:
            self.not_started(self.death(may_have_run=False))

    def death(self, may_have_run: bool = True) -> AnyforkError:
        """The error that says what has become of it: a new one each time."""
        return self.calls.error(may_have_run)
