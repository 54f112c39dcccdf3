"""What an Executor does beside those who use it: one thread, which reads what comes from all workers.

Whoever submits a job decides under the lock what is to be done, and writes it straight to a worker that has room.
Everything else that is decided (starts, ends, failures) the thread does. Results are given to those who wait for them
without the lock: callbacks are anybody's code. What becomes of an interrupt in the middle of a decision is in _mending.
"""

from __future__ import annotations

import os
import threading
from _thread import RLock
from copy import copy
from functools import partial
from math import inf
from time import monotonic

from . import _executor_exit
from ._crew import ALL, STALL, Crew
from ._errors import AnyforkError, ArgumentError, HandleError, InitializerError, PeerError
from ._executor_errors import drop_in
from ._executor_jobs import BatchJob, JobEncoder
from ._executor_map import ItemJob
from ._job_calls import LOW, MANY, JobCalls, Measure
from ._jobs import JobState
from ._mending import mend
from ._pace import Pace
from ._pool_handle import PoolHandle
from ._room import Room
from ._telling import log, tell
from ._watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeAlias, TypeVar

    from ._executor_jobs import AnyJob
    from ._executor_map import MapWork
    from ._handles import TemplateHandle
    from ._link import Link
    from ._permits import Permits
    from ._pool_options import PoolOptions, Templates
    from ._scheduler import Scheduler
    from ._sources import Source
    from ._steps import Failure, Steps
    from ._template import Template
    from ._workforce import Worker

    Result = TypeVar("Result")
    Answers: TypeAlias = Sequence[tuple[Any, Any]]  # jobs and their messages; events, and None

# What is raised where nothing is half done.
ORDERLY = (AnyforkError, RuntimeError, OSError)


