"""The part of an async pool that runs in its event loop, beside the tasks that use the pool."""

from __future__ import annotations

from copy import copy
from functools import partial
from math import inf

from anyio import Event, sleep

from _anyfork_child.wire.signals import comes_from_outside

from .._errors import AnyforkError, HandleError, WorkerDiedError
from .._pools.admission import Admission
from .._pools.jobs import deliver
from .._pools.pool import PoolHandle
from .._pools.pooled_worker import PooledWorker
from .._pools.records import JobState, WorkerState
from .._pools.recovery import rebuild
from .._system.log import logger_for
from ._awaited_events import AwaitedEvents
from ._call_job import CallJob, end_wait
from ._loop import nothing, running_loop
from ._process import Process
from ._template import Template
from ._worker_channel import AsyncWorkerChannel
from ._writer_task import attend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._calls import events
    from .._pools.pool_options import NewLimits, PoolOptions, Templates
    from .._pools.records import WorkerRecord
    from .._processes.handles import TemplateHandle
    from ._loop import Handle, Loop


MANY_EVENTS = 1000  # of one call, that wait for the handler of the event before them
SLOW_READ = 0.05  # seconds between two reads then: the worker has to wait, but no call of a handler waits for ever


class PoolLoop(PoolHandle):
    """The state and the tasks of one async pool, without its public interface."""

    def __init__(self, template: Templates, options: PoolOptions) -> None:
        super().__init__("Pool", "call", template, options, adaptive="load" not in options)
        self._loop: Loop | None = None
        self.asked = False  # decide will be called soon
        # A step is half done. A signal handler that interrupts it leaves changes to the loop. If this is True when the
        # loop begins another step, an exception of a signal handler has stopped the step before.
        self.busy = False
        self._timer: Handle | None = None
        self._timer_at = inf
        self.admission = Admission(self, end_wait)
        self._awaited: dict[object, AwaitedEvents] = {}  # by calls and maps; by worker for events outside of a call
        self._gone: list[Event] = []  # for tasks that wait for the end of the pool
        self.waits: bool = self._settings.worker.on_cancel == "wait"
        self.bounded: bool = self.scheduler.limits.max_queued is not None
        loop = running_loop()
        if loop is not None:
            self._live_in(loop)

    def _live_in(self, loop: Loop) -> None:
        self._loop = loop
        self.decide_soon()

    @property
    def boosts_load(self) -> bool:
        """True if the load of a worker depends on how quick calls are."""
        return self.scheduler.limits.boosts_load

    def here(self, call: str) -> Loop:
        """Return the pool's event loop, which is the loop of its first use, for a call that submits jobs.

        Raises HandleError in another loop, without a loop, in a forked copy of the owner, and after the closing.
        """
        loop = self.find_loop(call)
        self._check(call)
        if loop is None:
            loop = running_loop()
            if loop is None:
                raise HandleError(
                    f"{call}() on an async pool needs an event loop that runs: use it in an async function"
                )
            self._live_in(loop)
        return loop

    def find_loop(self, call: str) -> Loop | None:
        """Return the pool's event loop, or None before the first use. Raises HandleError in another loop."""
        loop = self._loop
        if loop is not None and not loop.runs:
            self.check_owner(call)  # a forked copy has no loop
            raise HandleError(
                f"{call}() on a pool that belongs to another event loop, and ends with it: make one in this loop"
            )
        return loop

    # --- Admission to the queue ---

    async def follow(self) -> None:
        """Move to the templates that are up to date, before jobs are submitted. See aio._warm_pool."""

    async def enter_queue(self) -> None:
        """Wait in turn until there is space in the queue. Raises QueueFullError with ``when_full="raise"``."""
        await self.follow()
        if self.admission.is_free:
            return
        if self._settings.raises:
            raise self.refusal()
        await self.wait_for_room()

    async def wait_for_room(self) -> None:
        """Wait in turn until there is space for a job, which has to be submitted right afterwards."""
        assert self._loop is not None
        waiting = self._loop.waiting()
        try:
            self.admission.wait_in_turn(waiting)
            self.decide_soon()
            await waiting
        finally:
            self.admission.forget(waiting)
            self.decide_soon()

    # --- Deciding ---

    def decide_soon(self) -> None:
        """Schedule ``decide`` to run once all tasks that can run now have made their requests."""
        if not self.asked and self._loop is not None:
            try:
                self._loop.soon(self._decide_now)
            except RuntimeError:
                if not self._loop.has_ended:
                    raise
            self.asked = True  # afterwards: an interrupt may come in between, and one decision too many is harmless

    def later(self, action: Callable[[], None]) -> None:
        """Run an action in the loop, if it still runs. May be called from any thread and at any point."""
        if self._loop is not None:
            self._loop.from_anywhere(action)

    def _decide_now(self) -> None:
        self.asked = False
        self._recover()
        self.decide()

    def decide(self) -> None:
        """Carry out what the scheduler decides, and admit tasks that wait: now, or soon if a step is half done."""
        if self.busy:
            self.decide_soon()
            return
        self.busy = True
        self._decide()
        self.busy = False

    def _decide(self) -> None:
        try:
            super().decide()
            self.deliver()
            self._admit()
        except Exception as error:  # otherwise tasks would wait for ever
            if comes_from_outside(error):
                raise
            self._collapse(error)

    # --- Requests of tasks ---

    def submit(self, job: CallJob) -> None:
        """Submit the job of a task to the scheduler: now, or soon if a step is half done."""
        self.open[job] = None
        if self.busy:
            self.request_soon(partial(self._submit, job))
            return
        self.busy = True
        self.scheduler.submit(job)
        self.busy = False
        if not self.asked and self.scheduler.unsettled:
            self.decide_soon()

    def _submit(self, job: CallJob) -> None:
        if job.state is JobState.NEW and job in self.open:  # otherwise its caller has withdrawn it
            self.scheduler.submit(job)

    def request(self, action: Callable[[], object]) -> None:
        """Run an action of a task, and decide: now, or soon if a step is half done."""
        if self.busy:
            self.request_soon(action)
        else:
            self._change(action)

    def request_soon(self, action: Callable[[], object]) -> None:
        """Run an action in the loop, where no step is half done."""
        self.later(partial(self._change_now, action))

    # --- Recovery ---

    def _recover(self) -> None:
        """Rebuild the state of the pool if an interrupt has stopped a step. Runs at the beginning of a step."""
        if not self.busy:
            return
        self.deliver()
        killed = self.scheduler.killed
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, inf
        new = [job for job in self.open if isinstance(job, CallJob) and job.state is JobState.NEW]  # see ``submit``
        wanted = dict.fromkeys(job for job in self.open if job not in new)
        rebuild(self, wanted, self.now())
        if killed:
            self._kill()
        self.busy = False
        self.decide_soon()

    def _collapse(self, error: Exception) -> None:
        """Fail all present and future jobs, because of an unexpected error in the pool itself."""
        self._give_up(error)
        for pooled_worker in list(self.pooled_workers):
            pooled_worker.kill()
        self._cancel_handlers()
        self._admit()
        self.deliver()

    def _check(self, call: str) -> None:
        if self._failure is not None:
            raise copy(self._failure)
        super()._check(call)

    def _admit(self) -> None:
        self.admission.admit()
        scheduler = self.scheduler
        busy = self.pooled_workers or self._awaited or any(work.waiting for work in self.works)
        if self._gone and scheduler.finished and not busy:
            for event in self._gone:
                event.set()

    def change(self, action: Callable[[], None]) -> None:
        """Change the pool now; in a signal handler that has interrupted a step of it, change it soon in the loop."""
        if self._interrupted:
            self.request_soon(action)
        else:
            try:
                self._change(action)
            finally:
                self.later(nothing)  # a signal handler may have come while the loop waits

    @property
    def _interrupted(self) -> bool:
        """True in a signal handler that has interrupted a step of the pool, or of the loop."""
        loop = self._loop
        return loop is not None and loop.runs and (self.busy or loop.between_tasks)

    def _change_now(self, action: Callable[[], object]) -> None:
        try:
            self._recover()  # nothing is half done between the steps of the loop
            self._change(action)
        except Exception as error:
            if comes_from_outside(error):
                raise
            self._collapse(error)

    def _change(self, action: Callable[[], object]) -> None:
        self.busy = True
        action()
        self._decide()
        self.busy = False

    def kill(self) -> None:
        """End the pool now: kill its workers, and fail calls that have no result yet with CallCancelledError."""
        self._closed = self._closed or not self.foreign
        self.change(self._kill_all)

    def _kill_all(self) -> None:
        super().kill()
        self._cancel_handlers()

    def resize(self, new: NewLimits) -> None:
        """Change limits as PoolHandle.resize does; in a signal handler that has interrupted the pool, do it soon."""
        self._check_resize(new)
        self._check("resize")
        self.change(partial(self._resize, new))

    def replace_template(self, new: TemplateHandle, old: TemplateHandle | None = None) -> None:
        """Replace a template as PoolHandle.replace_template does; in such a signal handler, do it soon."""
        source = self._check_replacement(new, old)
        self._check("replace_template")
        self.change(partial(self._replace, source, new))

    def _wake_at(self, when: float) -> None:
        """Set the timer to ``when``, unless it is set to an earlier time.

        An early timer is left alone, because the time that is needed moves on with every job.
        """
        if when < self._timer_at and self._loop is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._loop.at(when, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, self._timer_at = None, inf
        self._recover()
        self.decide()

    def _write_log(self, level: int, text: str) -> None:
        log = logger_for(level)
        if log is not None and self._loop is not None:
            self._loop.soon(partial(log, text))

    # --- Workers ---

    def _begin(self, worker: WorkerRecord) -> None:
        started = self.start_process(worker, Template)
        if started is None:
            self.decide_soon()
            return
        link, calls, permits = started
        attend()
        pooled_worker = PooledWorker(self, worker, AsyncWorkerChannel(Process._of(link), calls), calls, permits)
        assert self._loop is not None
        try:
            self.pooled_workers.add(pooled_worker)
            self._loop.spawn(self._attend, pooled_worker)
        except BaseException:  # its task may not run
            worker.state = WorkerState.GONE
            self.pooled_workers.discard(pooled_worker)
            pooled_worker.kill()
            raise

    async def _attend(self, pooled_worker: PooledWorker) -> None:
        """Serve one worker from its start to its end."""
        channel = pooled_worker.channel
        assert isinstance(channel, AsyncWorkerChannel)
        try:
            try:
                await channel.connect()
            except (AnyforkError, OSError) as error:
                self._recover()
                pooled_worker.not_started(error)
            else:
                self.entered(pooled_worker.worker)
                await self._converse(pooled_worker, channel)
        except Exception as error:
            self._collapse(error)
        except BaseException:  # this task is cancelled only when the loop ends
            self._recover()
            self.kill()
            raise
        finally:
            pooled_worker.kill()
            pooled_worker.close()
            self.pooled_workers.discard(pooled_worker)
            channel.let_go()
            channel.process._link.drop_process()
            self.decide_soon()

    async def _converse(self, pooled_worker: PooledWorker, channel: AsyncWorkerChannel) -> None:
        """Process the messages of a worker until it has ended."""
        loop = self._loop
        assert loop is not None
        assert channel.watch is not None
        crowded = ended = False

        def come() -> bool:
            nonlocal crowded, ended
            self._recover()
            self.busy = True
            if self._read(pooled_worker):
                crowded = self._handle_messages(pooled_worker)
            else:
                ended = True
            self._decide()
            if channel.stalled:
                channel.retry_soon(loop)
            self.busy = False
            return ended or crowded

        while not ended:
            await loop.read(channel.watch.fileno(), come)
            if crowded:
                await sleep(SLOW_READ)
        status = await channel.fate()
        self._recover()
        pooled_worker.ended(status)

    @staticmethod
    def _read(pooled_worker: PooledWorker) -> bool:
        """Read the messages that have come. Return False when the worker has ended, and everything from it was read."""
        try:
            return not pooled_worker.channel.torn and pooled_worker.channel.came() is not False
        except BaseException as error:
            pooled_worker.channel.tear(error)
            raise

    def _handle_messages(self, pooled_worker: PooledWorker) -> bool:
        """Handle the messages that were read. Return True if many events of a call wait for a handler."""
        channel, most = pooled_worker.channel, 0
        try:
            while (event := pooled_worker.take()) is not None:
                self.deliver()
                most = max(most, self._handle(event, event.receiver or pooled_worker))
            if not channel.stalled:  # otherwise ``retry_soon`` follows
                pooled_worker.flush()
        except BaseException as error:
            channel.tear(error)
            raise
        return most > MANY_EVENTS

    # --- Handlers that are awaited ---

    def _handle(self, event: events.Event, receiver: object) -> int:
        """Handle an event after those before it. Return how many events wait for a handler of the same receiver."""
        assert self._loop is not None
        awaited = self._awaited.get(receiver)
        if awaited is not None:
            awaited.add((event, None))
            return len(awaited)
        if isinstance(receiver, CallJob) and receiver.closed and receiver.on_event is not None:
            event.drop()
            return 0
        answer = event.handle()
        if hasattr(answer, "__await__"):
            self._awaited[receiver] = awaited = AwaitedEvents(event, answer)
            self._loop.spawn(self._await_handlers, receiver, awaited)
        return 0

    async def _await_handlers(self, receiver: object, awaited: AwaitedEvents) -> None:
        try:
            await awaited.run()
        except Exception as error:
            self._collapse(error)
        except BaseException:  # an interrupt, or the loop ends
            self._recover()
            self.kill()
            raise
        finally:
            del self._awaited[receiver]
            self.decide_soon()

    def deliver(self) -> None:
        """Deliver what is finished; answers wait for the handlers of the events before them."""
        if self._awaited:
            for pair in [*self.finished]:
                self._hold(pair)
        deliver(self.finished)

    def _hold(self, pair: tuple[Any, Any]) -> None:
        """Let an answer wait, or the error for the end of its worker. All other errors end the handlers."""
        receiver, what = pair
        awaited = self._awaited.get(receiver)
        if awaited is None or receiver.closed:
            return
        if isinstance(what, BaseException) and not isinstance(what, WorkerDiedError):
            self.leave_handlers(receiver)
        else:
            awaited.add(pair)
            self.finished.remove(pair)

    def leave_handlers(self, job: CallJob) -> None:
        """Do not let the answer of a job wait for handlers any more, and cancel its own handler."""
        job.closed = True
        if job.on_event is not None and job in self._awaited:
            self._awaited[job].cancel()

    def _cancel_handlers(self) -> None:
        for awaited in [*self._awaited.values()]:
            awaited.cancel()

    # --- The end ---

    async def end(self) -> None:
        """Finish all jobs, let all workers end, and wait until they have ended."""
        if any(awaited.is_current for awaited in self._awaited.values()):
            raise HandleError("aclose() in an on_event of the pool would wait for itself: await it in another task")
        self._closed = True
        self.scheduler.close()
        if self._loop is None:
            return
        if self.pooled_workers or self.busy or self._awaited or not self.scheduler.finished:
            if not self._loop.runs:
                raise HandleError("aclose() of a pool that belongs to another event loop: await it there")
            event = Event()
            self._gone.append(event)
            self.decide_soon()
            await event.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, inf
