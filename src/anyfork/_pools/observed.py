"""A scheduler that draws a timeline: what each worker of the pool does, and when."""

from __future__ import annotations

from time import monotonic

from .._calls.track import Track
from .._system.process_memory import memory_of
from .records import JobState, WorkerState
from .scheduler import Scheduler
from .steps import FailureReason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._calls.trace_file import TraceFile
    from .pool_options import Limits
    from .records import Job, TemplateRecord, WorkerRecord
    from .steps import Steps

COUNT = 0.02  # seconds at least between two values of a counter
MEASURE = 0.5  # seconds at least between two measurements of memory
SHARE = 200  # a measurement is followed by this many times its own duration without another one


# The methods of the base class, which are called for every job: ``super`` costs more.
begin, answered, decide = Scheduler._begin, Scheduler.answered, Scheduler.decide
wake_at: Callable[[Scheduler], float] = Scheduler.wake_at.fget  # type: ignore[attr-defined]  # a property


class ObservedScheduler(Scheduler):
    """A scheduler with a timeline, which ``file`` writes."""

    def __init__(
        self, limits: Limits, sources: Sequence[TemplateRecord], file: TraceFile, kind: str, remote: bool
    ) -> None:
        super().__init__(limits, sources)
        self._file = file
        self._kind = kind
        self._remote = remote  # the memory of other machines is out of reach
        self._concurrent = limits.concurrent
        self._look_at = 0.0  # when the counters are drawn again
        self._shown: tuple[int, int] | None = None
        self._measure_at = 0.0
        self._measured = 0  # how many measurements there were
        self._running: dict[Job, float] = {}  # when jobs of concurrent workers began

    def _like(self) -> Scheduler:
        return ObservedScheduler(self.limits, self.sources, self._file, self._kind, self._remote)

    # --- Jobs ---

    def _begin(self, job: Job, now: float) -> None:
        if self._concurrent:
            self._running[job] = now
        elif (track := job.worker.track) is not None:  # type: ignore[union-attr]  # a job that begins has a worker
            track.began = now
        begin(self, job, now)

    def answered(self, job: Job, now: float) -> None:
        """Draw the job, and note that its answer has come."""
        worker = job.worker
        if (
            worker is not None
            and job in worker.jobs
            and (track := worker.track) is not None
            # In as few steps as possible for a quick job of the same function.
            and (self._concurrent or job.label != track.label or not track.extend(now, job.size))
        ):
            self._draw(worker, job, now, "")
        answered(self, job, now)

    def skip(self, job: Job, now: float) -> None:
        """Drop a job that was not sent to its worker, without drawing it."""
        worker = job.worker
        if worker is None:
            super().skip(job, now)
            return
        track, worker.track = worker.track, None
        super().skip(job, now)
        worker.track = track

    def _draw(self, worker: WorkerRecord, job: Job, now: float, outcome: str) -> None:
        track = worker.track
        if track is None:
            return
        label = job.label
        if self.limits.concurrent:
            track.job_in_lane(label, self._running.pop(job, now), now, outcome)
        else:
            track.job(label, track.began, now, job.size, outcome)

    def _fail(self, job: Job, why: FailureReason, of: WorkerRecord | BaseException | None) -> None:
        track = getattr(of, "track", None)
        if why is FailureReason.TIMED_OUT and track is not None:
            track.instant("timed out", monotonic(), job=job.label)
        super()._fail(job, why, of)

    # --- Workers ---

    def _start(self, source: TemplateRecord, now: float, why: str) -> None:
        super()._start(source, now, why)
        self._steps.start[-1].track = Track(self._file, f"{self._kind} worker", self.limits.concurrent, now)

    def entered(self, worker: WorkerRecord, now: float) -> None:
        """Draw how long the fork has taken."""
        if worker.track is not None:
            worker.track.entered(worker.pooled_worker.pid, now, worker.generation)

    def ready(self, worker: WorkerRecord, now: float) -> None:
        """Draw how long the initializer has taken, and give jobs to the worker."""
        if worker.track is not None:
            worker.track.ready(now)
        super().ready(worker, now)

    def not_started(self, worker: WorkerRecord, now: float, error: BaseException, permanent: bool = False) -> None:
        """Draw that a worker could not be started."""
        self._file.instant("not started", 0, now, error=str(error))
        self._close(worker, now)
        super().not_started(worker, now, error, permanent)

    def template_lost(self, worker: WorkerRecord, error: BaseException) -> bool:
        """Draw that a worker was not started because its template has ended."""
        now = monotonic()
        self._file.instant("template lost", 0, now, error=str(error))
        self._close(worker, now)
        return super().template_lost(worker, error)

    def died(self, worker: WorkerRecord, now: float) -> None:
        """Draw the end of a worker, and of the job that it was running."""
        state = worker.state
        for job in worker.jobs:
            if job.state in (JobState.RUNNING, JobState.GIVEN_UP):
                self._draw(worker, job, now, "died")
        if worker.track is not None and state is not WorkerState.GONE:
            status = worker.pooled_worker.status
            worker.track.instant("died" if state is WorkerState.WORKING else "ended", now, status=str(status))
        super().died(worker, now)
        self._close(worker, now)

    @staticmethod
    def _close(worker: WorkerRecord, now: float) -> None:
        track, worker.track = worker.track, None
        if track is not None:
            track.close(now)

    def retire(self, worker: WorkerRecord, why: str = "it has called retire()") -> None:
        """Draw that a worker retires."""
        if worker.state is WorkerState.WORKING and worker.track is not None:
            worker.track.instant("retired", monotonic(), why=why)
        super().retire(worker, why)

    def _kill(self, worker: WorkerRecord, why: str) -> None:
        if worker.track is not None:
            worker.track.instant("killed", monotonic(), why=why)
        super()._kill(worker, why)

    def _lose(self, worker: WorkerRecord, jobs: list[Job]) -> None:
        super()._lose(worker, jobs)
        for job in jobs:
            if job.state is JobState.QUEUED and job.runs and worker.track is not None:
                worker.track.instant("retry", monotonic(), job=job.label, runs=job.runs)

    # --- The pool ---

    def renew(self, source: TemplateRecord) -> None:
        """Draw that a template was replaced."""
        super().renew(source)
        self._file.instant(f"generation {source.generation}", 0, monotonic())

    @property
    def wake_at(self) -> float:
        """The latest time for the next call of ``decide``, also to write the timeline."""
        wake, write = wake_at(self), self._file.wake_at
        return wake if wake < write else write

    def decide(self, now: float) -> Steps:
        """Return the steps to carry out now. Draw the counters, and write the timeline if it is time."""
        steps = decide(self, now)
        if now >= self._look_at:
            self._look(now)
        return steps

    def _look(self, now: float) -> None:
        self._count(now)
        self._measure(now)
        self._file.flush(now)
        self._look_at = now + COUNT

    def _count(self, now: float) -> None:
        shown = self.queue.length, len(self.workers.working)
        if shown != self._shown:
            self._shown = shown
            self._file.count("queue", now, jobs=shown[0])
            self._file.count("workers", now, workers=shown[1])

    def _measure(self, now: float) -> None:
        """Draw the memory of one worker, seldom enough that measuring costs little."""
        workers = self.workers.working
        if now < self._measure_at or self._remote or not workers:
            return
        self._measured += 1
        worker = [*workers][self._measured % len(workers)]
        memory = None if worker.pooled_worker.pid is None else memory_of(worker.pooled_worker.pid)
        if memory is not None:
            self._file.count(f"memory of {worker.pooled_worker.pid}", now, private=memory.private, pss=memory.pss)
        self._measure_at = now + max(MEASURE / len(workers), SHARE * (monotonic() - now))
