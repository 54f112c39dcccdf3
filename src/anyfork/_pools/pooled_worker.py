"""A worker of a pool, with its channel: the common part of both faces. Nothing here waits."""

from __future__ import annotations

from .._system.log import DEBUG, INFO
from .records import JobState, WorkerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._calls.events import Event
    from .._calls.worker_channel import WorkerChannel
    from .._errors import AnyforkError
    from .._status import ExitStatus
    from .calls import Pool, PoolJob
    from .records import WorkerRecord
    from .worker_queue import PoolCalls


class PooledWorker:
    """A worker of a pool. ``worker`` is the scheduler's record of it, ``channel`` its channel."""

    __slots__ = ("_entered", "calls", "channel", "last", "pool", "status", "worker")

    def __init__(self, pool: Pool, worker: WorkerRecord, channel: WorkerChannel, calls: PoolCalls) -> None:
        self.pool = pool
        self.worker = worker
        self.channel = channel
        self.calls = calls
        self._entered = False  # the scheduler knows that the worker is ready, or never will be
        self.last = 0.0  # when the worker was done with the last job whose duration was measured
        self.status: ExitStatus | None = None  # once it has ended
        worker.pooled_worker = self

    @property
    def pid(self) -> int | None:
        """The process id, once it is known."""
        return self.channel.process.pid

    # --- Steps of the scheduler ---

    def give(self, jobs: Iterable[PoolJob]) -> None:
        """Send jobs to the worker, as far as the socket takes them now.

        The rest is sent when the socket is readable or writable.
        """
        calls = self.calls
        try:
            for job in jobs:
                job.send(calls)
            calls.gather()
            self.channel.flush()
        except BaseException as error:
            self.channel.tear(error)
            raise

    def flush(self) -> None:
        """Send the calls that were begun meanwhile."""
        try:
            self.calls.gather()
            if self.calls.out and self.channel.sock is not None:
                self.channel.flush()
        except BaseException as error:
            self.channel.tear(error)
            raise

    def take_back(self) -> list[PoolJob]:
        """Take back and return the jobs that the worker has not begun, and will not begin now.

        The caller has to tell the scheduler.
        """
        try:
            return self.calls.take_back()
        except BaseException as error:
            self.channel.tear(error)
            raise

    def list_jobs(self) -> tuple[list[PoolJob], bool]:
        """Return the jobs of the worker after an interrupt, and whether all of them may have begun.

        If it is not known what was sent or received, the worker was killed. Jobs that it has begun fail then.
        """
        if not self.channel.torn:
            self.calls.take_back(0)
            return self.calls.list_jobs(), False
        self.worker.state = WorkerState.KILLED
        back = {*self.calls.take_back()}
        begun = [job for job in self.worker.jobs if job.state in (JobState.SENT, JobState.RUNNING)]
        jobs: dict[Any, None] = dict.fromkeys([*begun, *self.calls.list_jobs()])
        return [job for job in jobs if job not in back], True

    def flush_again(self) -> None:
        """Resume sending after an interrupt, unless the worker was killed because of it."""
        self.channel.forget_writes()
        if not self.channel.torn:
            self.flush()

    def leave(self) -> None:
        """Let the worker end, which has nothing to do. Kill it if it is not ready yet."""
        if self._entered and self.channel.sock is not None:
            self.channel.shut()
        else:
            self.kill()

    def kill(self) -> None:
        """Kill the worker now."""
        self.calls.drop_out()
        self.channel.process.kill()

    # --- Messages from the worker ---

    def read(self) -> bool:
        """Read the messages that have come, for ``take``.

        Return False when the worker has ended, and everything from it was read.
        """
        try:
            return not self.channel.torn and self.channel.came() is not False
        except BaseException as error:
            self.channel.tear(error)
            raise

    def take(self) -> tuple[Event, Any] | None:
        """Handle all messages that were read, up to an event whose handler has to be awaited.

        Return that event and what has to be awaited; call ``take`` again after that. The pool has to ``decide``
        afterwards.
        """
        channel = self.channel
        while channel.incoming:
            try:
                event = channel.take()
            except BaseException as error:
                channel.tear(error)
                raise
            if event is not None:
                answer = event.handle()
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
        """Report that the worker will never be ready, unless the pool knows already."""
        if not self._entered:
            self._entered = True
            self.pool.not_started(self.worker, error)

    def ended(self, status: ExitStatus) -> None:
        """Report that the worker has ended. Everything from it must have been handled before."""
        self.status = status
        self.channel.died(status)
        if self._entered:
            self._tell_end(status)
            self.pool.scheduler.died(self.worker, self.pool.now())
        else:
            self.not_started(self.death(may_have_run=False))

    def _tell_end(self, status: ExitStatus) -> None:
        """Log the end of the worker: what it was doing, if the pool did not want it to end."""
        if self.worker.state is WorkerState.WORKING:
            self.pool.tell(INFO, f"has lost worker {self.pid}, with {len(self.worker.jobs)} jobs", str(status))
        else:
            self.pool.tell(DEBUG, f"has no worker {self.pid} any more", str(status))

    def death(self, may_have_run: bool = True) -> AnyforkError:
        """Return an error that says what has happened to the worker: a new one each time."""
        return self.calls.error(may_have_run)
