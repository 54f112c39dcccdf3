"""Recovery of a scheduler that an interrupt has stopped in the middle of a change.

The state of the scheduler may be half written then. But each worker's calls say which jobs the worker has, and the pool
has a list of all jobs whose callers wait. The scheduler's state is rebuilt from these two, and no job is lost.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from .records import WorkerRecord
    from .scheduler import Scheduler

    class Recovered(Protocol):
        """A worker of the pool."""

        worker: WorkerRecord

        def list_jobs(self) -> tuple[Sequence[Any], bool]: ...
        def flush_again(self) -> None: ...


def adopt_all(scheduler: Scheduler, workers: Iterable[Recovered], wanted: Mapping[Any, None], now: float) -> None:
    """Give a new scheduler the present workers, with the jobs that they have, and queue all other wanted jobs."""
    waiting = dict(wanted)
    for pooled_worker in workers:
        jobs, begun = pooled_worker.list_jobs()
        scheduler.adopt(pooled_worker.worker, jobs, wanted, now, begun=begun)
        for job in jobs:
            waiting.pop(job, None)
        pooled_worker.flush_again()
    scheduler.requeue(waiting)
