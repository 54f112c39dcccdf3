"""The common base of the pools of both faces, which never waits.

A face creates jobs (_pools.jobs), and a PooledWorker (_pools.pooled_worker) when ``_begin`` asks for it. It reads
from the workers. It calls ``decide`` after every event that may have changed something, and at the time that
``_wake_at`` was told. It delivers what is in ``finished``. A face with threads does all this, without the delivery,
under one lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from math import inf
from time import monotonic

from _anyfork_child.wire.call_messages import BODY, DETAIL, KIND, RESULT, TIME

from .._calls.permits import Permits
from .._errors import ArgumentError, HandleError, QueueFullError, TemplateError
from .._processes.handles import count_spares
from .._system import this_process
from .._system.locks import in_one_go
from .._system.log import DEBUG, INFO, logger_for
from .encoder import JobEncoder
from .jobs import BatchJob, ItemJob
from .observation import observation, snapshot_of
from .pool_options import PoolSettings, check_template
from .pooled_worker import ALL
from .records import JobState, WorkerRecord, WorkerState
from .recovery import fail_all
from .scheduler import Scheduler
from .steps import FailureReason, error_for
from .worker_queue import JobCalls, MemoryRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._errors import AnyforkError
    from .._processes.handles import TemplateHandle
    from .._processes.link import Link
    from .jobs import AnyJob
    from .map import MapItems
    from .pool_options import NewLimits, PoolOptions, Templates
    from .pooled_worker import PooledWorker
    from .records import TemplateRecord
    from .stats import PoolStats
    from .steps import Steps


MODULE = "_anyfork_child.worker.job_loop"


class PoolHandle:
    """A pool, without the parts that wait.

    ``open`` holds the jobs that the scheduler knows and that are not done; ``works`` holds the maps with items that
    have not ended; ``finished`` holds pairs to deliver soon, see ``deliver``.
    """

    what = "a pool"
    raised: tuple[type[BaseException], ...] = (Exception,)  # exceptions of functions that are raised here as they are
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
        self.followed: list[Any] = []  # Warms whose latest templates the pool takes, see _pools.generations
        self.open: dict[AnyJob, None] = {}
        self.works: set[MapItems] = set()
        self.finished: deque[tuple[Any, Any]] = deque()
        self._unmeasured: dict[AnyJob, call_messages.Message] = {}  # answers of jobs whose worker is being measured
        self._settings = settings
        self.timeout: float | None = settings.timeout
        self._closed = False
        self._failure: AnyforkError | None = None  # the unexpected error that has ended the pool
        self._again = False  # an event came while steps were carried out: decide again
        self._owner = this_process.pid

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
    def refuses(self) -> bool:
        """True if the pool refuses new jobs, because it was closed or has failed."""
        return self._closed

    @property
    def foreign(self) -> bool:
        """Return whether this is a forked copy of the process that made the pool."""
        return self._owner != this_process.pid

    def check_owner(self, call: str) -> None:
        """Raise HandleError in a forked copy of the owner."""
        if self.foreign:
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

    def add(self, job: AnyJob) -> None:
        """Submit a job to the scheduler."""
        self.open[job] = None
        self.scheduler.submit(job)

    def withdraw_jobs(self, jobs: Iterable[AnyJob], kill: bool = True) -> None:
        """Withdraw jobs whose caller no longer waits for them. ``decide`` must follow.

        A job that was sent ahead is taken back. With ``kill``, the plain worker of a job that has begun is killed.
        """
        with_worker = [job for job in jobs if job.state in (JobState.SENT, JobState.RUNNING)]
        for worker in dict.fromkeys(job.worker for job in with_worker):
            if worker is not None:
                self.take_back(worker)
        for job in jobs:
            self._drop(job, kill)

    def _drop(self, job: AnyJob, kill: bool) -> None:
        """Withdraw a job that cannot be taken back, or waits. ``decide`` must follow."""
        self.open.pop(job, None)
        self.scheduler.withdraw(job, kill=kill)
        if job.state is JobState.GIVEN_UP:
            self._cancel_in_worker(job)
        else:
            job.release()

    def _cancel_in_worker(self, job: AnyJob) -> None:
        """Cancel the job in its worker if that is concurrent: a plain one is killed, or finishes the job."""
        worker = job.worker
        if self.concurrent and worker is not None and not worker.pooled_worker.channel.torn:
            worker.pooled_worker.calls.cancel(job)
            worker.pooled_worker.flush()

    def take_back(self, worker: WorkerRecord, most: int = ALL) -> bool:
        """Take back from a plain worker up to ``most`` calls that it has not begun. Their jobs wait before all others.

        Return False if there are none.
        """
        return self._requeue(*worker.pooled_worker.take_back(most))

    def _requeue(self, whole: Sequence[AnyJob], parts: Sequence[BatchJob]) -> bool:
        if whole:
            self.scheduler.taken_back(whole, monotonic())
            for job in whole:
                if job.state is JobState.DONE:  # its caller no longer waits for it
                    job.release()
        wanted = [part for part in parts if not part.work.closed]
        for part in wanted:
            self.open[part] = None
            part.work.jobs.add(part)
        if parts:
            self.scheduler.put_back(parts)
            for part in parts:
                if part not in self.open:
                    self.scheduler.withdraw(part)
        return bool(whole or parts)

    def skip(self, job: AnyJob) -> None:
        """Drop a job that was given to a worker and need not run: its caller no longer waits, or has all answers."""
        self._again = True
        self.open.pop(job, None)
        self.scheduler.skip(job, monotonic())
        job.release()
        if isinstance(job, (BatchJob, ItemJob)):
            job.work.over(job)

    # --- Answers ---

    def record_answers(self, answers: Sequence[tuple[Any, Any]], now: float) -> None:
        """Record the answers to jobs, and which jobs are done. An answer is in ``finished`` before it is recorded."""
        finished, boosts = self.finished, self.scheduler.limits.boosts_load
        work: MapItems | None = None
        found: list[tuple[int, call_messages.Message]] = []  # answers to items of this map
        for job, message in answers:
            kind = type(job)
            if kind is BatchJob or kind is ItemJob:
                if job.work is not work:
                    work, found = job.work, []
                    finished.append((work, found))
                job.record_answer(message, found)
                if kind is BatchJob and job.left:
                    job.worker.began = now
                    continue
                self._done(job, now)
                job.release()
                job.work.over(job)
            elif kind is MemoryRequest:
                self._measured(job.job, int.from_bytes(message[BODY], "little"), now)
            else:
                if boosts and message[KIND] == RESULT:
                    job.function.duration.saw(message[DETAIL] >> TIME)
                if self.memory is None:
                    finished.append((job, message))
                else:
                    self._unmeasured[job] = message
                self._done(job, now)

    def _done(self, job: AnyJob, now: float) -> None:
        """Record that a job has all its answers.

        If the memory of workers is limited, the job stays with its worker until the worker is measured.
        """
        self.open.pop(job, None)
        if self.memory is None:
            self.scheduler.answered(job, now)
            return
        self.scheduler.told(job)
        if self.concurrent and job.worker is not None:  # a plain worker has been asked in advance
            job.worker.pooled_worker.calls.measure(job, self.memory)
            job.worker.pooled_worker.flush()

    def _measured(self, job: AnyJob | None, size: int, now: float) -> None:
        """Record the size of a job's worker, in bytes, after which the answer is delivered. None was taken back."""
        if job is None or job.worker is None:
            return
        self.scheduler.measured(job.worker, size)
        self._deliver_unmeasured((job,))
        self.scheduler.answered(job, now)

    def _deliver_unmeasured(self, jobs: Iterable[AnyJob]) -> None:
        """Deliver the answers of jobs that were held back until their worker was measured."""
        if self._unmeasured:
            for job in jobs:
                message = self._unmeasured.get(job)
                if message is not None:
                    self.finished.append((job, message))
                    del self._unmeasured[job]

    def record_end(self, worker: WorkerRecord) -> None:
        """Requeue the jobs that a worker, which has ended, has not begun; deliver the answers that it has given."""
        self._requeue(*worker.pooled_worker.take_back_at_end())
        self._deliver_unmeasured([job for job in self._unmeasured if job.worker is worker])

    # --- Workers ---

    def start_process(
        self, worker: WorkerRecord, default: Callable[[], TemplateHandle]
    ) -> tuple[Link, JobCalls, Permits | None] | None:
        """Start the process of a worker; ``default`` makes the template if the pool has none of its own.

        Return None if it cannot be started, after reporting why.
        """
        permits = None
        try:
            template = default() if worker.source.key is None else worker.source.key.fork()
            permits = None if self.concurrent or self.remote else Permits()  # no descriptor goes to another machine
            link = self._settings.worker.start(template, MODULE, permits)
        except Exception as error:  # any error, because pickling runs user code: jobs fail, or it is retried
            if permits is not None:
                permits.close()
            self.not_started(worker, error)
            return None
        options, receiver = self._settings.worker, self._settings.receiver
        calls = JobCalls(
            self._kind,
            options.on_event,
            receiver,
            options.serializer,
            concurrency=options.concurrency,
            memory=self.memory,
            holds=permits is not None,
        )
        return link, calls, permits

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
        here = [one for one in [*self.pooled_workers] if one.worker.counts]  # any thread may read
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
                self._assign(steps.assign)
            if steps.abort or steps.unblock or steps.fail or steps.start or steps.stop or steps.kill:
                # Parts of failed jobs may be in the queue again, and so may jobs that a worker had not begun.
                self._again |= bool(steps.fail or steps.abort or steps.unblock)
                self._apply(steps)
            if self.works and scheduler.limits.max_queued is not None:
                self._feed_maps()
        self._wake_at(scheduler.wake_at)

    def _feed_maps(self) -> None:
        """Submit items of maps that have waited for room in the queue."""
        before = self.scheduler.queue.length
        for work in [*self.works]:
            work.feed()
        self._again |= self.scheduler.queue.length != before

    @staticmethod
    def _assign(pairs: list[tuple[WorkerRecord, Any]]) -> None:
        if len(pairs) == 1:
            worker, job = pairs[0]
            worker.pooled_worker.give((job,))
            return
        by_worker: dict[WorkerRecord, list[AnyJob]] = {}
        for worker, job in pairs:
            by_worker.setdefault(worker, []).append(job)
        for worker, jobs in by_worker.items():
            worker.pooled_worker.give(jobs)

    def _apply(self, steps: Steps) -> None:
        self._apply_to_workers(steps)
        for job, why, of in steps.fail:
            self._fail(job, why, of)

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

    def _fail(self, job: Any, why: FailureReason, of: WorkerRecord | BaseException | None) -> None:
        if why is FailureReason.TIMED_OUT and isinstance(of, WorkerRecord):
            self._cancel_in_worker(job)
        told = job, error_for(job, why, of)
        in_one_go(map(self.finished.append, (told,)), map(self.open.pop, (job,), (None,)))
        if type(job) is BatchJob or type(job) is ItemJob:
            job.work.over(job)

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
        new.check([source.key for source in self.scheduler.sources], self.concurrent)

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
        if not self.foreign:
            self._closed = True
            self._kill()
            self.decide()

    def _give_up(self, error: BaseException) -> None:
        """Let all present and future jobs fail, because of an unexpected error in the pool itself.

        The face delivers what is in ``finished`` then, and ends the workers.
        """
        self._closed = True
        self._deliver_unmeasured([*self._unmeasured])
        self._failure = fail_all(self, error)

    def _kill(self) -> None:
        self._deliver_unmeasured([*self._unmeasured])
        self.scheduler.kill()
        for pooled_worker in [*self.pooled_workers]:  # a worker that has done its last job may never end by itself
            pooled_worker.kill()

    def __repr__(self) -> str:
        return self._describe("Pool", self.stats())

    def _describe(self, kind: str, stats: PoolStats) -> str:
        state = "closed" if self._closed else "open"
        busy = stats.sent + stats.running
        return f"<{kind} {state} workers={stats.workers + stats.starting} queued={stats.queued} in_flight={busy}>"
