"""A worker of an Executor, with its channel and its permits. Nothing here waits."""

from __future__ import annotations

from select import POLLIN
from time import monotonic

from _anyfork_child.wire.channel import plain_socket
from _anyfork_child.wire.frames import ProtocolError

from .._calls.worker_channel import WorkerChannel
from .._pools.pooled_worker import PooledWorker
from .._system.polling import is_ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from select import epoll
    from typing import Any, Protocol

    from .._blocking.process import Process
    from .._calls.permits import Permits
    from .._pools.calls import Pool
    from .._pools.records import WorkerRecord
    from .jobs import AnyJob, BatchJob
    from .worker_queue import JobCalls

    class Watched(Pool, Protocol):
        """The dispatcher, as its workers see it."""

        def look_after(self) -> None: ...


class SharedWorkerChannel(WorkerChannel):
    """The channel of a worker, which the Executor's thread watches together with the other channels."""

    calls: JobCalls
    process: Process

    def __init__(self, process: Process, calls: JobCalls, shared: epoll) -> None:
        super().__init__(process, calls)
        self._shared = shared

    def use(self, sock: socket.socket, end: int) -> None:
        """Use the socket as the channel from now on, and ``end`` as the descriptor that reports the worker's end."""
        self.end = end
        self.watch = self._shared
        if end >= 0:
            self.watch.register(end, POLLIN)
        self.watch.register(sock, POLLIN)
        self.sock = plain_socket(sock)
        self.calls.entered(self.process.pid)

    def has_ended(self) -> bool:
        """Return whether the worker has ended, when the channel has nothing to read.

        The channel alone does not tell: another process may still hold the worker's side of it.
        """
        if self.watch is None or self.end < 0:
            return True
        return is_ready(self.end) and not (self.calls.remote and self._more_to_come())

    def take_answers(self) -> list[tuple[Any, Any]]:
        """Return jobs with their answers, and events with None, from the messages that were read."""
        answers: list[tuple[Any, Any]] = []
        try:
            self.calls.take_answers(self.incoming, answers)
        except ProtocolError as error:
            self.distrust(error)
        return answers

    def unwatch(self) -> None:
        """Stop watching the channel and the end of the worker."""
        if self.watch is not None and self.sock is not None:
            if self.end >= 0:
                self.watch.unregister(self.end)
            self.watch.unregister(self.sock)
        self.watch = None


class ExecutorWorker(PooledWorker):
    """A worker that the dispatcher uses.

    ``moved`` is the time of the last message from the worker, or of the last job that it got while it had none.
    """

    __slots__ = ("moved", "permits", "process")
    calls: JobCalls  # type: ignore[assignment]  # other jobs and calls
    channel: SharedWorkerChannel
    pool: Watched

    def __init__(
        self, pool: Watched, worker: WorkerRecord, channel: SharedWorkerChannel, permits: Permits | None
    ) -> None:
        super().__init__(pool, worker, channel, channel.calls)  # type: ignore[arg-type]  # other jobs and calls
        self.process = channel.process
        self.permits = permits
        self.moved = 0.0

    def look(self) -> None:
        """Check whether the worker has reported that it is ready, that it failed to start, or that it retires."""
        if not self._entered:
            self._enter()
        elif self.calls.retired:
            self.pool.scheduler.retire(self.worker)

    def give(self, jobs: Iterable[AnyJob]) -> None:  # type: ignore[override]  # other jobs
        """Give jobs to the worker. Send the jobs that it needs soon now, and the rest after its next message."""
        for job in jobs:
            job.begin()
        if self.calls.jobs:
            self.pool.look_after()
        else:
            self.moved = monotonic()
        if self.calls.add(jobs):
            self.flush()

    def flush(self) -> None:
        """Write the queued jobs and their permits, and send as much as the socket takes."""
        calls = self.calls
        if calls.unwritten:
            calls.write()
        if calls.permits:
            assert self.permits is not None  # without permits, a worker gets one job at a time
            self.permits.give(calls.permits)
        if calls.out and self.channel.sock is not None:
            self.channel.flush()

    def list_jobs(self) -> tuple[list[AnyJob], bool]:  # type: ignore[override]  # other jobs
        """Return the jobs of the worker after an interrupt, in order. Each but the first has surely not begun.

        Jobs that were being taken back are no longer among them: recovery queues them, and the items of parts.
        """
        self.take_back(0)
        return self.calls.list_jobs(), False

    def flush_again(self) -> None:
        """Resume sending after an interrupt, which may have come at any step of it."""
        self.channel.forget_writes()
        self.flush()

    # --- Jobs that have not begun ---

    def take_back(self, most: int) -> tuple[list[AnyJob], list[BatchJob]]:  # type: ignore[override]  # other jobs
        """Take back ``most`` calls, or as many as have not begun. Return whole jobs, and parts of other jobs.

        The caller has to tell the scheduler. With 0, only complete what an interrupt has stopped.
        """
        calls, permits = self.calls, self.permits
        whole: list[AnyJob] = []
        for job in calls.unwritten:
            if most <= 0:
                break
            whole.append(job)
            most -= job.size
        del calls.unwritten[: len(whole)]
        if permits is None:
            return whole, []
        written, parts = calls.taken_back(permits.take_back(most if calls.jobs else 0))
        permits.forget()
        return whole + written, parts

    def close(self) -> None:
        """Close the permits, the channel and the process handle, after the worker has ended."""
        if self.permits is not None:
            self.permits.close()
        self.channel.unwatch()
        self.channel.close_unread()
        self.channel.close_channel()
        self.process.close()
        del self.process, self.channel.process  # otherwise another thread might collect it, and be interrupted
