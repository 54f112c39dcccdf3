"""Until when the jobs of a pool may run."""

from __future__ import annotations

from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .jobs import Job
    from .worker_table import Worker


class Deadlines:
    """``next`` is the first of all. It may be that of a job that is done: most are, long before.

    So a job costs next to nothing, and all are looked at no more often than the shortest time that one may run.
    """

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = inf

    def set(self, job: Job, deadline: float) -> None:
        """It may run until then."""
        job.deadline = deadline
        self.next = min(self.next, deadline)

    def passed(self, workers: Iterable[Worker], now: float) -> list[tuple[Worker, Job]]:
        """Those that have run for too long, and whose worker has them still."""
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
