"""What an Executor does beside those who use it: one thread, which reads what comes from all workers.

Whoever submits a job decides under the lock what is to be done, and writes it straight to a worker that has room.
Everything else that is decided (starts, ends, failures) the thread does. Results are given to those who wait for them
without the lock: callbacks are anybody's code.

Signal handlers and destructors may call everything here in the middle of everything else, in the thread that has the
lock. What they ask for is then put off: the thread does it. ``close``, ``kill`` and ``abandon`` only set flags, which
the thread looks at. An interrupt in the middle of a decision leaves ``torn`` set; then all is put off until the thread
has made the books anew, see _executor.recovery.
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

from .._calls.pace import Pace
from .._errors import AnyforkError, ArgumentError, HandleError, InitializerError, PeerError
from .._pools.jobs import JobState
from .._pools.pool import PoolHandle
from .._system.decision_lock import LATER, DecisionLock
from .._system.once import in_one_go
from . import at_exit
from .admission import Room
from .completion import Record, Telling, tell
from .drop_in import drop_in
from .jobs import BatchJob, JobEncoder
from .map import ItemJob
from .recovery import mend
from .reentry import cannot_put_off, cannot_wait, is_held
from .watch import Watch
from .worker_queue import LOW, MANY, JobCalls, Measure
from .workers import ALL, STALL, Crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeAlias, TypeVar

    from .._blocking.template import Template
    from .._calls.known_functions import KnownFunction
    from .._calls.permits import Permits
    from .._pools.pool_options import PoolOptions, Templates
    from .._pools.scheduler import Scheduler
    from .._pools.stats import PoolStats
    from .._pools.steps import Failure, Steps
    from .._pools.template_table import Source
    from .._pools.worker_table import Worker
    from .._processes.handles import TemplateHandle
    from .._processes.link import Link
    from .jobs import AnyJob
    from .map import MapWork

    Result = TypeVar("Result")
    Answers: TypeAlias = Sequence[tuple[Any, Any]]  # jobs and their messages; events, and None


class Dispatcher(PoolHandle):
    """Everything of an Executor but its face.

    ``open`` are the jobs that the scheduler knows and that are not done; ``works`` are the maps that are under way;
    ``finished`` are those who are to be told soon, see _executor.completion. ``put_off`` are jobs and maps that were
    accepted, and that the thread lets begin.
    """

    watch: Watch  # once there was a job
    _getpid = staticmethod(os.getpid)
    encoder: JobEncoder  # type: ignore[assignment]  # that of these jobs

    def __init__(self, template: Templates, options: PoolOptions, adaptive: bool) -> None:
        super().__init__("Executor", template, options)
        self.encoder = JobEncoder(self._settings.receiver)
        self.lock = DecisionLock()
        self.crew = Crew(self, adaptive and not self.in_single_file)
        self.seats = self.crew.seats  # type: ignore[assignment]  # its kind of seats
        self.open: dict[AnyJob, None] = {}
        self.works: set[MapWork] = set()
        self.put_off: deque[tuple[Callable[[Any], None], AnyJob | MapWork]] = deque()
        self.broken: AnyforkError | None = None  # why there are no workers, and will be none of these templates
        self._failure: AnyforkError | None = None  # why there is no thread any more
        self.abandoned = False  # nobody has the Executor any more
        self.started = self.over = False  # the thread
        self._killed = False
        self.finished: list[tuple[Any, Any]] = []
        self.telling = Telling()
        self.room = Room(self)

    # --- Asked by others ---

    @property
    def in_single_file(self) -> bool:
        """Whether each worker is given one job at a time."""
        return self.in_band or self.memory is not None

    @property
    def owner(self) -> int:
        """The process whose threads may use it."""
        return self._owner

    @property
    def raises_when_full(self) -> bool:
        """Whether nobody is to wait for room in the queue."""
        return bool(self._settings.raises)

    def refusal(self) -> BaseException:
        """Return a QueueFullError."""
        return self._full()

    def check_owner(self, call: str) -> None:
        """Raise HandleError in a forked copy of the owner."""
        if self._owner != os.getpid():
            raise HandleError(
                f"{call}() on an Executor in a forked copy of its owner: it does not work there; make a new one"
            )

    def check_open(self) -> None:
        """Raise what stands in the way of a new job."""
        why = self._refusal()
        if why is not None:
            raise why

    def _refusal(self) -> BaseException | None:
        """Return what stands in the way of a new job, as far as flags say it."""
        why = self._failure or self.broken
        if why is not None:
            return drop_in(copy(why))  # each gets a traceback of its own
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
        """Return what stands in the way of a new job; have a thread where there is nothing. Holds the lock."""
        why = self._refusal()
        return self._start() if why is None and not self.started else why

    def _enter_anyway(self) -> BaseException | None:
        """The same for what may help a broken Executor."""
        why = self._end_of_it()
        return self._start() if why is None and not self.started else why

    def _start(self) -> BaseException | None:
        """Start the thread. Raises OSError, and RuntimeError where there can be no thread."""
        at_exit.dispatchers.add(self)  # before the look: so the end of the program sees it, or it sees that end
        try:
            if at_exit.exiting:
                return self._end_of_it()
            self.watch = Watch(self._run)
            self.watch.thread.start()
            self.started = True
        finally:
            if not self.started:
                at_exit.dispatchers.discard(self)
        return None

    def _accept(self, action: Callable[[Any], None], who: AnyJob | MapWork) -> None:
        """Let a job or a map begin, now or soon. Raises what stands in its way."""
        try:
            found = self.lock.do(self.enter, action, who)
        except BaseException:
            self._wake()  # there may be something to mend
            raise
        if found is LATER:
            found = self._refusal() or self._unless_started("submit")
            if found is None:
                self.put_off.append((action, who))
                self.watch.wake()
        if found is not None:
            raise found  # type: ignore[misc]  # it is an exception: LATER was replaced above

    def pace_of(self, function: KnownFunction) -> Pace:
        """How long calls of a function take."""
        if function.pace is None:
            function.pace = Pace()
        return function.pace

    def _unless_started(self, call: str) -> HandleError | None:
        """Return why nothing can be left to the thread, where there is none yet."""
        return None if self.started else cannot_put_off(call)

    def submit(self, job: AnyJob) -> None:
        """Queue a new job. Raises what stands in its way."""
        if self.scheduler.limits.max_queued is not None:
            self.room.wait()
        self._accept(self._submit, job)

    def _submit(self, job: AnyJob) -> None:
        self.add(job)
        scheduler = self.scheduler
        force = scheduler.force
        if force.lowest < LOW or force.count < scheduler.limits.max_workers:
            if scheduler.unsettled:
                self.decide()
        elif scheduler.queue.length >= MANY:  # all are busy, and what comes from them lets the thread decide
            self.decide()

    def begin_work(self, work: MapWork) -> None:
        """Go on with a map that has got items. Raises what stands in its way."""
        self._accept(self._begin_work, work)

    def _begin_work(self, work: MapWork) -> None:
        self.works.add(work)
        work.feed()
        self.decide()

    def add(self, job: AnyJob) -> None:
        """Let the scheduler know a job. Holds the lock."""
        self.open[job] = None
        self.scheduler.submit(job)

    def take_out(self, job: AnyJob) -> bool:
        """Let a job not run that no worker has. False if one has, or if it cannot be taken out now."""
        if self._owner != os.getpid():
            return False
        return self.lock.do(_nothing, self._take_out, job) is True

    def _take_out(self, job: AnyJob) -> bool:
        if job.state is not JobState.QUEUED:
            return False
        self.open.pop(job, None)
        self.withdraw(job)  # type: ignore[arg-type]  # a job of ours
        return True

    def cancel_later(self, job: AnyJob) -> None:
        """See to the future of a job after an interrupt of its cancellation: it ends, or the job runs."""
        self.post(partial(self._cancel_if_out, job))

    def _cancel_if_out(self, job: AnyJob) -> None:
        if job not in self.open:
            self.finished.append((job, None))

    def list_pids(self) -> list[int]:
        """Return those of all workers, as far as they are known."""
        return self.lock.look(lambda: self.pids)

    def read_stats(self) -> PoolStats:
        """Return what it has and has done, at this moment."""
        return self.lock.look(self.stats)

    def describe(self) -> str:
        """What to show of it."""
        state = "closed" if self._closed else "open"
        stats = self.read_stats()
        busy = stats.sent + stats.running
        return f"<Executor {state} workers={stats.workers + stats.starting} queued={stats.queued} in_flight={busy}>"

    def tell_later(self, attempt: Callable[[bool], bool]) -> None:
        """Tell somebody who cannot be told now, see Telling."""
        if self.over or not self.started:
            attempt(True)
        else:
            self.post(partial(self.telling.later, attempt))

    def _wake(self) -> None:
        if self.started:
            self.watch.wake()

    def post(self, action: Callable[[], None]) -> None:
        """Let the thread do something soon, under the lock. May be called in the middle of anything."""
        if self.started:
            self.watch.post(action)

    # --- The thread ---

    def _run(self) -> None:
        with self.lock:  # whoever starts it has it, unless an interrupt has come between
            watch = self.watch
            if watch.thread is not threading.current_thread():  # which has another one started since
                return
            self.started = True
            at_exit.dispatchers.add(self)
        watch.ident = _thread.get_ident()  # looked up now, as in _system.polling
        try:
            while self._step():
                pass
        except BaseException as error:  # nobody is to wait for what will never come
            self._collapse(error)
            raise
        finally:
            at_exit.dispatchers.discard(self)
            with self.lock:
                self.over = True
                self.room.open()
                watch.close()
            self.telling.finish()

    def _step(self) -> bool:
        """Wait for something to happen, and do what follows from it; False when nothing is left to do."""
        with self.lock:
            due = monotonic() + STALL if self.crew.may_stall else inf
            due = min(due, self.scheduler.wake_at, self.telling.wake_at)
        ready = self.watch.wait(due)
        with self.lock:
            if self.lock.torn:
                mend(self)
                self.lock.torn = False
            self._look_at_flags()
            self.watch.go_on()
            self._begin_put_off()
            now = monotonic()
            self.crew.read(ready, now)
            self.crew.adapt(now)
            self.decide()
            self.crew.balance()
            going_on = self.seats or self.works or self.put_off or self.watch.busy or not self.scheduler.finished
            finished, self.finished = self.finished, []
        tell(finished)
        self.telling.go_on()
        return bool(going_on)

    def _look_at_flags(self) -> None:
        """Do what was asked for in the middle of anything."""
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
        """There is an error in this program: all fails, now and for ever."""
        with self.lock:
            failure = PeerError(f"the Executor has failed: {type(error).__name__}: {error}", may_have_run=True)
            failure.__cause__ = error
            self._failure = failure
            finished = [*self.finished, *((job, failure) for job in self.open)]
            for work in list(self.works):
                work.cancel(finished)
            finished += ((who, failure) for _, who in self.put_off)
            self.put_off.clear()
            self.open.clear()
        try:
            tell(finished)
        finally:
            with self.lock:
                self.crew.kill()

    # --- What comes from workers ---

    def take(self, answers: Answers, now: float) -> None:
        """Note what has been done. Holds the lock."""
        took = 0
        finished = self.finished
        for job, message in answers:
            kind = type(job)
            if kind is BatchJob:
                took += message[2] >> 1
                finished.append((job.work, (job.answered(message), message)))
                if not job.left:
                    self._done(job, now)
            elif message is None:  # an event
                finished.append((job, None))
            elif kind is Measure:
                self.measured(job.job, int.from_bytes(message[4], "little"))
            else:
                took += message[2] >> 1
                finished.append((job, message))
                self._done(job, now)
        if took:
            self.crew.pace.saw(took, len(answers))

    def _done(self, job: AnyJob, now: float) -> None:
        """There is an answer to all of it."""
        self.open.pop(job, None)
        if self.memory is None:
            self.scheduler.answered(job, now)
        else:
            self.answered(job)  # type: ignore[arg-type]  # a job of ours
        if type(job) is BatchJob or type(job) is ItemJob:
            job.work.over(job)

    # --- Steps ---

    def decide(self) -> None:
        """Do what is to be done now. Holds the lock."""
        super().decide()
        self.room.admit()

    def _apply(self, steps: Steps) -> None:
        for job, why, of in steps.fail:  # at once, whoever decides: so no book says what is not true any more
            self._fail(job, why, of)
        if self.watch.is_here:
            self._apply_to_workers(steps)
        else:
            self.watch.post(partial(self._apply_later, self.scheduler, steps))

    def _apply_later(self, scheduler: Scheduler, steps: Steps) -> None:
        if scheduler is self.scheduler:  # otherwise it was mended meanwhile, and decides anew
            self._apply_to_workers(steps)

    def _fail(self, job: Any, why: Failure, of: Worker | BaseException | None) -> None:
        if type(job) is BatchJob or type(job) is ItemJob:
            job.work.jobs.discard(job)
        told = job, self._error(job, why, of)
        in_one_go(map(self.finished.append, (told,)), map(self.open.pop, (job,), (None,)))

    def take_back(self, worker: Worker) -> None:
        """Take back from a worker all jobs that it has not begun. Holds the lock."""
        self.crew.take_back(worker.seat, ALL)

    def _wake_at(self, when: float) -> None:
        watch = self.watch
        if when < watch.wakes_at and not watch.is_here:
            watch.wakes_at = 0.0
            watch.wake()

    def look_after(self) -> None:
        """Something waits behind a job that may take long."""
        if self.crew.adaptive and self.watch.wakes_at == inf:
            self._wake_at(0.0)

    # --- Workers ---

    def _begin(self, worker: Worker) -> None:
        self.crew.begin(worker)

    def start_worker(self, template: Template, module: str, permits: Permits | None) -> Link:
        """Let a worker take a template over. Raises ArgumentError, and OSError."""
        return self._settings.worker.start(template, module, permits)

    def new_calls(self) -> JobCalls:
        """For the channel of a new worker."""
        return JobCalls(self._settings.worker.on_event, self.memory, self._settings.receiver)

    def not_started(self, worker: Worker, error: BaseException) -> None:
        """It will never be there."""
        if isinstance(error, InitializerError):
            self.finished.append((Record("concurrent.futures", f"Exception in initializer: {error}"), error))
            self.scheduler.not_started(worker, monotonic(), error, permanent=True)
        else:
            super().not_started(worker, error)
        if self.scheduler.hopeless and isinstance(error, AnyforkError):
            self.broken = error

    def resize(
        self,
        max_workers: int | None = None,
        *,
        min_idle: int | None = None,
        load: int | None = None,
        limits: Mapping[Any, int] | None = None,
    ) -> None:
        """As that of pools. Holds the lock."""
        if load is not None and self.in_single_file:
            raise ArgumentError(
                "resize(): load= cannot change, because its workers get one job at a time; make one with load="
            )
        self._check_resize(max_workers, min_idle, load, limits)
        self._change("resize", partial(self._resize, max_workers, min_idle, load, limits))
        if load is not None:
            self.crew.adaptive = False

    def replace_template(self, new: TemplateHandle, old: TemplateHandle | None = None) -> None:
        """As that of pools."""
        source = self._check_replacement(new, old)
        self._change("replace_template", partial(self._replace, source, new))

    def _replace(self, source: Source, new: TemplateHandle) -> None:
        self.broken = None
        super()._replace(source, new)

    def _change(self, call: str, action: Callable[[], None]) -> None:
        """Change something, now or soon. Raises what stands in the way."""
        found: object = self.lock.do(self._enter_anyway, action)
        if found is LATER:
            found = self._end_of_it() or self._unless_started(call)
            if found is None:
                self.post(action)
        if isinstance(found, BaseException):
            raise found

    # --- The end ---

    def close(self, cancel: bool) -> None:
        """Finish what was asked; what has not begun is cancelled, if that is wanted."""
        self._closed = True
        if cancel:
            self.post(self._cancel)
        else:
            self._wake()

    def _cancel(self, all_of_them: bool = False) -> None:
        self.crew.take_back_all()
        queue = self.scheduler.queue
        jobs = queue.clear()
        starting = self.scheduler.force.starting
        begun = 0 if all_of_them else len(starting)  # so many have a worker that is about to begin them
        queue.put_back(jobs[:begun])
        for job in jobs[begun:]:
            job.state = JobState.DONE
            self.open.pop(job, None)  # type: ignore[call-overload]  # a job of ours
            self.finished.append((job, None))
        for work in list(self.works):
            work.cancel(self.finished)

    def kill(self) -> None:
        """End it now."""
        self._closed = self._killed = True
        self._wake()

    def end_workers(self, signal: int) -> None:
        """Take no more jobs, cancel what has not begun, and send a signal to all workers."""
        self._closed = True
        self.post(partial(self._end_workers, signal))

    def _end_workers(self, signal: int) -> None:
        self.scheduler.close()
        self._cancel(all_of_them=True)
        self.crew.signal(signal)

    def abandon(self) -> None:
        """Nobody has the Executor any more. May be called in the middle of anything, and when modules are gone."""
        self.abandoned = True
        if self.started and not self.over and self._owner == self._getpid():
            self.watch.wake()

    def join(self) -> None:
        """Wait until all is done and the thread has ended. From within it, that would be for ever.

        Raises HandleError in a signal handler or a destructor that has interrupted what the thread waits for.
        """
        if self.started and not self.watch.is_here:
            self.check_wait("shutdown(wait=True)")
            self.watch.thread.join()

    def check_wait(self, call: str) -> None:
        """Raise HandleError where this thread was interrupted in the middle of what the Executor's thread waits for."""
        if self.lock.held or self.watch.held or any(map(is_held, self.scheduler.sources)):
            raise cannot_wait(call)


def _nothing() -> None:
    """Nothing stands in the way."""
