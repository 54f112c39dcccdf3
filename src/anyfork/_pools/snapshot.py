"""The state of a pool as plain values, for ``anyfork top``. Any thread may take it: it only reads."""

from __future__ import annotations

from dataclasses import asdict

from .records import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .records import WorkerRecord
    from .scheduler import Scheduler


def snapshot_of(scheduler: Scheduler, kind: str, name: str, now: float) -> dict[str, Any]:
    """Return the numbers of a pool, its workers and what they do, and why the last start of a worker failed."""
    stats = asdict(scheduler.stats())
    del stats["pids"]
    errors = [str(source.error) for source in scheduler.sources if source.error is not None]
    workers = [_worker(worker, scheduler.limits.concurrent, now) for worker in scheduler.workers.all()]
    return {"kind": kind, "name": name, "stats": stats, "error": "\n".join(errors), "workers": workers}


def _worker(worker: WorkerRecord, concurrent: bool, now: float) -> dict[str, Any]:
    jobs = [*worker.jobs]
    running = [job.label for job in jobs if job.state in (JobState.RUNNING, JobState.GIVEN_UP)]
    pooled_worker = worker.pooled_worker
    return {
        "pid": None if pooled_worker is None else pooled_worker.pid,
        "state": worker.state.name.lower(),
        "running": running,
        "seconds": now - worker.began if running and not concurrent else None,
        "waiting": len(jobs) - len(running),
        "calls": worker.calls,
        "age": now - worker.born,
        "generation": worker.generation,
    }
