"""The statistics of a pool."""

from __future__ import annotations

from dataclasses import dataclass

from .._system.process_memory import memory_of
from .records import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._system.process_memory import ProcessMemory
    from .job_queue import JobQueue
    from .worker_table import WorkerTable


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The statistics of a pool at one moment.

    ``workers`` to ``running`` are present numbers; the other fields count since the beginning of the pool. Each item of
    a map counts (with ``chunksize``, each chunk), though small items are sent, and wait, as one job of several.
    ``workers`` is how many workers take jobs, and ``idle`` how many of these have none; ``starting`` and ``leaving``
    workers are counted separately. ``running`` jobs may have begun, ``sent`` jobs wait in a worker, ``queued`` jobs
    wait in the pool. ``starting_seconds`` is how long all starts together took until the workers were ready. ``pids``
    are the process ids of workers on this machine. ``spares`` are the processes that the pool's templates keep ready
    (see ``Template.keep_spares``): they are no workers.

    For example::

        import anyfork

        with anyfork.Executor(max_workers=1) as executor:
            executor.submit(pow, 2, 10).result()
            stats = executor.stats()
        print(stats.workers, stats.submitted)
    """

    workers: int
    idle: int
    starting: int
    leaving: int
    queued: int
    sent: int
    running: int
    submitted: int
    answered: int
    failed: int
    timed_out: int
    withdrawn: int
    moved: int
    run_again: int
    started: int
    not_started: int
    retired: int
    died: int
    starting_seconds: float
    pids: tuple[int, ...]
    spares: int = 0

    @property
    def memory(self) -> dict[int, ProcessMemory]:
        """The memory of the workers by their process ids, measured when you read this.

        Workers that have ended meanwhile are missing, and so are all workers on another machine.

        For example::

            import anyfork

            with anyfork.Executor(max_workers=1) as executor:
                executor.submit(abs, -1).result()
                for pid, memory in executor.stats().memory.items():
                    print(pid, memory.private, memory.pss)
        """
        return {pid: memory for pid in self.pids if (memory := memory_of(pid)) is not None}


class Counts:
    """The counts since the beginning of a pool; see PoolStats."""

    __slots__ = (
        "answered",
        "died",
        "failed",
        "moved",
        "not_started",
        "retired",
        "run_again",
        "started",
        "starting_seconds",
        "submitted",
        "timed_out",
        "withdrawn",
    )

    def __init__(self) -> None:
        self.submitted = self.answered = self.failed = self.timed_out = self.withdrawn = 0
        self.moved = self.run_again = 0
        self.started = self.not_started = self.retired = self.died = 0
        self.starting_seconds = 0.0


def stats_of(workers: WorkerTable, queue: JobQueue, counts: Counts) -> PoolStats:
    """Return the statistics of this moment."""
    jobs = [job for worker in (*workers.working, *workers.leaving) for job in [*worker.jobs]]  # any thread may read
    sent = sum(job.state is JobState.SENT for job in jobs)
    return PoolStats(
        workers=len(workers.working),
        idle=len(workers.idle),
        starting=len(workers.starting),
        leaving=len(workers.leaving),
        queued=queue.length,
        sent=sent,
        running=len(jobs) - sent,
        pids=(),
        **{name: getattr(counts, name) for name in Counts.__slots__},
    )
