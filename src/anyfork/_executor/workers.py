"""The workers of an Executor: their starts and ends, their messages, and how many jobs each is given at once.

All functions run under the dispatcher's lock, and in its thread; ``take_back`` in any thread.
"""

from __future__ import annotations

from functools import partial
from time import monotonic

from .._blocking.process import Process
from .._blocking.template import Template
from .._calls.durations import JobDuration
from .._calls.permits import Permits
from .._calls.worker_channel import WORKER_END_TIMEOUT
from .._errors import AnyforkError
from .._pools.records import JobState
from .._processes.flows import birth, end, enter
from .._status import UNKNOWN
from .pooled_worker import ExecutorWorker, SharedWorkerChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from .._pools.records import WorkerRecord
    from .._processes.flows import Flow
    from .._processes.link import Link
    from .._status import ExitStatus
    from .jobs import AnyJob
    from .pooled_worker import Watched
    from .watch import Watch
    from .worker_queue import JobCalls

    class Dispatching(Watched, Protocol):
        """The dispatcher, as this module sees it."""

        watch: Watch
        open: dict[AnyJob, None]

        @property
        def remote(self) -> bool: ...
        def start_worker(self, template: Template, module: str, permits: Permits | None) -> Link: ...
        def new_calls(self) -> JobCalls: ...
        def take(self, answers: Sequence[tuple[Any, Any]], now: float) -> None: ...
        def decide(self) -> None: ...
        def entered(self, worker: WorkerRecord) -> None: ...


MODULE = "_anyfork_child.worker.job_loop"
STALL = 0.01  # seconds without an answer, after which jobs that wait behind another one go to other workers
ALL = 1 << 14  # more jobs than one worker ever has


