"""The jobs of a pool, as its scheduler sees them: the queue in which they wait, and their deadlines."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from enum import IntEnum
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .worker_table import Worker


class JobState(IntEnum):
    """The state of a job."""

    NEW = 0
    QUEUED = 1
    SENT = 2  # with a worker, behind another job: it has not begun
    RUNNING = 3  # with a worker, which may have begun it
    GIVEN_UP = 4  # with a worker, but the caller no longer waits for the answer
    DONE = 5


class Job:
    """A job of a pool. Each face adds what it needs.

    Among waiting jobs a greater ``priority`` goes first. ``timeout`` is how many seconds the job may run. An
    ``idempotent`` job may run again when its worker has died. ``size`` is how many calls the job stands for, see
    max_calls. A job that is known to be quick has a ``depth``: a worker that has fewer jobs, and only quick ones, may
    have this job too.
    """

    __slots__ = ("deadline", "depth", "idempotent", "priority", "runs", "size", "state", "timeout", "worker")

    def __init__(
        self, *, priority: float = 0, timeout: float | None = None, idempotent: bool = False, size: int = 1
    ) -> None:
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = size
        self.depth = 0
        self.state: JobState = JobState.NEW
        self.worker: Worker | None = None  # the worker that has the job
        self.runs = 0  # how often the job may have run
        self.deadline: float | None = None  # of the present run


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
        """Return the job that ``take`` takes. The queue must not be empty."""
        for priority in reversed(self._priorities):
            for job in self._by_priority[priority]:
                return job
        raise IndexError("no job waits")

    def take(self) -> Job:
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
