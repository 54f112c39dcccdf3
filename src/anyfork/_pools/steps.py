"""The steps that the scheduler of a pool asks a face to carry out."""

from __future__ import annotations

from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Job, WorkerRecord


class FailureReason(Enum):
    """A reason why a job has no answer."""

    DIED = "its worker has died"
    TIMED_OUT = "it ran for too long"
    NO_WORKER = "no worker can be started"
    KILLED = "the pool was killed"
    CLOSED = "the pool was closed, and may have no workers"


class Steps:
    """The steps to carry out now.

    A step                what the face does
    start   worker        starts a worker from ``worker.source.key``, and later reports ``ready(worker)`` or
                          ``not_started(worker, why)``
    assign  worker, job   sends the job, and later reports ``answered(job)``: for any answer, and also for jobs given up
    stop    worker        lets the worker end, which has nothing to do; a worker that is being started is given up
    kill    worker        kills the worker, and reports ``died`` once everything that it has sent is read
    unblock worker        takes back the jobs that the worker has not begun (``taken_back``)
    abort   worker, job   takes back the jobs that the worker has not begun (``taken_back``), then calls ``abort(job)``
    fail    job, why, of  fails the job for its caller; ``of`` is the worker (DIED, TIMED_OUT) or the error (NO_WORKER).
                          A job that TIMED_OUT in a concurrent worker has to be cancelled there; its ``answered`` still
                          follows

    A step may be carried out later. So it contains all that it needs, and the face reads nothing that may have changed.
    """

    __slots__ = ("abort", "assign", "fail", "kill", "start", "stop", "unblock")

    def __init__(self) -> None:
        self.assign: list[tuple[WorkerRecord, Job]] = []
        self.start: list[WorkerRecord] = []
        self.stop: list[WorkerRecord] = []
        self.kill: list[WorkerRecord] = []
        self.unblock: list[WorkerRecord] = []
        self.abort: list[tuple[WorkerRecord, Job]] = []
        self.fail: list[tuple[Job, FailureReason, WorkerRecord | BaseException | None]] = []

    def __bool__(self) -> bool:
        return bool(self.assign or self.start or self.stop or self.kill or self.unblock or self.abort or self.fail)
