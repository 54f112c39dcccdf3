"""What becomes of an Executor when an interrupt has torn a thread out of the middle of a decision.

Nobody knows then what was done and what was not. Its workers are killed; what a worker may have begun fails, and
everything else, of which the dispatcher has a list, waits anew for other workers.
"""

from __future__ import annotations

from ._errors import WorkerDiedError
from ._executor_jobs import BatchJob, Item
from ._executor_map import ItemJob
from ._job_calls import Measure
from ._jobs import JobState
from ._status import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._dispatcher import Dispatcher
    from ._executor_map import MapWork
    from ._executor_seat import JobSeat

ALL = 1 << 14  # more permits than there are


def mend(dispatcher: Dispatcher) -> None:
    """Begin anew. Runs in the dispatcher's thread, under its lock, where no interrupt comes."""
    for seat in dispatcher.crew.seats:
        if not seat.cut_off:
            _cut_off(dispatcher, seat)
    dispatcher.scheduler = scheduler = dispatcher.scheduler.anew()
    dispatcher.room.count()
    taken: dict[MapWork, set[int]] = {work: set() for work in dispatcher.works}
    for work in taken:
        work.jobs.clear()
    for job in dispatcher.open:
        job.state, job.worker, job.deadline = JobState.QUEUED, None, None
        scheduler.queue.add(job)
        if isinstance(job, (BatchJob, ItemJob)) and job.work in taken:
            job.work.jobs.add(job)
            taken[job.work].update(job.open())
    for work, indexes in taken.items():
        work.wait_for_jobs(sorted(work.items.keys() - indexes))


def _cut_off(dispatcher: Dispatcher, seat: JobSeat) -> None:
    """Kill a worker, and let what it may have begun fail."""
    seat.cut_off = True
    seat.kill()
    calls = seat.calls
    calls.drop_out()  # some of it may have been sent
    answers: list[tuple[Any, Any]] = []
    while seat.talk.sock is not None and seat.talk.watch is not None and seat.talk.came():
        answers += seat.talk.take_answers()
    for job, message in answers:
        _take(dispatcher, job, message)
    not_begun = set(seat.not_begun(ALL))
    for number, job in calls.jobs.items():
        if number not in not_begun:
            _lose(dispatcher, job, number, _error(seat))
    calls.jobs.clear()
    calls.unwritten.clear()


def _take(dispatcher: Dispatcher, job: Any, message: Any) -> None:
    """Note an answer."""
    if type(job) is Measure:
        return
    if type(job) is BatchJob:
        dispatcher.finished.append((job.work, (job.answered(message), message)))
        if job.left:
            return
    else:
        dispatcher.finished.append((job, message))
    dispatcher.open.pop(job, None)


def _lose(dispatcher: Dispatcher, job: Any, number: int, error: WorkerDiedError) -> None:
    """A worker may have begun the call of this number."""
    if type(job) is BatchJob:
        dispatcher.finished.append((Item(job.work, job.take_out(number)), error))
        if job.left:
            return
    elif type(job) is not Measure and job in dispatcher.open:
        dispatcher.finished.append((job, error))
    dispatcher.open.pop(job, None)


def _error(seat: JobSeat) -> WorkerDiedError:
    text = f"worker {seat.pid} was killed, because an interrupt has left it in disorder; the call may have run"
    return WorkerDiedError(text, pid=seat.pid, status=UNKNOWN, may_have_run=True)
