"""The records of a pool's scheduler: jobs, workers, and the templates that the workers come from."""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._calls.track import Track

FIRST_DELAY = 0.05  # seconds before the third attempt, when two have failed; the second comes at once
LAST_DELAY = 5.0  # seconds: the delay doubles with each further failure, up to this
MAX_TRIES = 5  # starts in a row that gave no living worker, until the template counts as hopeless


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
    have this job too. ``label`` is the name of its function, which only the jobs of pools with a timeline have.
    """

    label: str
    __slots__ = ("deadline", "depth", "idempotent", "label", "priority", "runs", "size", "state", "timeout", "worker")

    def __init__(
        self, *, priority: float = 0, timeout: float | None = None, idempotent: bool = False, size: int = 1
    ) -> None:
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = size
        self.depth = 0
        self.state: JobState = JobState.NEW
        self.worker: WorkerRecord | None = None  # the worker that has the job
        self.runs = 0  # how often the job may have run
        self.deadline: float | None = None  # of the present run

    @property
    def answers(self) -> int:
        """The number of its calls that have an answer, while others have none. Jobs of several calls override it."""
        return 0


class WorkerState(IntEnum):
    """The state of a worker."""

    STARTING = 0
    WORKING = 1  # takes jobs
    LEAVING = 2  # finishes its jobs, and takes no more
    KILLED = 3  # by this pool; it has not ended yet
    GONE = 4  # no longer belongs to the pool


class WorkerRecord:
    """A worker, as the scheduler sees it. ``jobs`` are in the order in which they were given to it."""

    __slots__ = (
        "began",
        "born",
        "calls",
        "generation",
        "idle_since",
        "jobs",
        "paused",
        "pooled_worker",
        "slow",
        "source",
        "state",
        "track",
        "why",
    )

    def __init__(self, source: TemplateRecord, now: float) -> None:
        self.source = source
        self.generation = source.generation  # of its template
        self.state: WorkerState = WorkerState.STARTING
        self.jobs: dict[Job, None] = {}
        self.calls = 0  # calls that the worker was given
        self.slow = 0  # how many of its jobs are not known to be quick
        self.born = now
        self.began = now  # the job that it runs
        self.paused = False  # gets no jobs until it has done the one that it runs, see _pools.scheduler
        self.idle_since = now
        self.pooled_worker: Any = None  # the face's data
        self.track: Track | None = None  # in a pool with a timeline
        self.why = ""  # it was started; later, why it leaves or was killed

    @property
    def some_wait(self) -> bool:
        """Return whether calls wait in the worker behind the one that it runs: jobs, or items of a job."""
        return len(self.jobs) > 1 or any(job.size - job.answers > 1 for job in self.jobs)

    @property
    def counts(self) -> bool:
        """Return whether the worker counts against the limits: it has jobs, or may get some."""
        return self.state <= WorkerState.WORKING or bool(self.jobs)


class TemplateRecord:
    """A template for workers of a pool: the ``key``. ``limit`` is how many workers it may have.

    Each ``generation`` is another template; the face sets the key then.
    """

    __slots__ = (
        "awaited", "broken", "count", "error", "failures", "generation", "key", "limit", "lived", "not_before",
        "stillborn",
    )  # fmt: skip

    def __init__(self, key: Any, limit: float) -> None:
        self.key = key
        self.limit = limit
        self.count = 0  # workers that have, or may get, jobs
        self.generation = 0
        self.awaited = False
        self.renew()
        self.generation = 0

    def renew(self) -> None:
        """Forget the history: the source is another template now, of which nothing is known.

        A template in the place of one that has ended keeps the back-off: it may end at once, too.
        """
        self.generation += 1
        if not self.awaited:
            self.failures = 0  # failures in a row, of all kinds
            self.not_before = 0.0
        self.stillborn = 0  # how many of the failures were starts that gave no living worker
        self.broken = False  # the template will never give a living worker
        self.awaited = False  # the template has ended, and the face makes another one: jobs wait for that
        self.lived = False  # one of its workers has been ready
        self.error: BaseException | None = None  # why the last start has failed

    def succeeded(self) -> None:
        """Note that a worker of the template has done a job, which ends the back-off."""
        self.failures = self.stillborn = 0
        self.not_before = 0.0

    def failed(self, now: float) -> None:
        """Note that a worker of the template has died or was not started, and set the back-off."""
        self.failures += 1
        delay = FIRST_DELAY * 2 ** min(self.failures - 2, 10) if self.failures > 1 else 0.0
        self.not_before = now + min(delay, LAST_DELAY)

    def not_started(self, now: float, error: BaseException, permanent: bool) -> None:
        """Note that a start has failed. ``permanent`` says that all other starts will fail too."""
        self.failed(now)
        self.stillborn += 1
        self.error = error
        self.broken = permanent

    def not_renewed(self, error: BaseException) -> None:
        """Note that no other template can be made, and why."""
        self.awaited, self.broken, self.error = False, True, error

    @property
    def hopeless(self) -> bool:
        """Return whether jobs that wait for a worker of the template should be told that there is none."""
        return not self.awaited and (self.broken or self.stillborn >= MAX_TRIES)
