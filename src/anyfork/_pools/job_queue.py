"""The queue in which the jobs of a pool wait, and the deadlines of those that run."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Job, WorkerRecord


class JobQueue:
    """A queue of waiting jobs.

    The greatest priority goes first; within a priority, jobs are served in the order of their arrival.
    """

    __slots__ = ("_by_priority", "_plain", "_priorities", "length")

    def __init__(self) -> None:
        self.length = 0
        self._plain: OrderedDict[Job, None] = OrderedDict()  # jobs of priority 0, which most jobs have
        self._by_priority: dict[float, OrderedDict[Job, None]] = {0: self._plain}  # priority 0 stays when it is empty
        self._priorities: list[float] = [0]

    def add(self, job: Job) -> None:
        """Add a job at the end of its priority."""
        level = self._plain if job.priority == 0 else self._level(job.priority)
        level[job] = None
        self.length += 1

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Put jobs that were in the queue before at the front of their priorities, in this order."""
        for job in reversed(list(jobs)):
            level = self._level(job.priority)
            level[job] = None
            level.move_to_end(job, last=False)
            self.length += 1

    def _level(self, priority: float) -> OrderedDict[Job, None]:
        level = self._by_priority.get(priority)
        if level is None:
            level = self._by_priority[priority] = OrderedDict()
            insort(self._priorities, priority)
        return level

    def first(self) -> Job:
        """Return the job that ``take_job`` takes. The queue must not be empty."""
        for priority in reversed(self._priorities):
            for job in self._by_priority[priority]:
                return job
        raise IndexError("no job waits")

    def take_job(self) -> Job:
        """Remove and return the next job. The queue must not be empty."""
        if len(self._priorities) == 1:
            self.length -= 1
            return self._plain.popitem(last=False)[0]
        for priority in reversed(self._priorities):
            level = self._by_priority[priority]
            if level:
                job, _ = level.popitem(last=False)
                self.length -= 1
                if not level and priority:
                    self._drop(priority)
                return job
        raise IndexError("no job waits")

    def remove(self, job: Job) -> None:
        """Remove this job, wherever it is in the queue."""
        priority = job.priority
        level = self._by_priority[priority]
        del level[job]
        self.length -= 1
        if not level and priority:
            self._drop(priority)

    def _drop(self, priority: float) -> None:
        del self._by_priority[priority]
        self._priorities.remove(priority)

    def clear(self) -> list[Job]:
        """Remove all jobs, and return them in their order."""
        jobs = [job for priority in reversed(self._priorities) for job in self._by_priority[priority]]
        self.__init__()  # type: ignore[misc]  # as new
        return jobs


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

    def passed(self, workers: Iterable[WorkerRecord], now: float) -> list[tuple[WorkerRecord, Job]]:
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
