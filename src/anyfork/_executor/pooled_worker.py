"""One worker of an Executor, with its channel and its permits. Nothing here waits."""

from __future__ import annotations

from select import POLLIN
from time import monotonic

from _anyfork_child.wire.channel import plain_socket
from _anyfork_child.wire.frames import ProtocolError

from .._calls.worker_channel import Conversation
from .._pools.pooled_worker import Seat
from .._system.polling import is_ready
from .jobs import BatchJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from select import epoll
    from typing import Any

    from .._blocking.process import Process
    from .._calls.permits import Permits
    from .._pools.worker_table import Worker
    from .dispatcher import Dispatcher
    from .jobs import AnyJob
    from .worker_queue import JobCalls


class SharedTalk(Conversation):
    """The channel of a worker that is watched together with those of others."""

    calls: JobCalls
    process: Process

    def __init__(self, process: Process, calls: JobCalls, shared: epoll) -> None:
        super().__init__(process, calls)
        self._shared = shared

    def use(self, sock: socket.socket, end: int) -> None:
        """This is the channel, from now on, and the descriptor that tells of the worker's end."""
        self.end = end
        self.watch = self._shared
        if end >= 0:
            self.watch.register(end, POLLIN)
        self.watch.register(sock, POLLIN)
        self.sock = plain_socket(sock)

    def has_ended(self) -> bool:
        """Whether the worker has, when nothing is to be read: something else may still hold its end of the channel."""
        if self.watch is None or self.end < 0:
            return True
        return is_ready(self.end) and not (self.calls.in_band and self._more_to_come())

    def take_answers(self) -> list[tuple[Any, Any]]:
        """Take what has come: jobs with their answers, and events with None."""
        answers: list[tuple[Any, Any]] = []
        try:
            self.calls.take_answers(self.incoming, answers)
        except ProtocolError as error:
            self.distrust(error)
        return answers

    def unwatch(self) -> None:
        """Nothing comes any more."""
        if self.watch is not None and self.sock is not None:
            if self.end >= 0:
                self.watch.unregister(self.end)
            self.watch.unregister(self.sock)
        self.watch = None


class JobSeat(Seat):
    """``moved`` is when something last came from the worker, or was sent to it when it had nothing to do."""

    __slots__ = ("moved", "permits", "process")
    calls: JobCalls  # type: ignore[assignment]  # as above
    talk: SharedTalk
    pool: Dispatcher

    def __init__(self, pool: Dispatcher, worker: Worker, talk: SharedTalk, permits: Permits | None) -> None:
        super().__init__(pool, worker, talk, talk.calls)  # type: ignore[arg-type]  # other jobs and calls
        self.process = talk.process
        self.permits = permits
        self.moved = 0.0

    def look(self) -> None:
        """It may have said that it is ready, that it never will be, or that it wants to leave."""
        if not self._entered:
            self._enter()
        elif self.calls.retired:
            self.pool.scheduler.retire(self.worker)

    def give(self, jobs: Iterable[AnyJob]) -> None:  # type: ignore[override]  # other jobs
        """Let it have these: what it needs soon is sent now, the rest with what comes from it."""
        for job in jobs:
            job.begin()
        if self.calls.jobs:
            self.pool.look_after()
        else:
            self.moved = monotonic()
        if self.calls.add(jobs):
            self.flush()

    def flush(self) -> None:
        """Send what it is to have."""
        calls = self.calls
        if calls.unwritten:
            calls.write()
        if calls.permits:
            assert self.permits is not None  # or it would have one job at a time
            self.permits.give(calls.permits)
        if calls.out and self.talk.sock is not None:
            self.talk.flush()

    def flush_again(self) -> None:
        """Send on after an interrupt, which may have come at any step of it."""
        self.talk.forget_writes()
        self.flush()

    # --- What it has not begun ---

    def take_back(self, most: int) -> tuple[list[AnyJob], list[BatchJob]]:  # type: ignore[override]  # other jobs
        """So many jobs, if there are as many that have not begun: whole ones, and parts of some.

        The scheduler has to be told.
        """
        unwritten = self.calls.unwritten
        whole: list[AnyJob] = []
        while unwritten and most > 0:
            job = unwritten.popleft()
            whole.append(job)
            most -= job.size
        numbers = self.not_begun(most) if most > 0 and self.calls.jobs else []
        by_job: dict[AnyJob, list[int]] = {}
        for job, number in self.calls.taken_back(numbers):
            by_job.setdefault(job, []).append(number)
        parts: list[BatchJob] = []
        for job, of_it in by_job.items():
            if isinstance(job, BatchJob) and len(of_it) < job.left:
                parts.append(job.split(of_it))
            else:
                whole.append(job)
        return whole, parts

    def not_begun(self, most: int) -> list[int]:
        """The numbers of so many calls that were written, and will not begin now."""
        return [] if self.permits is None else self.permits.take_back(most)

    def close(self) -> None:
        """It has ended: let go of all that it had."""
        if self.permits is not None:
            self.permits.close()
        self.talk.unwatch()
        self.talk.close_unread()
        self.talk.close_channel()
        self.process.close()
        del self.process, self.talk.process  # not to be collected in another thread, which may be interrupted
