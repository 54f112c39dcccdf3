"""A worker of a pool, with its channel, its jobs and its permits. Nothing here waits."""

from __future__ import annotations

from contextlib import suppress

from _anyfork_child.wire.frames import ProtocolError

from .._errors import HandleError
from .._system.log import DEBUG, INFO
from .records import JobState, WorkerState
from .worker_queue import MemoryRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .._calls.events import Event
    from .._calls.permits import Permits
    from .._calls.worker_channel import WorkerChannel
    from .._errors import AnyforkError
    from .._status import ExitStatus
    from .jobs import AnyJob, BatchJob
    from .records import WorkerRecord
    from .scheduler import Scheduler
    from .worker_queue import JobCalls

    class Pool(Protocol):
        """A pool (_pools.pool), as its workers see it."""

        scheduler: Scheduler

        @property
        def now(self) -> Callable[[], float]: ...
        def record_answers(self, answers: Sequence[tuple[Any, Any]], now: float) -> None: ...
        def record_end(self, worker: WorkerRecord) -> None: ...
        def skip(self, job: AnyJob) -> None: ...
        def not_started(self, worker: WorkerRecord, error: BaseException) -> None: ...
        def tell(self, level: int, what: str, why: str) -> None: ...


ALL = 1 << 14  # more jobs than one worker ever has


class PooledWorker:
    """A worker of a pool. ``worker`` is the scheduler's record of it, ``channel`` its channel.

    Without ``permits``, jobs that were written to it cannot be taken back before its end.
    """

    __slots__ = ("_entered", "calls", "channel", "permits", "pool", "status", "worker")

    def __init__(
        self, pool: Pool, worker: WorkerRecord, channel: WorkerChannel, calls: JobCalls, permits: Permits | None
    ) -> None:
        self.pool = pool
        self.worker = worker
        self.channel: Any = channel  # a face's own channel
        self.calls = calls
        self.permits = permits
        self._entered = False  # the scheduler knows that the worker is ready, or never will be
        self.status: ExitStatus | None = None  # once it has ended
        worker.pooled_worker = self

    @property
    def pid(self) -> int | None:
        """The process id, once it is known."""
        return self.channel.process.pid  # type: ignore[no-any-return]  # the channel is a WorkerChannel

    # --- Steps of the scheduler ---

    def give(self, jobs: Sequence[AnyJob]) -> None:
        """Give jobs to the worker. Send the jobs that it needs soon now, and the rest after its next message."""
        wanted = [job for job in jobs if job.begin()]
        if len(wanted) < len(jobs):
            for job in jobs:
                if job not in wanted:
                    self.pool.skip(job)
        if wanted and self.calls.queue_jobs(wanted):
            self.flush()

    def flush(self) -> None:
        """Write the queued jobs and their permits, and send as much as the socket takes."""
        calls = self.calls
        if calls.unwritten:
            calls.write()
        if calls.permits:
            assert self.permits is not None
            self.permits.give(calls.permits)
        if calls.out and self.channel.sock is not None:
            self.channel.flush()

    def leave(self) -> None:
        """Let the worker end, which has nothing to do. Kill it if it is not ready yet."""
        if self._entered and self.channel.sock is not None:
            self.channel.shut()
        else:
            self.kill()

    def kill(self) -> None:
        """Kill the worker now.

        If the collector has closed the handle of its process, with an event loop that nobody refers to any more, the
        worker ends by itself: its channel is closed, too. In a forked copy of the owner, nothing happens to it.
        """
        self.calls.drop_out()
        with suppress(HandleError):
            self.channel.process.kill()

    # --- Jobs that have not begun ---

    def take_back(self, most: int = ALL) -> tuple[list[AnyJob], list[BatchJob]]:
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

    def take_back_at_end(self) -> tuple[list[AnyJob], list[BatchJob]]:
        """Take back the jobs that the worker, which has ended, has not begun. Return them as ``take_back`` does."""
        whole, parts = self.take_back()
        if self.permits is None:
            written, parts = self.calls.taken_back(self.calls.not_begun())
            whole = whole + written
        return whole, parts

    def list_jobs(self) -> tuple[list[AnyJob], bool]:
        """Return the jobs of the worker after an interrupt, and whether all of them may have begun.

        Each but the first has surely not begun, unless it is not known what was sent or received: then the worker was
        killed, and jobs that it has begun fail. Jobs that were being taken back are no longer among them: recovery
        queues them, and the items of parts.
        """
        if not self.channel.torn:
            self.take_back(0)
            return self.calls.list_jobs(), False
        self.worker.state = WorkerState.KILLED
        back, _ = self.take_back()
        begun = [job for job in self.worker.jobs if job.state in (JobState.SENT, JobState.RUNNING)]
        jobs: dict[Any, None] = dict.fromkeys([*begun, *self.calls.list_jobs()])
        return [job for job in jobs if job not in back], True

    def flush_again(self) -> None:
        """Resume sending after an interrupt, which may have come at any step of it, unless the worker was killed."""
        self.channel.forget_writes()
        if not self.channel.torn:
            self.flush()

    # --- Messages from the worker ---

    def take(self) -> Event | None:
        """Record the answers that were read, up to an event; return the event. ``decide`` must follow."""
        answers: list[tuple[Any, Any]] = []
        event = None
        try:
            event = self.calls.take_answers(self.channel.incoming, answers)
        except ProtocolError as error:
            self.channel.distrust(error)
        if answers:
            self.pool.record_answers(answers, self.pool.now())
        if event is None:
            self._look()
        return event

    def _look(self) -> None:
        """Report whether the worker has said that it is ready, that it failed to start, or that it retires."""
        calls, pool = self.calls, self.pool
        if self._entered:
            if calls.retired:
                pool.scheduler.retire(self.worker)
        elif calls.ready:
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
        self.pool.record_end(self.worker)
        for job in self.calls.jobs.values():
            if not isinstance(job, MemoryRequest) and job.state is JobState.GIVEN_UP:
                job.release()
        self.calls.jobs.clear()
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

    def close(self) -> None:
        """Close the pipe of the permits: the worker has ended."""
        if self.permits is not None:
            self.permits.close()