class Dispatcher(PoolHandle):
    """Everything of an Executor but its face.

    ``open`` are the jobs that the scheduler knows and that are not done; ``works`` are the maps that are under way;
    ``finished`` are those who are to be told soon, see _telling.
    """

    watch: Watch  # once there was a job
    _getpid = staticmethod(os.getpid)
    encoder: JobEncoder  # type: ignore[assignment]  # that of these jobs

    def __init__(self, template: Templates, options: PoolOptions, adaptive: bool) -> None:
        super().__init__("Executor", template, options)
        self.encoder = JobEncoder(self._settings.receiver)
        self.lock: RLock = RLock()
        self.crew = Crew(self, adaptive and not self.in_single_file)
        self.seats = self.crew.seats  # type: ignore[assignment]  # its kind of seats
        self.open: dict[AnyJob, None] = {}
        self.works: set[MapWork] = set()
        self.broken: AnyforkError | None = None  # why there are no workers, and will be none
        self.abandoned = False  # nobody has the Executor any more
        self.started = self.over = False  # the thread
        self._torn = False  # somebody was torn out of the middle of a decision
        self._killed = False
        self.finished: list[tuple[Any, Any]] = []
        self.room = Room(self)
        self._paces: dict[int, Pace] = {}

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

    def refuse(self) -> None:
        """Raise QueueFullError."""
        self._refuse()

    def do(self, action: Callable[..., Result], *args: Any) -> Result:
        """Do something under the lock. An interrupt in the middle is seen to later, and goes on."""
        with self.lock:
            try:
                return action(*args)
            except ORDERLY:
                raise
            except BaseException:
                self._torn = True
                if self.started:
                    self.watch.wake()
                raise

    def check_owner(self, call: str) -> None:
        """Raise HandleError in a forked copy of the owner."""
        if self._owner != os.getpid():
            raise HandleError(f"{call}() on an Executor in a forked copy of its owner: it does not work there")

    def check_open(self) -> None:
        """Raise what stands in the way of a new job. Holds the lock."""
        if self.broken is not None:
            raise drop_in(copy(self.broken))  # each gets a traceback of its own
        if self._closed or self.abandoned:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _executor_exit.exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if not self.started:
            self.watch = Watch(self._run)
            self.watch.start()
            self.started = True
            _executor_exit.dispatchers.add(self)

    def pace_of(self, function: int) -> Pace:
        """How long calls of the function of this number take."""
        return self._paces.setdefault(function, Pace())

    def submit(self, job: AnyJob) -> None:
        """A new job. Raises what stands in its way."""
        if self.scheduler.limits.max_queued is not None:
            self.room.wait()
            if self._killed:
                raise RuntimeError("cannot schedule new futures after shutdown")
        self.do(self._submit, job)

    def _submit(self, job: AnyJob) -> None:
        self.check_open()
        self.add(job)
        scheduler = self.scheduler
        force = scheduler.force
        if force.lowest < LOW or force.count < scheduler.limits.max_workers:
            if scheduler.unsettled:
                self.decide()
        elif scheduler.queue.length >= MANY:  # all are busy, and what comes from them lets the thread decide
            self.decide()

    def add(self, job: AnyJob) -> None:
        """Let the scheduler know a job. Holds the lock."""
        self.open[job] = None
        self.scheduler.submit(job)

    def take_out(self, job: AnyJob) -> bool:
        """Let a job not run that no worker has. False if one has."""
        if self._owner != os.getpid():
            return False
        return self.do(self._take_out, job)

    def _take_out(self, job: AnyJob) -> bool:
        if job.state is not JobState.QUEUED:
            return False
        self.open.pop(job, None)
        self.withdraw(job)  # type: ignore[arg-type]  # a job of ours
        return True

    def list_pids(self) -> list[int]:
        """Those of all workers, as far as they are known. Holds the lock."""
        return self.pids

    def describe(self) -> str:
        """What to show of it."""
        state = "closed" if self._closed else "open"
        stats = self.do(self.stats)
        busy = stats.sent + stats.running
        return f"<Executor {state} workers={stats.workers + stats.starting} queued={stats.queued} in_flight={busy}>"

    def post(self, action: Callable[[], None]) -> None:
        """Let the thread do something soon, under the lock. May be called in the middle of anything."""
        if self.started:
            self.watch.post(action)

    # --- The thread ---

    def _run(self) -> None:
        with self.lock:  # whoever starts it has it, unless an interrupt has come between
            watch, self.started = self.watch, True
            _executor_exit.dispatchers.add(self)
        watch.ident = threading.get_ident()
        try:
            while self._step():
                pass
        except BaseException as error:  # nobody is to wait for what will never come
            self._collapse(error)
            raise
        finally:
            _executor_exit.dispatchers.discard(self)
            with self.lock:
                self.over = True
                watch.close()

    def _step(self) -> bool:
        """Wait for something to happen, and do what follows from it; False when nothing is left to do."""
        with self.lock:
            due = monotonic() + STALL if self.crew.may_stall else inf
            due = min(due, self.scheduler.wake_at)
        ready = self.watch.wait(due)
        with self.lock:
            if self._torn:
                self._torn = False
                mend(self)
            if self.abandoned:
                self.scheduler.close()
            self.watch.go_on()
            now = monotonic()
            self.crew.read(ready, now)
            self.crew.adapt(now)
            self.decide()
            self.crew.balance()
            going_on = self.seats or self.works or self.watch.busy or not self.scheduler.finished
            finished, self.finished = self.finished, []
        tell(finished)
        return bool(going_on)

    def _collapse(self, error: BaseException) -> None:
        """There is an error in this program: all fails."""
        with self.lock:
            self.broken = PeerError(f"the Executor has failed: {type(error).__name__}: {error}", may_have_run=True)
            self.broken.__cause__ = error
            finished = [*self.finished, *((job, self.broken) for job in self.open)]
            for work in list(self.works):
                work.cancel(finished)
            self.crew.kill()
        tell(finished)

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
        if self.watch.is_here:
            super()._apply(steps)
        else:
            self.watch.post(partial(self._apply_of, self.scheduler, steps))

    def _apply_of(self, scheduler: Scheduler, steps: Steps) -> None:
        if scheduler is self.scheduler:  # not mended meanwhile
            super()._apply(steps)

    def _fail(self, job: Any, why: Failure, of: Worker | Source | None) -> None:
        self.open.pop(job, None)
        if type(job) is BatchJob or type(job) is ItemJob:
            job.work.jobs.discard(job)
        self.finished.append((job, self._error(job, why, of)))

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
        return JobCalls(self.encoder.definitions, self._settings.worker.on_event, self.memory, self._settings.receiver)

    def not_started(self, worker: Worker, error: BaseException) -> None:
        """It will never be there."""
        if isinstance(error, InitializerError):
            log("concurrent.futures", f"Exception in initializer: {error}", error)
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
            raise ArgumentError("resize(): workers of this Executor are given one job at a time")
        resize = partial(super().resize, max_workers, min_idle=min_idle, load=load, limits=limits)
        self._when_started(resize)
        if load is not None:
            self.crew.adaptive = False

    def replace_template(self, new: TemplateHandle, old: TemplateHandle | None = None) -> None:
        """As that of pools. Holds the lock."""
        self._when_started(partial(super().replace_template, new, old))
        self.broken = None

    def _when_started(self, action: Callable[[], None]) -> None:
        """There is a thread from then on that does what follows."""
        broken, self.broken = self.broken, None
        self.check_open()
        self.broken = broken
        action()

    # --- The end ---

    def close(self, cancel: bool) -> None:
        """Finish what was asked; what has not begun is cancelled, if that is wanted. Holds the lock."""
        self._closed = True
        self.scheduler.close()
        if cancel:
            self.post(self._cancel)
        elif self.started:
            self.watch.wake()

    def _cancel(self) -> None:
        self.crew.take_back_all()
        queue = self.scheduler.queue
        jobs = queue.clear()
        begun = len(self.scheduler.force.starting)  # so many have a worker that is about to begin them
        queue.put_back(jobs[:begun])
        for job in jobs[begun:]:
            job.state = JobState.DONE
            self.open.pop(job, None)  # type: ignore[call-overload]  # a job of ours
            self.finished.append((job, None))
        for work in list(self.works):
            work.cancel(self.finished)

    def kill(self) -> None:
        """End it now. Holds the lock."""
        self._killed = True
        if not self.started:
            self._closed = True
            return
        super().kill()
        for work in list(self.works):
            work.cancel(self.finished)
        self.watch.wake()

    def abandon(self) -> None:
        """Nobody has the Executor any more. May be called in the middle of anything, and when modules are gone."""
        self.abandoned = True
        if self.started and not self.over and self._owner == self._getpid():
            self.watch.wake()

    def join(self) -> None:
        """Wait until all is done and the thread has ended. From within it, that would be for ever."""
        if self.started and not self.watch.is_here:
            self.watch.thread.join()
