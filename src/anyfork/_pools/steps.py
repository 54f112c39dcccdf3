"""What the scheduler of a pool wants to be done."""

from __future__ import annotations

from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jobs import Job
    from .worker_table import Worker


class Failure(Enum):
    """Why a job has no answer."""

    DIED = "its worker has died"
    TIMED_OUT = "it ran for too long"
    NO_WORKER = "no worker can be started"
    KILLED = "the pool was killed"
    CLOSED = "the pool was closed, and may have no workers"


class Steps:
    """What is to be done now.

    A step                what the face does
    start   worker        starts one from ``worker.source.key``; later ``ready(worker)`` or ``not_started(worker, why)``
    assign  worker, job   sends it; later ``answered(job)``, whatever the answer is, also for jobs given up
    stop    worker        lets it end: it has nothing to do. One that is being started is given up
    kill    worker        kills it; ``died`` follows, once all that it has sent is read
    abort   worker, job   takes back from the worker what it has not begun (``taken_back``), then tells ``abort(job)``
    fail    job, why, of  answers who waits; ``of`` is the worker (DIED, TIMED_OUT) or the error (NO_WORKER). One that
                          TIMED_OUT of a concurrent worker is to be cancelled there; its ``answered`` still follows

    A step may be done later. So it carries what it needs, and whoever does it reads nothing that changes meanwhile.
    """

    __slots__ = ("abort", "assign", "fail", "kill", "start", "stop")

    def __init__(self) -> None:
        self.assign: list[tuple[Worker, Job]] = []
        self.start: list[Worker] = []
        self.stop: list[Worker] = []
        self.kill: list[Worker] = []
        self.abort: list[tuple[Worker, Job]] = []
        self.fail: list[tuple[Job, Failure, Worker | BaseException | None]] = []

    def __bool__(self) -> bool:
        return bool(self.assign or self.start or self.stop or self.kill or self.abort or self.fail)