class WatchedProcess(Process):
    """The process of a worker. Sending it a signal does not wait for its birth."""

    __slots__ = ()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process now, or at its birth if that is still to come."""
        self._link.signal_now_or_at_birth(number)


class Workers:
    """The workers of an Executor. ``pooled_workers`` are those that have a process, or may get one.

    With ``adaptive``, this class decides how many jobs each worker has.
    """

    def __init__(self, dispatcher: Dispatching, adaptive: bool) -> None:
        self.pooled_workers: set[ExecutorWorker] = set()
        self.adaptive = adaptive
        self.durations = JobDuration()
        self._dispatcher = dispatcher
        self._by_fd: dict[int, ExecutorWorker] = {}
        self.stalled: set[int] = set()  # descriptors of workers to which messages have to be sent again after RETRY

    # --- The life of a worker ---

    def begin(self, worker: WorkerRecord) -> None:
        """Start a worker."""
        dispatcher = self._dispatcher
        permits = None
        try:
            template = Template() if worker.source.key is None else worker.source.key.fork()
            permits = None if dispatcher.remote else Permits()  # no descriptor can be sent to another machine
            link = dispatcher.start_worker(template, MODULE, permits)
        except Exception as error:  # any error, because pickling runs user code: jobs fail, or it is retried
            if permits is not None:
                permits.close()
            dispatcher.not_started(worker, error)
            return
        channel = SharedWorkerChannel(WatchedProcess._of(link), dispatcher.new_calls(), dispatcher.watch.epoll)
        pooled_worker = ExecutorWorker(dispatcher, worker, channel, permits)
        self.pooled_workers.add(pooled_worker)
        dispatcher.watch.run_flow(_entering(link), partial(self._entered, pooled_worker))

    def _entered(self, pooled_worker: ExecutorWorker, _: object, error: Exception | None) -> None:
        process = pooled_worker.process
        try:
            if error is not None:
                raise error
            pooled_worker.channel.use(process.channel, pooled_worker.channel.find_end())
        except (AnyforkError, OSError) as failure:
            pooled_worker.not_started(failure)
            self._remove(pooled_worker)
            return
        self._dispatcher.entered(pooled_worker.worker)
        assert pooled_worker.channel.sock is not None
        self._by_fd[pooled_worker.channel.sock.fileno()] = pooled_worker
        if pooled_worker.channel.end >= 0:
            self._by_fd[pooled_worker.channel.end] = pooled_worker

    def read(self, ready: list[int], now: float) -> None:
        """Read from the workers whose descriptors are ready, and process their messages. Send on what has stalled."""
        stalled, self.stalled = self.stalled, set()
        for fd in (*stalled, *ready):
            pooled_worker = self._by_fd.get(fd)
            if pooled_worker is not None:
                self._read(pooled_worker, now)
                if pooled_worker.channel.stalled:
                    self.stalled.add(fd)

    def _read(self, pooled_worker: ExecutorWorker, now: float) -> None:
        came = pooled_worker.channel.came()
        if came is None:
            return
        if not came:
            self._forget(pooled_worker)
            self._dispatcher.watch.run_flow(
                end(pooled_worker.process._link, WORKER_END_TIMEOUT), partial(self._ended, pooled_worker)
            )
            return
        pooled_worker.moved = now
        answers = pooled_worker.channel.take_answers()
        self._dispatcher.take(answers, now)
        pooled_worker.look()
        pooled_worker.flush()

    def _ended(self, pooled_worker: ExecutorWorker, status: ExitStatus | None, error: Exception | None) -> None:
        """Record the end of a worker: take back jobs that it has not begun, and remove it."""
        if error is not None:  # the process runs on without its channel, or its template is stopped
            pooled_worker.kill()
        self.take_back(pooled_worker, ALL)
        for job in pooled_worker.calls.jobs.values():
            if job.state is JobState.GIVEN_UP:
                job.release()
        pooled_worker.calls.jobs.clear()
        pooled_worker.ended(status or UNKNOWN)
        self._remove(pooled_worker)

    def _forget(self, pooled_worker: ExecutorWorker) -> None:
        """Stop reading from a worker."""
        for fd in [fd for fd, there in self._by_fd.items() if there is pooled_worker]:
            del self._by_fd[fd]
        pooled_worker.channel.unwatch()

    def _remove(self, pooled_worker: ExecutorWorker) -> None:
        self._forget(pooled_worker)
        pooled_worker.close()
        self.pooled_workers.discard(pooled_worker)

    def kill(self) -> None:
        """Kill and remove all workers, without waiting for their ends."""
        for pooled_worker in list(self.pooled_workers):
            pooled_worker.kill()
            self._remove(pooled_worker)

    def signal(self, number: int) -> None:
        """Send a signal to all workers. Their jobs do not run again."""
        for pooled_worker in self.pooled_workers:
            for job in pooled_worker.worker.jobs:
                job.idempotent = False  # so it does not run again
            pooled_worker.process.send_signal(number)

    # --- Loads ---

    @property
    def may_stall(self) -> bool:
        """True if the loads are adaptive and a worker has jobs that wait behind another one."""
        return self.adaptive and any(pooled_worker.calls.outstanding > 1 for pooled_worker in self.pooled_workers)

    def adapt(self, now: float) -> None:
        """Adapt the load to how many jobs a worker does in a short time. Take back jobs that wait behind a long one."""
        if not self.adaptive:
            return
        for pooled_worker in list(self.pooled_workers):
            if pooled_worker.calls.outstanding > 1 and now - pooled_worker.moved >= STALL:
                self.durations.saw((now - pooled_worker.moved) * 1e6)
                self.take_back(pooled_worker, ALL)
        scheduler = self._dispatcher.scheduler
        wanted, load = self.durations.load, scheduler.limits.load
        if wanted > 2 * load or 2 * wanted < load or (wanted == 1) is not (load == 1):
            scheduler.resize(load=wanted)
            if wanted == 1:
                for pooled_worker in list(self.pooled_workers):
                    self.take_back(pooled_worker, ALL)

    def balance(self) -> None:
        """Move jobs that wait behind another job to idle workers."""
        scheduler = self._dispatcher.scheduler
        for _ in range(len(scheduler.workers.idle)):
            if scheduler.queue.length or not scheduler.workers.idle:
                return
            pooled_worker = max(self.pooled_workers, key=lambda pooled_worker: pooled_worker.calls.outstanding)
            if pooled_worker.calls.outstanding < 2 or not self.take_back(
                pooled_worker, pooled_worker.calls.outstanding // 2
            ):
                return
            self._dispatcher.decide()

    def take_back_all(self) -> None:
        """Return all jobs that have not begun to the queue."""
        for pooled_worker in list(self.pooled_workers):
            self.take_back(pooled_worker, ALL)

    def take_back(self, pooled_worker: ExecutorWorker, most: int) -> bool:
        """Return up to ``most`` jobs that a worker has not begun to the queue. Return False if there are none."""
        whole, parts = pooled_worker.take_back(most)
        if whole:
            self._dispatcher.scheduler.taken_back(whole, monotonic())
            for job in whole:
                if job.state is JobState.DONE:  # nobody waits for it
                    job.release()
        if parts:
            for part in parts:
                self._dispatcher.open[part] = None
                part.work.jobs.add(part)
            self._dispatcher.scheduler.put_back(parts)
        return bool(whole or parts)


def _entering(link: Link) -> Flow[Any]:
    yield from enter(link, None)
    yield from birth(link)
