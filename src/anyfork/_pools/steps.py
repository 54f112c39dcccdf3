"""The steps that the scheduler of a pool asks a face to carry out, and the errors of jobs that fail."""

from __future__ import annotations

from copy import copy
from enum import Enum

from .._errors import CallCancelledError, CallTimeoutError
from .records import WorkerRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Job


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


def error_for(job: Job, why: FailureReason, of: WorkerRecord | BaseException | None) -> BaseException:
    """Return the error of a job that has no answer; ``of`` is as in a step ``fail``."""
    may_have_run = isinstance(of, WorkerRecord)
    if why is FailureReason.DIED:
        assert isinstance(of, WorkerRecord)
        return of.pooled_worker.death()  # type: ignore[no-any-return]  # of a PooledWorker
    what = "it may have run" if may_have_run else "nothing of it has run"
    if why is FailureReason.TIMED_OUT:
        text = f"the call ran for more than {job.timeout} seconds; {what}"
        return CallTimeoutError(text, may_have_run=may_have_run)
    if why is FailureReason.KILLED:
        return CallCancelledError(
            f"the pool was killed before the call had a result; {what}", may_have_run=may_have_run
        )
    if why is FailureReason.CLOSED:
        return CallCancelledError(
            "the pool was closed while it could have no workers (a limit is 0); nothing of the call has run",
            may_have_run=False,
        )
    assert isinstance(of, BaseException)
    return _again(of)


def _again(error: BaseException) -> BaseException:
    """Copy an error for another call, so that each call gets a traceback of its own."""
    made = copy(error).with_traceback(None)  # some libraries teach copy the tracebacks
    made.__cause__ = error.__cause__
    return made
