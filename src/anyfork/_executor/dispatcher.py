"""The dispatcher of an Executor: its shared state, and one thread that reads from all workers.

The thread that submits a job makes the decision under the lock, and writes the job straight to a worker that has
capacity. The dispatcher's thread carries out all other decisions (starts, ends, failures). It delivers results without
the lock held, because callbacks are arbitrary user code.

Signal handlers and destructors may call any function here at any point, also in the thread that holds the lock. Their
requests are then deferred: the dispatcher's thread carries them out. ``close``, ``kill`` and ``abandon`` only set flags
and leave the work to the thread. An interrupt in the middle of a decision leaves ``torn`` set; all requests are then
deferred until the thread has rebuilt the scheduler's state, see _pools.recovery. The jobs of each worker are recorded
in steps that no interrupt splits (see _system.locks), so no worker ends, and no job is lost.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from copy import copy
from functools import partial
from math import inf
from time import monotonic

from _anyfork_child.wire.call_messages import DETAIL, TIME

from .._errors import AnyforkError, ArgumentError, HandleError, InitializerError
from .._pools.jobs import deliver
from .._pools.pool import PoolHandle
from .._pools.records import JobState
from .._pools.recovery import rebuild
from .._pools.worker_queue import LOW, MANY
from .._pools.worker_table import STALL
from .._processes.undelivered import RETRY
from .._system.locks import LATER, DecisionLock
from .._system.threads import start_thread
from . import at_exit
from .admission import ThreadAdmission, unchecked
from .completion import Completion, LogEntry, handle_event
from .errors import drop_in
from .interrupts import cannot_put_off, cannot_wait, holds_link_of
from .watch import Watch
from .workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from .._pools.jobs import AnyJob
    from .._pools.pool_options import NewLimits, PoolOptions, Templates
    from .._pools.records import TemplateRecord, WorkerRecord
    from .._pools.scheduler import Scheduler
    from .._pools.stats import PoolStats
    from .._pools.steps import Steps
    from .._processes.handles import TemplateHandle
    from .map import ExecutorMap

    Result = TypeVar("Result")


class Dispatcher(PoolHandle):
    """The state and the thread of one Executor, without its public interface.

    ``put_off`` holds accepted jobs and maps that the thread has still to begin.
    """

    what = "an Executor"
    raised: tuple[type[BaseException], ...] = (Exception, SystemExit)  # as ProcessPoolExecutor does
    watch: Watch  # set before the first job
    _getpid = staticmethod(os.getpid)

    def __init__(self, template: Templates, options: PoolOptions, adaptive: bool) -> None:
        super().__init__("Executor", "submit", template, options)
        self.lock = DecisionLock(lambda: holds_link_of(self))
        self.workers = Workers(self, adaptive and not self.in_single_file)
        self.pooled_workers = self.workers.pooled_workers
        self.put_off: deque[tuple[Callable[[Any], None], AnyJob | ExecutorMap]] = deque()
        self.broken: AnyforkError | None = None  # why these templates have no workers and never will
        self.abandoned = False  # the Executor object was deleted
        self.started = self.over = False  # state of the thread
        self._killed = False
        self.completion = Completion()
        self.admission = ThreadAdmission(self)

    # --- Requests from other threads ---

    @property
    def in_single_file(self) -> bool:
        """True if each worker is given one job at a time, or as many as it runs at once."""
        return self.remote or self.memory is not None or self.concurrent

    @property
    def raises_when_full(self) -> bool:
        """True if a full queue raises an error instead of blocking the caller."""
        return bool(self._settings.raises)

    @property
    def refuses(self) -> bool:
        """True if a new job would be refused now."""
        return self._refusal() is not None

    def check_open(self) -> None:
        """Raise the exception that refuses a new job, if there is one."""
        why = self._refusal()
        if why is not None:
            raise why

    def _refusal(self) -> BaseException | None:
        """Return the exception that refuses a new job, or None, judging by flags alone."""
        why = self._failure or self.broken
        if why is not None:
            return drop_in(copy(why))  # a copy, because each caller adds its own traceback
        return self._end_of_it()

    def _end_of_it(self) -> BaseException | None:
        if self._failure is not None:
            return copy(self._failure)
        if self._closed or self.abandoned:
            return RuntimeError("cannot schedule new futures after shutdown")
        if at_exit.exiting:
            return RuntimeError("cannot schedule new futures after interpreter shutdown")
        return None

    def enter(self) -> BaseException | None:
        """Start the thread unless it was started or a job would be refused. Return the refusal, or None.

        The caller holds the lock.
        """
        if self.started and not (self._closed or self.abandoned or self.broken or self._failure or at_exit.exiting):
            return None
        why = self._refusal()
        return self._start() if why is None and not self.started else why

    def _enter_anyway(self) -> BaseException | None:
        """Do the same as ``enter``, but also for a broken Executor: the change to come may repair it."""
        why = self._end_of_it()
        return self._start() if why is None and not self.started else why

    def _start(self) -> BaseException | None:
        """Start the thread. Return a refusal if the program is exiting.

        Raises OSError, and RuntimeError if no thread can be started.
        """
        at_exit.dispatchers.add(self)  # before the check: the exit sees this dispatcher, or the check sees the exit
        try:
            if at_exit.exiting:
                return self._end_of_it()
            self.watch = Watch(self._run)
            start_thread(self.watch.thread)
            self.started = True
        finally:
            if not self.started:
                at_exit.dispatchers.discard(self)
                self._forget_thread()
        return None

    def _forget_thread(self) -> None:
        """Close the descriptors of a thread whose start has failed; if it runs, it ends at once."""
        watch = vars(self).get("watch")
        if watch is not None:
            watch.close()

    def _accept(self, action: Callable[[Any], None], who: AnyJob | ExecutorMap) -> None:
        """Begin a job or a map now, or leave it to the thread. Raises the exception that refuses it."""
        if self.followed:
            self.follow()
        try:
            found = self.lock.do(self.enter, action, who)
        except BaseException:
            self._wake()  # the interrupted decision may need recovery
            raise
        if found is LATER:
            found = self._refusal() or self._unless_started("submit")
            if found is None:
                self.put_off.append((action, who))
                self.watch.wake()
        if found is not None:
            raise found  # type: ignore[misc]  # it is an exception: LATER was replaced above

    def follow(self) -> None:
        """Move to the templates that are up to date, before a job is submitted. See _executor.warm."""

    def _unless_started(self, call: str) -> HandleError | None:
        """Return a HandleError if there is no thread yet that the call could be left to."""
        return None if self.started else cannot_put_off(call)

    def submit(self, job: AnyJob) -> None:
        """Queue a new job, after waiting for space in a bounded queue. Raises the exception that refuses the job."""
        if self.scheduler.limits.max_queued is not None:
            self.admission.wait()
        self._accept(self._submit, job)

    def _submit(self, job: AnyJob) -> None:
        scheduler = self.scheduler
        self.open[job] = None
        scheduler.submit(job)
        workers = scheduler.workers
        limits = scheduler.limits
        low = limits.load if limits.concurrent else LOW
        if workers.lowest < low or workers.count < limits.max_workers:
            if scheduler.unsettled:
                self.decide()
        elif scheduler.queue.length >= MANY:  # all workers are busy; until then their answers make the thread decide
            self.decide()

    def begin_work(self, work: ExecutorMap) -> None:
        """Continue a map that has received items. Raises the exception that refuses it."""
        self._accept(self._begin_work, work)

    def _begin_work(self, work: ExecutorMap) -> None:
        self.works.add(work)
        work.feed()
        self.decide()

    def take_out(self, job: AnyJob) -> bool:
        """Remove a job that has not begun, so that it does not run; take it back from its worker if it was sent ahead.

        Return False if it has begun, if it cannot be removed now, or in a forked copy of the owner.
        """
        if self.foreign:
            return False
        return self.lock.do(unchecked, self._take_out, job) is True

    def _take_out(self, job: AnyJob) -> bool:
        if job.state in (JobState.SENT, JobState.RUNNING):
            assert job.worker is not None
            self.take_back(job.worker)
            self._wake()  # to give the others out again: not here, because they are often cancelled next
        elif self.scheduler.waiters or self.scheduler.closing:
            self._wake()
        if job.state is not JobState.QUEUED:
            return False
        self._drop(job, kill=False)
        return True

    def signal_job(self, job: AnyJob, number: int) -> None:
        """Send a signal to the worker that runs a job, now or soon. Do nothing if no worker has it by then.

        With ``load=1``, no other job can be in that worker: it gets one under the lock that is held here.
        """
        if self.lock.do(unchecked, self._signal_job, job, number) is LATER:
            self.post(partial(self._signal_job, job, number))

    def _signal_job(self, job: AnyJob, number: int) -> None:
        if job.state is JobState.RUNNING:
            assert job.worker is not None
            job.worker.pooled_worker.channel.process.send_signal(number)

    def cancel_later(self, job: AnyJob) -> None:
        """Let the thread complete an interrupted cancellation: the future ends as cancelled, or the job runs."""
        self.post(partial(self._cancel_if_out, job))

    def _cancel_if_out(self, job: AnyJob) -> None:
        if job not in self.open:
            self.finished.append((job, None))

    def list_pids(self) -> list[int]:
        """Return the process ids of all workers, as far as they are known."""
        return self.lock.look(lambda: self.pids)

    def read_stats(self) -> PoolStats:
        """Return the present numbers of jobs and workers, and the totals so far."""
        return self.lock.look(self.stats)

    def describe(self) -> str:
        """Return the text that represents the Executor in ``repr``."""
        return self._describe("Executor", self.read_stats())

    def tell_later(self, attempt: Callable[[bool], bool]) -> None:
        """Notify a future later, because its lock is held now; see Completion.

        Without a running thread, notify it at once, without its lock.
        """
        if self.over or not self.started:
            attempt(True)
        else:
            self.post(partial(self.completion.later, attempt))

    def _wake(self) -> None:
        if self.started:
            self.watch.wake()

    def post(self, action: Callable[[], None]) -> None:
        """Let the thread run an action soon, under the lock; ignore it if there is no thread yet.

        May be called at any point, even inside another call.
        """
        if self.started:
            self.watch.post(action)

    # --- The thread ---

    def _run(self) -> None:
        with self.lock:  # the starting thread holds it until it is done, unless an interrupt comes in between
            watch = self.watch
            if watch.closed or watch.thread is not threading.current_thread():  # there was such an interrupt
                return
            self.started = True
            at_exit.dispatchers.add(self)
        watch.ident = _thread.get_ident()  # looked up now, as in _system.polling
        try:
            while self._step():
                pass
        except BaseException as error:  # otherwise callers would wait for ever
            self._collapse(error)
            raise
        finally:
            at_exit.dispatchers.discard(self)
            with self.lock:
                self.over = True
                self.admission.open()
                watch.close()
            self.completion.finish()

    def _step(self) -> bool:
        """Wait until there is something to do, and do it. Return False when nothing is left."""
        with self.lock:
            due = monotonic() + STALL if self.workers.may_stall else inf
            due = min(due, self.scheduler.wake_at, self.completion.wake_at)
            if self.workers.stalled:
                due = min(due, monotonic() + RETRY)
            self.watch.wakes_at = due  # under the lock: a thread that needs it earlier from now on wakes this one
        ready = self.watch.wait(due)
        with self.lock:
            if self.lock.torn:  # no interrupt comes in this thread
                rebuild(self, self.open, monotonic())
                self.lock.torn = False
            self._look_at_flags()
            self.watch.go_on()
            self._begin_put_off()
            now = monotonic()
            self.workers.read(ready)
            self.workers.adapt(now)
            self.decide()
            self.workers.balance()
            going_on = (
                self.pooled_workers or self.works or self.put_off or self.watch.busy or not self.scheduler.finished
            )
        deliver(self.finished, handle_event)
        self.completion.go_on()
        return bool(going_on)

    def _look_at_flags(self) -> None:
        """Carry out ``kill``, ``close`` and ``abandon``, which only set flags."""
        scheduler = self.scheduler
        if self._killed and not scheduler.killed:
            super().kill()
            for work in list(self.works):
                work.cancel(self.finished)
        elif (self._closed or self.abandoned) and not scheduler.closing:
            scheduler.close()

    def _begin_put_off(self) -> None:
        while self.put_off:
            action, who = self.put_off.popleft()
            if who.unwanted:
                continue
            if self.broken is None:
                action(who)
            else:
                self.finished.append((who, drop_in(copy(self.broken))))

    def _collapse(self, error: BaseException) -> None:
        """Fail all present and future jobs, because an unexpected error has ended the thread."""
        with self.lock:
            self._give_up(error)
            self.finished += ((who, copy(self._failure)) for _, who in self.put_off)
            self.put_off.clear()
        try:
            deliver(self.finished, handle_event)
        finally:
            with self.lock:
                self.workers.kill()

    def record_answers(self, answers: Sequence[tuple[Any, Any]], now: float) -> None:
        """Record the answers that a worker has sent, and how long their calls took. The caller holds the lock."""
        super().record_answers(answers, now)
        if self.workers.adaptive:
            took = sum([message[DETAIL] for _, message in answers]) >> TIME
            if took:
                self.workers.durations.saw(took, len(answers))

    # --- Steps ---

    def decide(self) -> None:
        """Carry out what the scheduler decides now, and admit threads that wait. The caller holds the lock."""
        super().decide()
        self.admission.admit()
        soon = monotonic() + STALL
        if self.watch.wakes_at > soon and self.workers.may_stall:  # it waits: for ever, or until a deadline far away
            self._wake_at(soon)

    def _apply(self, steps: Steps) -> None:
        for job, why, of in steps.fail:  # at once, in any thread: so no record is out of date
            self._fail(job, why, of)
        if self.watch.is_here:
            self._apply_to_workers(steps)
        else:
            self.watch.post(partial(self._apply_later, self.scheduler, steps))

    def _apply_later(self, scheduler: Scheduler, steps: Steps) -> None:
        if scheduler is self.scheduler:  # otherwise recovery has replaced it meanwhile, and the new one decides again
            self._apply_to_workers(steps)

    def _wake_at(self, when: float) -> None:
        watch = self.watch
        if when < watch.wakes_at and not watch.is_here:
            watch.wakes_at = 0.0
            watch.wake()

    def _write_log(self, level: int, text: str) -> None:
        self.finished.append((LogEntry("anyfork", text, level), None))

    # --- Workers ---

    def _begin(self, worker: WorkerRecord) -> None:
        self.workers.begin(worker)

    def not_started(self, worker: WorkerRecord, error: BaseException) -> None:
        """Record that a worker could not be started; log an initializer's exception.

        The Executor is broken from then on if no worker can ever be started.
        """
        if isinstance(error, InitializerError):
            self.finished.append((LogEntry("concurrent.futures", f"Exception in initializer: {error}"), error))
            self.scheduler.not_started(worker, monotonic(), error, permanent=True)
        else:
            super().not_started(worker, error)
        if self.scheduler.hopeless and isinstance(error, AnyforkError):
            self.broken = error

    def resize(self, new: NewLimits) -> None:
        """Change limits as PoolHandle.resize does: now, under the lock, or later in the thread."""
        self._check_resize(new)
        if new.load is not None and self.in_single_file:
            raise ArgumentError(
                "resize(): load= cannot change, because its workers get one job at a time; make one with load="
            )
        self._change("resize", partial(self._resize, new))
        if new.load is not None:
            self.workers.adaptive = False

    def replace_template(self, new: TemplateHandle, old: TemplateHandle | None = None) -> None:
        """Replace a template as PoolHandle.replace_template does: now, under the lock, or later in the thread."""
        source = self._check_replacement(new, old)
        self._change("replace_template", partial(self._replace, source, new))

    def _replace(self, source: TemplateRecord, new: TemplateHandle) -> None:
        self.broken = None
        super()._replace(source, new)

    def _change(self, call: str, action: Callable[[], None]) -> None:
        """Apply a change now, under the lock, or leave it to the thread. Raises the exception that refuses it."""
        found: object = self.lock.do(self._enter_anyway, action)
        if found is LATER:
            found = self._end_of_it() or self._unless_started(call)
            if found is None:
                self.post(action)
        if isinstance(found, BaseException):
            raise found

    # --- The end ---

    def close(self, cancel: bool) -> None:
        """Accept no more jobs, and finish those submitted; with ``cancel``, cancel those that have not begun."""
        self._closed = True
        if cancel:
            self.post(self._cancel)
        else:
            self._wake()

    def _cancel(self, all_of_them: bool = False) -> None:
        self.workers.take_back_all()
        scheduler = self.scheduler
        jobs = scheduler.queue.clear()
        scheduler.queue.put_back(jobs)
        begun = 0 if all_of_them else len(scheduler.workers.starting)  # these have a worker that is about to begin them
        for job in jobs[begun:]:
            scheduler.withdraw(job)
            self.open.pop(job, None)  # type: ignore[call-overload]  # a job of ours
            self.finished.append((job, None))
        for work in list(self.works):
            work.cancel(self.finished)

    def kill(self) -> None:
        """End the Executor now: let the thread kill its workers and fail its jobs."""
        self._closed = self._killed = True
        self._wake()

    def end_workers(self, signal: int) -> None:
        """Accept no more jobs, cancel those that have not begun, and send a signal to all workers."""
        self._closed = True
        self.post(partial(self._end_workers, signal))

    def _end_workers(self, signal: int) -> None:
        self.scheduler.close()
        self._cancel(all_of_them=True)
        self.workers.signal(signal)

    def abandon(self) -> None:
        """Let the thread end once all jobs are done, because the Executor object was deleted.

        May be called at any point, even inside another call, and when modules have been cleared.
        """
        self.abandoned = True
        if self.started and not self.over and self._owner == self._getpid():
            self.watch.wake()

    def join(self) -> None:
        """Wait until all jobs are done and the thread has ended. In that thread, return at once instead.

        Raises HandleError in a signal handler or a destructor that has interrupted a call which the thread waits for.
        """
        if self.started and not self.watch.is_here:
            self.check_wait("shutdown(wait=True)")
            self.watch.thread.join()

    def check_wait(self, call: str) -> None:
        """Raise HandleError for a wait that would never end: in the Executor's thread, or in one that was interrupted
        while it held a lock that the Executor's thread needs.
        """
        if self.watch.is_here:
            raise HandleError(
                f"{call} of a job that is not done, in a callback or event handler, which the Executor's thread runs: "
                "the job cannot be done before that returns; use add_done_callback, or another thread"
            )
        if self.lock.held or self.watch.held or holds_link_of(self):
            raise cannot_wait(call)
