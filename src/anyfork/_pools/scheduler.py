"""The decisions of a pool, without I/O and without a clock: events and the time go in, steps come out.

Theory
    Jobs wait in one queue (_pools.job_queue). A worker (_pools.records) has up to ``load`` jobs at a time; these jobs
    are *in flight*. The least loaded worker gets the next job. With ``boosts_load`` a worker may have more jobs if they
    are quick, so that it need not wait for the owner after each: the jobs ahead of a job then take only a moment, as
    long as they are as quick as before. A plain worker runs its jobs one after the other, in their order, and each
    answer is on the wire before the next job begins. So the first of its jobs without an answer is RUNNING, and may
    have run; all others are SENT, and have surely not begun. These states are stored: they are set when a job is given
    to a worker, and when the job before it has been answered. When the worker dies, the running job fails (or runs
    again if it is ``idempotent``, at most MAX_RUNS times in all), and the jobs that have not begun go back to the front
    of the queue. The face must therefore give a worker its jobs in the order of the steps, and report ``answered`` for
    all answers of a worker before it reports ``died``. With ``concurrent`` workers all jobs of a worker are running.

    When a worker has been idle for STALL seconds, the jobs that other workers have not begun are taken back
    (``unblock``) and go to the front of the queue. With ``adaptive`` no job waits behind a long one even if no worker
    is idle: the jobs behind one that has run for STALL seconds are taken back, and its worker gets no other job until
    it has done this one (``paused``).

    While all workers are full and jobs wait, one worker is started every ``start_after`` seconds. If there is no
    worker, the first starts at once. A replacement also starts at once for each worker that has died, or has left for
    its age, size or count of calls. Workers that are being started count as room for jobs, so that a slow initializer
    does not start all workers for one job. Idle workers above ``min_idle`` leave after ``idle_timeout``. A leaving
    worker finishes its jobs, and counts against ``max_workers`` until then. Templates (_pools.records) are used
    in their order, each up to its limit. A template whose workers die or cannot be started is not used during a
    back-off, which doubles until one of its workers has done a job. When no worker lives and no template gives a
    living one, the waiting jobs fail.

    Zero means: ``max_workers``, ``load``: no job runs until ``resize``. ``min_idle``: no worker is kept.
    ``start_after``: as many workers as there is work for are started at once. ``idle_timeout``: idle workers leave at
    once. ``max_calls``, ``max_age``, ``max_memory``: a worker leaves after each job. ``max_queued``: no job waits;
    there is only room for as many jobs as present workers, and workers to be started, can take. ``timeout`` of a job:
    the job fails, and does not run.

What a face does
    The face creates a Scheduler and reports events to it. After each event, or several, it carries out the steps that
    ``decide(now)`` returns; these never change afterwards. It calls ``decide`` again at ``wake_at`` at the latest. It
    keeps its own data in ``pooled_worker`` of a record and in subclasses of Job. All calls are made under one lock, or
    in one event loop. _pools.steps says what each step asks for.

    The face reports ``died(worker)`` for each worker that ends after it was ready, also after ``stop``. It calls
    ``withdraw(job)`` when the caller no longer waits for the job. The scheduler then returns no further steps for the
    job, but the face still reports ``answered`` if the job was in flight.

    A plain worker is killed because of one job only when it has certainly begun no other job. Before that, the face
    takes back from the worker the jobs that it has not begun (_calls.permits), and reports ``taken_back``. The worker
    has begun all jobs that are left in ``worker.jobs``. So if the job is not the last of them, it is done, its answer
    is on the way, and the worker goes on.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from .._calls.durations import DEEPEST
from .job_queue import Deadlines, JobQueue
from .records import JobState, WorkerRecord, WorkerState
from .stats import Counts, stats_of
from .steps import FailureReason, Steps
from .worker_count import WorkerCount
from .worker_table import Stalls, WorkerTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .pool_options import Limits
    from .records import Job, TemplateRecord
    from .stats import PoolStats

MAX_RUNS = 3  # runs of an idempotent job
CLOSING = "the pool is closed"  # why a worker leaves


class Scheduler:
    """The scheduler of one pool.

    ``waiters`` is how many callers wait for room in the queue, and ``promised`` how many of them were told that there
    is room; the face counts both.
    """

    def __init__(self, limits: Limits, sources: Sequence[TemplateRecord]) -> None:
        self.limits = limits
        self.sources = tuple(sources)
        self.queue = JobQueue()
        self.workers = WorkerTable(limits.load, DEEPEST if limits.boosts_load else 0)
        self.waiters = 0
        self.promised = 0
        self._refused = 0
        self.closing = self.killed = False
        self._growth = WorkerCount(self.workers, self.sources, limits.min_idle)
        self._steps = Steps()
        self._deadlines = Deadlines()
        self._stalls = Stalls(self.workers, limits.adaptive)
        self._wears = limits.max_calls is not None or limits.max_age is not None
        self._counts = Counts()

    def anew(self) -> Scheduler:
        """Create a scheduler with the same limits, templates and counts, but without workers and jobs."""
        for source in self.sources:
            source.count = 0
        other = self._like()
        other.closing = self.closing
        other._counts = self._counts
        other._growth.replacements_due = max(self._growth.replacements_due, other._growth.replacements_due)
        return other

    def _like(self) -> Scheduler:
        return Scheduler(self.limits, self.sources)

    # --- Queries ---

    @property
    def finished(self) -> bool:
        """Return whether the pool is closing and nothing is left to do. Workers may not have ended yet."""
        return self.closing and not (self.queue.length or self.workers.count or self.waiters)

    @property
    def hopeless(self) -> bool:
        """Return whether no worker takes jobs, and the present templates will never give one that does."""
        return self._growth.broken

    @property
    def unsettled(self) -> bool:
        """Return whether ``decide`` may have a step for the job that was submitted last.

        There is none if other jobs wait before this one: all workers are full, and another one will be started when it
        is time.
        """
        return self.queue.length <= 1 or bool(self.workers.starting) or self.killed

    @property
    def wake_at(self) -> float:
        """The latest time for the next call of ``decide`` if no event comes before; infinity for never."""
        wake = min(self._deadlines.next, self._growth.wake_at, self._stalls.look_at)
        idle = self.workers.idle
        if len(idle) > self.limits.min_idle:
            wake = min(wake, next(iter(idle)).idle_since + self.limits.idle_timeout)
        return wake

    @property
    def has_room(self) -> bool:
        """Return whether ``max_queued`` allows another job now."""
        return self.room > 0

    @property
    def room(self) -> float:
        """The number of jobs that may be submitted now."""
        bound = self.limits.max_queued
        if bound is None or self.killed or (self.closing and self._growth.is_forbidden(self.limits)):
            return inf
        return bound + self.workers.places(self.limits.max_workers) - self.queue.length - self.promised

    def stats(self) -> PoolStats:
        """Return the statistics of the pool at this moment."""
        return stats_of(self.workers, self.queue, self._counts)

    # --- Events of jobs ---

    def submit(self, job: Job) -> None:
        """Submit a new job. The face must check before whether there is room for it."""
        self._counts.submitted += job.size
        if self.killed or (job.timeout is not None and job.timeout <= 0):
            self._fail(job, FailureReason.KILLED if self.killed else FailureReason.TIMED_OUT, None)
            return
        job.state = JobState.QUEUED
        self.queue.add(job)

    def refuse(self) -> None:
        """Note that a job was refused because there is no room."""
        self._refused = 1

    def put_back(self, parts: Sequence[Job], *, of_failed: bool = False) -> None:
        """Queue parts of a job that have not begun. They go to the front: they have waited already.

        With ``of_failed``, they were counted among what has failed.
        """
        size = sum(part.size for part in parts)
        self._counts.failed -= size * of_failed
        self._counts.moved += size
        self._requeue(parts)

    def answered(self, job: Job, now: float) -> None:
        """Note that the answer to a job has come from its worker."""
        worker = job.worker
        if worker is None or job not in worker.jobs:  # everything was killed meanwhile
            return
        if job.state is not JobState.GIVEN_UP:
            self._counts.answered += job.size
        job.state = JobState.DONE
        if worker.paused:
            self.workers.resume(worker)
        self.workers.remove_job(worker, job)
        if self.limits.boosts_load and not job.depth:
            worker.slow -= 1
        source = worker.source
        if source.failures and worker.generation == source.generation:
            source.succeeded()
        self._released(worker, now)
        if self._wears and worker.state is WorkerState.WORKING and (why := self.limits.ends(worker, 1, now)):
            self.retire(worker, why)

    def _released(self, worker: WorkerRecord, now: float) -> None:
        """Update a worker that has one job less: it runs the next job, is idle from now on, or leaves."""
        if worker.jobs:
            first = next(iter(worker.jobs))
            if first.deadline is None and not self.limits.concurrent:
                self._begin(first, now)
        elif worker.state is WorkerState.WORKING:
            self._note_idle(worker, now)
        else:
            self._emptied(worker)

    def _note_idle(self, worker: WorkerRecord, now: float) -> None:
        worker.idle_since = now
        self._stalls.note_idle(now)

    def taken_back(self, jobs: Sequence[Job], now: float) -> None:
        """Requeue jobs that were taken back from their worker before they began, before all others."""
        back = []
        for job in jobs:
            worker = job.worker
            if worker is None or job not in worker.jobs:
                continue
            if job.state is JobState.RUNNING:  # it counted as running, because it was the next
                job.runs -= 1
            if job.state is JobState.GIVEN_UP:
                job.state = JobState.DONE
            else:
                self._count_answers(job)
                back.append(job)
            job.deadline = None
            worker.calls -= job.size
            if self.limits.boosts_load and not job.depth:
                worker.slow -= 1
            if worker.paused and len(worker.jobs) == 1:
                self.workers.resume(worker)
            self.workers.remove_job(worker, job)
            self._released(worker, now)
        self._counts.moved += sum(job.size for job in back)
        self._requeue(back)

    def told(self, job: Job) -> None:
        """Note the answer to a job whose worker still does something for it, until ``answered``."""
        if job.state in (JobState.SENT, JobState.RUNNING):
            self._counts.answered += job.size
            job.state, job.deadline = JobState.GIVEN_UP, None

    def skip(self, job: Job, now: float) -> None:
        """Drop a job that has a worker but was not sent to it, because its caller no longer waits for it.

        The face must call ``decide`` again.
        """
        if job.state is JobState.RUNNING:
            job.runs -= 1
        self._counts.withdrawn += job.size
        job.state = JobState.GIVEN_UP
        self.answered(job, now)

    def withdraw(self, job: Job, *, kill: bool = True) -> bool:
        """Withdraw a job whose caller no longer waits for it. Return False if it has surely not run, and will not.

        With ``kill``, kill the plain worker that runs the job. All jobs that the worker had not begun must have been
        taken back before.
        """
        if job.state is JobState.QUEUED:
            self.queue.remove(job)
            job.state = JobState.DONE
            self._counts.withdrawn += job.size
            return False
        if job.state not in (JobState.SENT, JobState.RUNNING):
            return job.runs > 0
        self._count_answers(job)
        self._counts.withdrawn += job.size
        if job.state is not JobState.RUNNING:
            job.timeout = None
        job.state = JobState.GIVEN_UP
        if kill and not self.limits.concurrent:
            self.abort(job, "the caller of its job no longer waits")
        return True

    def abort(self, job: Job, why: str = "its job ran for too long") -> None:
        """Kill the plain worker that runs this job.

        All jobs that the worker had not begun must have been taken back before.
        """
        worker = job.worker
        if worker is not None and job in worker.jobs and next(reversed(worker.jobs)) is job:
            self._kill(worker, why)

    # --- Events of workers ---

    def entered(self, worker: WorkerRecord, now: float) -> None:
        """Note that the process of a worker runs. Changes nothing here; see _pools.observed."""

    def ready(self, worker: WorkerRecord, now: float) -> None:
        """Give jobs to a worker from now on: it has been started."""
        if worker.state is WorkerState.STARTING:
            self._counts.starting_seconds += now - worker.born
            worker.born = now
            worker.source.lived = True
            self.workers.enter(worker)
            self._note_idle(worker, now)

    def not_started(self, worker: WorkerRecord, now: float, error: BaseException, permanent: bool = False) -> None:
        """Note that a worker could not be started, or ended before it was ready.

        ``permanent`` says that no other worker of its template can be started either.
        """
        if self._remove_starting(worker):
            worker.source.not_started(now, error, permanent)
            if self._growth.hopeless:
                self._fail_all()

    def template_lost(self, worker: WorkerRecord, error: BaseException) -> bool:
        """Note that the template of a worker has ended before its start; return False if it was given up before.

        Otherwise the face makes another template, and calls ``renew``, or ``not_renewed`` of the source. No worker of
        the source starts before.
        """
        if not self._remove_starting(worker):
            return False
        worker.source.awaited, worker.source.error = True, error
        return True

    def _remove_starting(self, worker: WorkerRecord) -> bool:
        """Remove a worker that was not started; return False if it was given up before."""
        if worker.state is not WorkerState.STARTING:
            return False
        self.workers.remove(worker)
        self._counts.not_started += 1
        self._growth.replacements_due += 1
        return True

    def died(self, worker: WorkerRecord, now: float) -> None:
        """Note that a worker has ended. Everything that it had sent must have been reported before."""
        state, jobs = worker.state, list(worker.jobs)
        self.workers.remove(worker)
        worker.jobs.clear()
        if state is WorkerState.WORKING:
            self._growth.replacements_due += 1
        if state is WorkerState.WORKING or (state is WorkerState.LEAVING and jobs):
            self._counts.died += 1
            if worker.generation == worker.source.generation:
                worker.source.failed(now)
        self._lose(worker, jobs)

    def retire(self, worker: WorkerRecord, why: str = "it has called retire()") -> None:
        """Let a worker leave because it wants to, or has to. Repeated calls change nothing."""
        if worker.state is WorkerState.WORKING:
            self._counts.retired += 1
            self._growth.replacements_due += 1
            self._leave(worker, why)

    def measured(self, worker: WorkerRecord, size: int) -> None:
        """Note the size of a worker after a job, in bytes. Retire the worker at ``max_memory`` or more."""
        if self.limits.max_memory is not None and size >= self.limits.max_memory:
            self.retire(worker, f"it has {size} bytes, of which max_memory allows {self.limits.max_memory}")

    # --- Events of the pool ---

    def resize(self, *, max_workers: int | None = None, min_idle: int | None = None, load: int | None = None) -> None:
        """Set other limits. Workers above them leave, beginning with the workers that have the fewest jobs."""
        self.limits = self.limits.changed(max_workers, min_idle, load)
        if load is not None:
            self.workers.resize(load)
            self._stalls.adaptive = False
        if min_idle is not None:
            self._growth.replacements_due += min_idle
        self._dismiss(self.limits.max_workers, None)

    def limit(self, source: TemplateRecord, limit: float) -> None:
        """Set how many workers a template may have from now on. Workers above that leave."""
        source.limit = limit
        self._dismiss(limit, source)

    def _dismiss(self, limit: float, source: TemplateRecord | None) -> None:
        for worker in self.workers.surplus(limit, source):
            self._leave(worker, "the limit of workers is lower now")

    def renew(self, source: TemplateRecord) -> None:
        """Note that the template of a source has been replaced.

        The workers of the old template finish their jobs, and workers of the new one take their places.
        """
        source.renew()
        for worker in self.workers.all():
            if worker.source is source and worker.state in (WorkerState.STARTING, WorkerState.WORKING):
                self._growth.replacements_due += 1
                self._leave(worker, "its template was replaced")

    def close(self) -> None:
        """Finish all jobs that were submitted, and let all workers leave."""
        self.closing = True
        self.limits = replace(self.limits, min_idle=0, idle_timeout=0.0)

    def kill(self) -> None:
        """End everything now: all jobs fail, including jobs that are still to come, and all workers are killed."""
        self.close()
        self.killed = True
        for worker in self.workers.all():
            for job in worker.jobs:
                if job.state is not JobState.GIVEN_UP:
                    self._fail(job, FailureReason.KILLED, worker if job.state is JobState.RUNNING else None)
                job.state = JobState.DONE
            self.workers.remove(worker)
            worker.jobs.clear()
            worker.why = "the pool was killed"
            self._steps.kill.append(worker)
        self._fail_queue(FailureReason.KILLED, None)

    # --- Decisions ---

    def decide(self, now: float) -> Steps:
        """Return the steps to carry out now."""
        if now >= self._deadlines.next:
            self._expire(now)
        steps = self._steps
        if now >= self._stalls.look_at:
            steps.unblock += self._stalls.find(now)
        if self.queue.length and not (steps.abort or steps.unblock):  # the jobs that are taken back go first
            self._assign(now)
        if not self.killed:
            self._grow(now)
        if self.workers.idle:
            self._shrink(now)
        if self.queue.length and self._growth.broken:  # only now: the last worker may just have left
            self._fail_all()
        if self.closing and self.queue.length and self._growth.is_forbidden(self.limits):
            self._fail_queue(FailureReason.CLOSED, None)
        if self.closing and not (self.queue.length or self.waiters):
            for worker in list(self.workers.starting):
                self._leave(worker, CLOSING)
        steps, self._steps = self._steps, Steps()
        return steps

    def _assign(self, now: float) -> None:
        queue, workers, limits = self.queue, self.workers, self.limits
        assign = self._steps.assign
        while queue.length:
            worker = workers.least_loaded()
            if worker is None:
                worker = workers.least_loaded_quick(queue.first().depth) if limits.boosts_load else None
                if worker is None:
                    return
            if self._wears and worker.calls and (why := limits.ends(worker, queue.first().size, now)):
                self.retire(worker, why)
                continue
            job = queue.take_job()
            job.worker = worker
            worker.calls += job.size
            alone = not worker.jobs
            if limits.boosts_load and not job.depth:
                worker.slow += 1
            workers.add_job(worker, job)
            job.state = JobState.SENT
            if alone or limits.concurrent:
                self._begin(job, now)
            if not limits.concurrent and (not alone or job.size > 1):
                self._stalls.note_waiting(now)
            assign.append((worker, job))
            if limits.max_calls is not None and worker.calls >= limits.max_calls:
                self.retire(worker, "it has had max_calls calls")

    def _begin(self, job: Job, now: float) -> None:
        """Note that the worker of a job may run it from now on."""
        if job.state is not JobState.RUNNING:
            job.worker.began = now  # type: ignore[union-attr]  # a job that begins has a worker
        if job.state is JobState.SENT:
            job.state = JobState.RUNNING
            job.runs += 1
        if job.timeout is None:
            return
        self._deadlines.set(job, now + job.timeout)

    def _grow(self, now: float) -> None:
        """Start workers, as far as they are wanted and it is time."""
        growth, queue, workers = self._growth, self.queue, self.workers
        waiting = self.waiters + self._refused + workers.beyond_load + queue.length
        while (source := growth.next(waiting, self.limits, now)) is not None:
            self._start(source, now, f"jobs that wait: {waiting}" if waiting else "min_idle asks for idle workers")
        if self._refused and (
            workers.least_loaded() is not None or waiting <= len(workers.starting) * self.limits.load
        ):
            self._refused = 0

    def _start(self, source: TemplateRecord, now: float, why: str) -> None:
        worker = WorkerRecord(source, now)
        worker.why = why
        self.workers.start(worker)
        self._counts.started += 1
        self._steps.start.append(worker)

    def _shrink(self, now: float) -> None:
        """Let workers leave that have been idle for too long."""
        limits, idle = self.limits, self.workers.idle
        while len(idle) > limits.min_idle:
            worker = next(iter(idle))
            if worker.idle_since + limits.idle_timeout > now:
                return
            self._leave(worker, CLOSING if self.closing else "it was idle for idle_timeout")

    def _expire(self, now: float) -> None:
        """End the jobs that have run for too long."""
        for worker, job in self._deadlines.passed((*self.workers.working, *self.workers.leaving), now):
            self._end(worker, job)

    def _end(self, worker: WorkerRecord, job: Job) -> None:
        job.deadline = None
        if job.state is JobState.RUNNING:
            self._fail(job, FailureReason.TIMED_OUT, worker)
            job.state = JobState.GIVEN_UP
        if not self.limits.concurrent:
            self._steps.abort.append((worker, job))

    # --- Effects of decisions ---

    def _fail(self, job: Job, why: FailureReason, of: WorkerRecord | BaseException | None) -> None:
        job.state = JobState.DONE
        self._count_answers(job)
        if why is FailureReason.TIMED_OUT:
            self._counts.timed_out += job.size
        else:
            self._counts.failed += job.size
        self._steps.fail.append((job, why, of))

    def _count_answers(self, job: Job) -> None:
        """Count the answers that have come to some of the calls of a job, which does not get all of them now."""
        answers = job.answers
        self._counts.answered += answers
        job.size -= answers

    def _fail_all(self) -> None:
        """Fail all waiting jobs: no worker will run them."""
        failed = [source for source in self.sources if source.error is not None]
        source = max(failed, key=lambda source: (source.broken, source.failures))
        self._fail_queue(FailureReason.NO_WORKER, source.error)

    def _fail_queue(self, why: FailureReason, of: BaseException | None) -> None:
        for job in self.queue.clear():
            self._fail(job, why, of)

    def _lose(self, worker: WorkerRecord, jobs: list[Job]) -> None:
        """Requeue or fail the jobs of a worker that has ended."""
        back: list[Job] = []
        for job in jobs:
            state, job.deadline = job.state, None
            if state is JobState.SENT:
                self._counts.moved += job.size
                back.append(job)
            elif state is JobState.RUNNING and job.idempotent and job.runs < MAX_RUNS:
                self._count_answers(job)
                self._counts.run_again += job.size
                back.append(job)
            elif state is JobState.RUNNING:
                self._fail(job, FailureReason.DIED, worker)
            else:
                job.state = JobState.DONE
        self._requeue(back)

    def _requeue(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.state, job.worker = JobState.QUEUED, None
        self.queue.put_back(jobs)

    def _leave(self, worker: WorkerRecord, why: str) -> None:
        """Give no more jobs to a worker, and let it end when it has none."""
        worker.why = why
        self.workers.stop_giving(worker, WorkerState.LEAVING)
        if not worker.jobs:
            self._steps.stop.append(worker)

    def _emptied(self, worker: WorkerRecord) -> None:
        """Stop counting a leaving worker that has done its last job, and let it end."""
        if self.workers.leaving.pop(worker, self) is None:
            worker.source.count -= 1
            if worker.state is WorkerState.LEAVING:
                self._steps.stop.append(worker)

    def _kill(self, worker: WorkerRecord, why: str) -> None:
        if worker.state is WorkerState.WORKING:
            self._growth.replacements_due += 1
            self.workers.stop_giving(worker, WorkerState.KILLED)
        elif worker.state is WorkerState.LEAVING:
            worker.state = WorkerState.KILLED
        else:
            return
        worker.why = why
        self._steps.kill.append(worker)
