"""The jobs of a pool, as its scheduler sees them, and the queue in which they wait."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .worker_table import Worker


class JobState(IntEnum):
    """How far a job has come."""

    NEW = 0
    QUEUED = 1
    SENT = 2  # with a worker, behind another one: it has not begun
    RUNNING = 3  # with a worker, which may have begun it
    GIVEN_UP = 4  # with a worker, and nobody waits for it any more
    DONE = 5


class Job:
    """One job. Faces add what they need.

    Among those that wait a greater ``priority`` goes first. ``timeout`` is how many seconds it may run. One that is
    ``idempotent`` may be run again when its worker has died. ``size`` is how many calls it stands for, see max_calls.
    One that is known to be quick has a ``depth``: a worker that has fewer jobs, and quick ones only, may have it too.
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
        self.worker: Worker | None = None  # that it is with
        self.runs = 0  # how often it may have run
        self.deadline: float | None = None  # of the present run


class JobQueue:
    """Jobs that wait: the first come first within a priority, the greatest priority before all others."""

    __slots__ = ("_by_priority", "_plain", "_priorities", "length")

    def __init__(self) -> None:
        self.length = 0
        self._plain: OrderedDict[Job, None] = OrderedDict()  # of priority 0, which most jobs have
        self._by_priority: dict[float, OrderedDict[Job, None]] = {0: self._plain}  # that stays when it is empty
        self._priorities: list[float] = [0]

    def add(self, job: Job) -> None:
        """At the end of its priority."""
        level = self._plain if job.priority == 0 else self._level(job.priority)
        level[job] = None
        self.length += 1

    def put_back(self, jobs: Iterable[Job]) -> None:
        """At the front, in this order: they were here before."""
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
        """The one that ``take`` takes. There has to be one."""
        for priority in reversed(self._priorities):
            for job in self._by_priority[priority]:
                return job
        raise IndexError("no job waits")

    def take(self) -> Job:
        """The next. There has to be one."""
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
        """This one, wherever it stands."""
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
        """All of them, in their order; none waits any more."""
        jobs = [job for priority in reversed(self._priorities) for job in self._by_priority[priority]]
        self.__init__()  # type: ignore[misc]  # as new
        return jobs
