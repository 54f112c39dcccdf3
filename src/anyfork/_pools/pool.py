"""The common base of the pools of both faces, which never waits.

A face creates jobs (_pools.calls), and a PooledWorker (_pools.pooled_worker) when ``_begin`` asks for it. It reads
from the workers. It calls ``decide`` after every event that may have changed something, and at the time that
``_wake_at`` was told. A face with threads does all this under one lock.
"""

from __future__ import annotations

import os
from copy import copy
from dataclasses import replace
from math import inf
from time import monotonic

from .._errors import ArgumentError, CallCancelledError, CallTimeoutError, HandleError, QueueFullError, TemplateError
from .._processes.handles import count_spares
from .._system import this_process
from .._system.log import DEBUG, INFO, logger_for
from .calls import MemoryAnswer
from .encoder import JobEncoder
from .observation import observation
from .pool_options import PoolSettings, check_number, check_template
from .records import JobState, WorkerRecord, WorkerState
from .scheduler import Scheduler
from .steps import FailureReason
from .worker_queue import PoolCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from _anyfork_child.values.serializers import Serializer

    from .._calls.permits import Permits
    from .._processes.handles import TemplateHandle
    from .calls import PoolJob
    from .pool_options import NewLimits, PoolOptions, Templates
    from .pooled_worker import PooledWorker
    from .records import TemplateRecord
    from .stats import PoolStats
    from .steps import Steps


