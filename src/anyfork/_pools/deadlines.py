"""The deadlines of the jobs of a pool."""

from __future__ import annotations

from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .jobs import Job
    from .worker_table import Worker


class Deadlines:
    """The deadlines of all jobs that run. ``next`` is the earliest.

    It may belong to a job that is done: most jobs are done long before their deadlines. So a job costs next to nothing,
    and all jobs are examined no more often than once per shortest time that a job may run.
    """

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = inf

    def set(self, job: Job, deadline: float) -> None:
        """Set the deadline of a job."""
        job.deadline = deadline
        self.next = min(self.next, deadline)

    def passed(self, workers: Iterable[Worker], now: float) -> list[tuple[Worker, Job]]:
        """Return the jobs whose deadlines have passed, with their workers, and find the next deadline."""
        self.next = inf
        late = []
        for worker in workers:
            for job in worker.jobs:
                if job.deadline is None:
                    continue
                if job.deadline <= now:
                    late.append((worker, job))
                else:
                    self.next = min(self.next, job.deadline)
        return late
