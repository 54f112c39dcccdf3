"""What a pool has and has done."""

from __future__ import annotations

from dataclasses import dataclass

from .jobs import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jobs import JobQueue
    from .worker_table import Workforce


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool has and has done, at one moment. The first are present numbers, the others count since its beginning.

    ``workers`` are those that take jobs, of which ``idle`` have none; ``starting`` and ``leaving`` ones come on top.
    ``running`` jobs may have begun, ``sent`` ones wait in a worker, ``queued`` ones in the pool.
    """

    workers: int
    idle: int
    starting: int
    leaving: int
    queued: int
    sent: int
    running: int
    submitted: int
    answered: int
    failed: int
    timed_out: int
    withdrawn: int
    moved: int
    run_again: int
    started: int
    not_started: int
    retired: int
    died: int


class Counts:
    """What is counted since the beginning; see PoolStats."""

    __slots__ = (
        "answered",
        "died",
        "failed",
        "moved",
        "not_started",
        "retired",
        "run_again",
        "started",
        "submitted",
        "timed_out",
        "withdrawn",
    )

    def __init__(self) -> None:
        self.submitted = self.answered = self.failed = self.timed_out = self.withdrawn = 0
        self.moved = self.run_again = 0
        self.started = self.not_started = self.retired = self.died = 0


def stats_of(force: Workforce, queue: JobQueue, counts: Counts) -> PoolStats:
    """The record of this moment."""
    jobs = [job for worker in (*force.working, *force.leaving) for job in worker.jobs]
    sent = sum(job.state is JobState.SENT for job in jobs)
    return PoolStats(
        workers=len(force.working),
        idle=len(force.idle),
        starting=len(force.starting),
        leaving=len(force.leaving),
        queued=queue.length,
        sent=sent,
        running=len(jobs) - sent,
        **{name: getattr(counts, name) for name in Counts.__slots__},
    )
