"""Recovery of a scheduler that an interrupt has stopped in the middle of a change, and the end of one that has failed.

The state of the scheduler may be half written then. But each worker's calls say which jobs the worker has, and the pool
has a list of all jobs whose callers wait. The scheduler's state is rebuilt from these two, and no job is lost.
"""

from __future__ import annotations

from .._errors import PeerError
from .jobs import BatchJob, ItemJob
from .records import JobState, WorkerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Container, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from .admission import Admission
    from .jobs import AnyJob
    from .map import MapItems
    from .pooled_worker import PooledWorker
    from .records import Job, WorkerRecord
    from .scheduler import Scheduler

    class Torn(Protocol):
        """A pool (_pools.pool) whose decision was interrupted."""

        scheduler: Scheduler
        pooled_workers: set[PooledWorker]
        works: set[MapItems]

        @property
        def admission(self) -> Admission: ...

    class Failed(Protocol):
        """A pool that has failed by an unexpected error."""

        what: str
        scheduler: Scheduler
        pooled_workers: set[PooledWorker]
        works: set[MapItems]
        open: dict[AnyJob, None]
        finished: deque[tuple[Any, Any]]

    class Recovered(Protocol):
        """A worker of the pool."""

        worker: WorkerRecord

        def list_jobs(self) -> tuple[Sequence[Any], bool]: ...
        def flush_again(self) -> None: ...


def adopt(
    scheduler: Scheduler,
    worker: WorkerRecord,
    jobs: Sequence[Job],
    wanted: Container[Job],
    now: float,
    *,
    begun: bool = False,
) -> None:
    """Take over a worker of an earlier scheduler with its jobs, in the order in which it runs them.

    ``wanted`` holds the jobs that are still wanted. The worker begins with the first job; with ``begun``, it may
    have begun all of them.
    """
    worker.jobs = dict.fromkeys(jobs)
    worker.slow = sum(not job.depth for job in jobs)
    for number, job in enumerate(jobs):
        job.worker = worker
        if job not in wanted:
            job.state = JobState.GIVEN_UP
        elif job.state is not JobState.RUNNING or (number and not begun and not scheduler.limits.concurrent):
            job.state = JobState.SENT
        if job.deadline is not None:
            scheduler._deadlines.set(job, job.deadline)
    scheduler.workers.adopt(worker)
    if worker.some_wait and not scheduler.limits.concurrent:
        scheduler._stalls.note_adopted(now)
    for job in jobs if begun or scheduler.limits.concurrent else jobs[:1]:
        if job.deadline is None:
            scheduler._begin(job, now)
    if worker.state is WorkerState.KILLED:
        scheduler._steps.kill.append(worker)
    elif worker.state is WorkerState.LEAVING and not jobs:
        scheduler._steps.stop.append(worker)
    elif worker.generation != worker.source.generation and worker.state < WorkerState.LEAVING:
        scheduler._leave(worker, "its template was replaced")


def requeue(scheduler: Scheduler, jobs: Iterable[Job]) -> None:
    """Queue jobs of an earlier scheduler that no worker has."""
    for job in jobs:
        if job.worker is not None and job.state in (JobState.SENT, JobState.RUNNING):
            scheduler._count_answers(job)
            job.worker.calls -= job.size
            job.runs -= job.state is JobState.RUNNING
        job.state, job.worker, job.deadline = JobState.QUEUED, None, None
        scheduler.queue.add(job)


def adopt_all(scheduler: Scheduler, workers: Iterable[Recovered], wanted: Mapping[Any, None], now: float) -> None:
    """Give a new scheduler the present workers, with the jobs that they have, and queue all other wanted jobs."""
    waiting = dict(wanted)
    for pooled_worker in workers:
        jobs, begun = pooled_worker.list_jobs()
        adopt(scheduler, pooled_worker.worker, jobs, wanted, now, begun=begun)
        for job in jobs:
            waiting.pop(job, None)
        pooled_worker.flush_again()
    requeue(scheduler, waiting)


def rebuild(pool: Torn, wanted: Mapping[AnyJob, None], now: float) -> None:
    """Give the pool a new scheduler, with the present workers and all wanted jobs."""
    pool.scheduler = pool.scheduler.anew()
    pool.admission.count()
    present = [each for each in pool.pooled_workers if each.worker.state is not WorkerState.GONE]
    adopt_all(pool.scheduler, present, wanted, now)
    complete_maps(pool.works, wanted)


def fail_all(pool: Failed, error: BaseException) -> PeerError:
    """Let all open jobs, and all items of maps that are in no job, fail; return the error that present and future
    jobs get. The pool itself has failed with ``error``.

    The scheduler may be in any state, and its next decision may fail, too. So nothing is asked of it: the pool gets a
    new one, which is killed. The face has to deliver what is in ``finished``. The failures are before the answers that
    have come, because the delivery of one of these may be what has failed.
    """
    for pooled_worker in pool.pooled_workers:
        pooled_worker.worker.state = WorkerState.GONE
        pooled_worker.worker.jobs.clear()
    pool.scheduler = pool.scheduler.anew()
    pool.scheduler.kill()
    for job in pool.open:
        if job.state is not JobState.NEW:
            pool.scheduler._counts.failed += job.size - job.answers
        job.state = JobState.DONE
    failed = [*pool.open, *(item for work in pool.works for item in work.remove_unsent())]
    pool.open.clear()
    pool.works.clear()
    pool.finished.extendleft((who, _failure_of(pool, error)) for who in reversed(failed))
    return _failure_of(pool, error)


def _failure_of(pool: Failed, error: BaseException) -> PeerError:
    failure = PeerError(f"{pool.what} has failed: {type(error).__name__}: {error}", may_have_run=True)
    failure.__cause__ = error
    return failure


def complete_maps(works: Iterable[MapItems], jobs: Iterable[AnyJob]) -> None:
    """Rebuild each map's set of jobs from all open jobs, and queue its items that are in no job."""
    taken: dict[MapItems, set[int]] = {work: set() for work in works}
    for work in taken:
        work.jobs.clear()
    for job in [*jobs]:
        if isinstance(job, (BatchJob, ItemJob)) and job.work in taken:
            job.work.jobs.add(job)
            taken[job.work].update(job.open())
    for work, indexes in taken.items():
        work.complete(indexes)