class PoolHandle:
    """A pool, without the parts that wait."""

    what = "a pool"
    now = staticmethod(monotonic)

    def __init__(self, kind: str, call: str, template: Templates, options: PoolOptions, adaptive: bool = False) -> None:
        settings = PoolSettings(kind, template, options, adaptive)
        self._kind = kind
        if settings.name:
            self.what = f"{kind} {settings.name}"  # in log records
        self._last_error = ""  # what has gone wrong with a worker, for ``anyfork top``
        self.scheduler: Scheduler = self._new_scheduler(kind, settings)
        self.encoder = JobEncoder(call, settings.worker.serializer, settings.receiver)
        self.serializer: Serializer | None = settings.worker.serializer
        self.memory: int | None = settings.memory  # the kind of memory that is measured after each job
        self.concurrent: bool = settings.limits.concurrent
        self.pooled_workers: set[PooledWorker] = set()  # of all workers that have a process, or may get one
        self.maps: set[Any] = set()  # of MapJobs with jobs here, for recovery
        self.followed: list[Any] = []  # Warms whose latest templates the pool takes, see _pools.generations
        self._settings = settings
        self.timeout: float | None = settings.timeout
        self._closed = False
        self._again = False  # an event came while steps were carried out: decide again
        self._owner = os.getpid()

    def _new_scheduler(self, kind: str, settings: PoolSettings) -> Scheduler:
        observed = observation.is_on()
        if observed:
            observation.add(self)
        self.traced: bool = observed or settings.trace is not None  # jobs need labels
        if settings.name:
            settings.worker.title = settings.name, observed
        if settings.trace is None:
            return Scheduler(settings.limits, settings.sources)
        from .observed import ObservedScheduler

        return ObservedScheduler(settings.limits, settings.sources, settings.trace, kind, settings.receiver.remote)

    def snapshot(self) -> dict[str, Any]:
        """Return the state of the pool as plain values. Any thread may call it."""
        from .snapshot import snapshot_of

        state = snapshot_of(self.scheduler, self._kind, self._settings.name, monotonic())
        state["stats"]["spares"] = self._count_spares()
        state["error"] = state["error"] or self._last_error
        return state

    def entered(self, worker: WorkerRecord) -> None:
        """Note that the process of a worker runs."""
        self.scheduler.entered(worker, monotonic())

    @property
    def remote(self) -> bool:
        """Return whether the workers are on another machine."""
        return self._settings.receiver.remote

    # --- Methods that a face adds ---

    def _begin(self, worker: WorkerRecord) -> None:
        """Start a worker: create its PooledWorker, and serve that until it has ended. Each face implements this."""
        raise NotImplementedError

    def _wake_at(self, when: float) -> None:
        """Schedule a call of ``decide`` at this time at the latest; infinity for never. Each face implements this."""
        raise NotImplementedError

    def _write_log(self, level: int, text: str) -> None:
        """Write a log record soon, where no lock is held. Each face implements this."""
        raise NotImplementedError

    def tell(self, level: int, what: str, why: str) -> None:
        """Log what the pool does, and why. Keep what is of INFO or more: something has gone wrong."""
        if level >= INFO:
            self._last_error = f"{what}: {why}"
        if logger_for(level) is not None:
            self._write_log(level, f"{self.what} {what}: {why}")

    # --- Jobs ---

    def _check(self, call: str) -> None:
        self.check_owner(call)
        if self._closed:
            raise HandleError(f"{call}() on a pool that was closed: make a new one, or close it later")

    @property
    def foreign(self) -> bool:
        """Return whether this is a forked copy of the process that made the pool."""
        return self._owner != this_process.pid

    def check_owner(self, call: str) -> None:
        """Raise HandleError in a forked copy of the owner."""
        if self._owner != this_process.pid:
            raise HandleError(
                f"{call}() on {self.what} in a forked copy of its owner: it does not work there; make a new one"
            )

    def refusal(self) -> QueueFullError:
        """Refuse a job and return its error: there is no room, and the pool is set to raise instead of waiting."""
        self.scheduler.refuse()
        self.decide()
        text = (
            f"the queue of the pool is full, with {self.scheduler.queue.length} jobs: try again later, or raise "
            "max_queued; nothing of the call has run"
        )
        return QueueFullError(text, may_have_run=False)

    def withdraw(self, *jobs: PoolJob, kill: bool = True) -> bool:
        """Withdraw jobs whose caller no longer waits for them. Return False if they have surely not run, and will not.

        A job that was sent ahead is taken back. With ``kill``, the plain worker of a job that has begun is killed.
        """
        with_worker = [job for job in jobs if job.state in (JobState.SENT, JobState.RUNNING)]
        for worker in dict.fromkeys(job.worker for job in with_worker):
            if worker is not None:
                self.take_back(worker)
        may_have_run = [self._drop(job, kill) for job in jobs]
        self.decide()
        return any(may_have_run)

    def _drop(self, job: PoolJob, kill: bool) -> bool:
        """Withdraw a job that cannot be taken back, or waits. Return as ``withdraw`` does. ``decide`` must follow."""
        may_have_run = self.scheduler.withdraw(job, kill=kill)
        if job.state is JobState.GIVEN_UP:
            self._give_up(job, job.worker)
        else:
            job.release()
        return may_have_run

    def take_back(self, worker: WorkerRecord) -> None:
        """Take back from a plain worker all jobs that it has not begun. They wait again, before all others."""
        jobs = worker.pooled_worker.take_back()
        if jobs:
            self.scheduler.taken_back(jobs, monotonic())
            for job in jobs:
                if job.state is JobState.DONE:  # its caller no longer waits for it
                    job.release()

    def _give_up(self, job: PoolJob, worker: WorkerRecord | None) -> None:
        if worker is not None and worker.pooled_worker is not None and not worker.pooled_worker.channel.torn:
            job.give_up(worker.pooled_worker.calls)
            worker.pooled_worker.flush()

    def skip(self, job: PoolJob) -> None:
        """Drop a job that was given to a worker and is not sent to it: its caller no longer waits for it."""
        self._again = True
        self.scheduler.skip(job, monotonic())
        job.release()

    def answered(self, job: PoolJob) -> None:
        """Note that the answer to a job has come.

        If the memory of workers is limited, the job stays with its worker until the worker is measured.
        """
        if self.memory is None:
            self.scheduler.answered(job, monotonic())
            return
        self.scheduler.told(job)
        if self.concurrent:  # a plain worker has been asked in advance
            assert job.worker is not None
            job.worker.pooled_worker.calls.begin_measure(MemoryAnswer(job), self.memory)
            job.worker.pooled_worker.flush()

    def measured(self, job: PoolJob, size: int) -> None:
        """Note the size of a job's worker, in bytes, after which the job is complete."""
        assert job.worker is not None
        self.scheduler.measured(job.worker, size)
        self.scheduler.answered(job, monotonic())

    # --- Workers ---

    def _calls(self, permits: Permits | None) -> PoolCalls:
        """Create the calls for the channel of a new worker."""
        options = self._settings.worker
        return PoolCalls(options.serializer, options.on_event, self._settings.receiver, permits)

    def not_started(self, worker: WorkerRecord, error: BaseException) -> None:
        """Note that a worker will never be ready, and why."""
        permanent = isinstance(error, ArgumentError) or (
            worker.source.key is not None and isinstance(error, TemplateError | HandleError)
        )
        self.tell(INFO, "could not start a worker", str(error))
        self.scheduler.not_started(worker, monotonic(), error, permanent)
        self._again = True

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that count against the limits, as far as they are known.

        A worker that has done its last job is not one of them: its process ends while the next worker starts.
        """
        here = [pooled_worker for pooled_worker in self.pooled_workers if pooled_worker.worker.counts]
        return [pooled_worker.pid for pooled_worker in here if pooled_worker.pid is not None]

    # --- Steps ---

    def decide(self) -> None:
        """Let the scheduler decide, and carry out its steps, until nothing is left to do now."""
        scheduler = self.scheduler
        self._again = True
        while self._again:
            self._again = False
            steps = scheduler.decide(monotonic())
            if steps.assign:
                self._assign(steps.assign)  # type: ignore[arg-type]  # all jobs here are PoolJobs
            if steps.abort or steps.unblock or steps.fail or steps.start or steps.stop or steps.kill:
                # Parts of failed jobs may be in the queue again, and so may jobs that a worker had not begun.
                self._again |= bool(steps.fail or steps.abort or steps.unblock)
                self._apply(steps)
        self._wake_at(scheduler.wake_at)

    @staticmethod
    def _assign(pairs: list[tuple[WorkerRecord, PoolJob]]) -> None:
        if len(pairs) == 1:
            worker, job = pairs[0]
            worker.pooled_worker.give((job,))
            return
        by_worker: dict[WorkerRecord, list[PoolJob]] = {}
        for worker, job in pairs:
            by_worker.setdefault(worker, []).append(job)
        for worker, jobs in by_worker.items():
            worker.pooled_worker.give(jobs)

    def _apply(self, steps: Steps) -> None:
        self._apply_to_workers(steps)
        for job, why, of in steps.fail:
            self._fail(job, why, of)  # type: ignore[arg-type]  # as above

    def _apply_to_workers(self, steps: Steps) -> None:
        for worker in steps.start:
            if worker.state is WorkerState.STARTING:  # otherwise it was given up meanwhile
                self.tell(DEBUG, "starts a worker", worker.why)
                self._begin(worker)
        for worker in steps.kill:
            if worker.pooled_worker is not None:
                self.tell(INFO, f"kills worker {worker.pooled_worker.pid}", worker.why)
                worker.pooled_worker.kill()
        for worker in steps.stop:
            if worker.pooled_worker is not None:
                self.tell(DEBUG, f"lets worker {worker.pooled_worker.pid} end", worker.why)
                worker.pooled_worker.leave()
        for worker in steps.unblock:
            self.take_back(worker)
        for worker, job in steps.abort:
            if worker.pooled_worker is not None:
                self.take_back(worker)
            self.scheduler.abort(job)

    def _fail(self, job: PoolJob, why: FailureReason, of: WorkerRecord | BaseException | None) -> None:
        if why is FailureReason.TIMED_OUT and isinstance(of, WorkerRecord):
            self._give_up(job, of)
        job.fail(self._error(job, why, of))

    def _error(self, job: PoolJob, why: FailureReason, of: WorkerRecord | BaseException | None) -> BaseException:
        may_have_run = isinstance(of, WorkerRecord)
        if why is FailureReason.DIED:
            assert isinstance(of, WorkerRecord)
            pooled_worker: PooledWorker = of.pooled_worker
            return pooled_worker.death()
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

    # --- The pool as a whole ---

    def stats(self) -> PoolStats:
        """Return the statistics of the pool at this moment."""
        pids = () if self.remote else tuple(self.pids)
        return replace(self.scheduler.stats(), pids=pids, spares=self._count_spares())

    def _count_spares(self) -> int:
        return sum(count_spares(source.key) for source in self.scheduler.sources)

    def resize(self, new: NewLimits) -> None:
        """Change the limits of the pool while it runs. Workers above them finish their jobs, and leave.

        Raises ArgumentError.
        """
        self._check_resize(new)
        self._check("resize")
        self._resize(new)

    def _check_resize(self, new: NewLimits) -> None:
        for name, value in (("max_workers", new.max_workers), ("min_idle", new.min_idle), ("load", new.load)):
            if value is not None:
                check_number("resize", name, value)
        if new.load is not None and self.concurrent:
            raise ArgumentError(
                "resize(): load= cannot change in a pool with concurrency=, which sets the load: make another pool"
            )
        templates = [source.key for source in self.scheduler.sources]
        for template, limit in ({} if new.limits is None else new.limits).items():
            check_number("resize", "max_workers", limit)
            if template not in templates:
                raise ArgumentError(
                    "resize(): limits= has a template that is not the pool's: give those that the pool was made with"
                )

    def _resize(self, new: NewLimits) -> None:
        max_workers = new.max_workers
        if new.limits is not None:
            self._limit(new.limits)
            max_workers = self._sum() if max_workers is None else max_workers
        load = None if new.load is None else self._settings.load_of(new.load)
        self.scheduler.resize(max_workers=max_workers, min_idle=new.min_idle, load=load)
        self.decide()

    def _limit(self, limits: Mapping[Any, int]) -> None:
        for source in self.scheduler.sources:
            if source.key in limits:
                self.scheduler.limit(source, limits[source.key])

    def _sum(self) -> int | None:
        total = sum(source.limit for source in self.scheduler.sources)
        return None if total == inf else int(total)

    def replace_template(self, new: TemplateHandle, old: TemplateHandle | None = None) -> None:
        """Take workers from another template from now on, in the place of ``old`` if there are several templates.

        Workers of the old template finish their jobs, and leave. No job is lost or run twice. The old template is not
        closed. Raises ArgumentError.
        """
        source = self._check_replacement(new, old)
        self._check("replace_template")
        self._replace(source, new)

    def _check_replacement(self, new: TemplateHandle, old: Any) -> TemplateRecord:
        """Return the source that gets another template. Raises ArgumentError, and HandleError if that is closed."""
        self._check_new(new)
        return self._source_of(old)

    def _source_of(self, old: Any) -> TemplateRecord:
        """Return the source of a template, or the only one for None. Raises ArgumentError."""
        sources = self.scheduler.sources
        if old is None and len(sources) > 1:
            raise ArgumentError("replace_template() of a pool with several templates needs to know which: old=...")
        for source in sources:
            if old is None or source.key is old:
                return source
        raise ArgumentError(
            "replace_template(): old= is not a template of the pool: give one that the pool was made with"
        )

    def _check_new(self, new: TemplateHandle) -> None:
        """Raise ArgumentError if workers cannot come from a template, and HandleError if that is closed."""
        check_template("replace_template", new)
        if new is None:
            raise ArgumentError("replace_template() needs a template")
        main = self._settings.receiver.main
        if main is not None and new._link.receiver.main is not main:
            raise ArgumentError(
                "replace_template(): jobs name functions of __main__ as the pool's template has them, a copy of this "
                "program; it can only be replaced by one that has the same"
            )
        new._link.check("replace_template")

    def _replace(self, source: TemplateRecord, new: TemplateHandle) -> None:
        source.key = new
        self.scheduler.renew(source)
        self.decide()

    def templates(self, call: str) -> list[TemplateHandle]:
        """Return the present templates. Raises ArgumentError if one is the default template, which nobody prepares."""
        found = [source.key for source in self.scheduler.sources]
        if None in found:
            raise ArgumentError(f"{call}(): the pool has the default template; make it with a template of your own")
        return found

    def kill(self) -> None:
        """End the pool now: kill all workers. Calls that have no result yet fail with CallCancelledError."""
        if self._owner == os.getpid():
            self._closed = True
            self.scheduler.kill()
            self.decide()

    def __repr__(self) -> str:
        return self._describe("Pool", self.stats())

    def _describe(self, kind: str, stats: PoolStats) -> str:
        state = "closed" if self._closed else "open"
        busy = stats.sent + stats.running
        return f"<{kind} {state} workers={stats.workers + stats.starting} queued={stats.queued} in_flight={busy}>"


def _again(error: BaseException) -> BaseException:
    """Copy an error for another call, so that each call gets a traceback of its own."""
    made = copy(error).with_traceback(None)  # some libraries teach copy the tracebacks
    made.__cause__ = error.__cause__
    return made
