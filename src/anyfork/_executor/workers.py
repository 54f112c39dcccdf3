"""The workers of an Executor: their starts and ends, their messages, and how many jobs each is given at once.

All functions run under the dispatcher's lock, and in its thread; ``take_back`` in any thread.
"""

from __future__ import annotations

from functools import partial

from .._blocking.process import Process
from .._blocking.template import Template
from .._calls.durations import JobDuration
from .._calls.worker_channel import WORKER_END_TIMEOUT, WorkerChannel
from .._errors import AnyforkError
from .._pools.pooled_worker import ALL, PooledWorker
from .._pools.worker_table import STALL
from .._processes.flows import birth, end, enter
from .._status import UNKNOWN
from .._system.polling import is_ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from select import epoll
    from typing import Any, Protocol

    from .._calls.permits import Permits
    from .._pools.pooled_worker import Pool
    from .._pools.records import WorkerRecord
    from .._pools.worker_queue import JobCalls
    from .._processes.flows import Flow
    from .._processes.link import Link
    from .._status import ExitStatus
    from .watch import Watch

    class Dispatching(Pool, Protocol):
        """The dispatcher, as this module sees it."""

        watch: Watch
        finished: deque[tuple[Any, Any]]

        def start_process(
            self, worker: WorkerRecord, default: Callable[[], Any]
        ) -> tuple[Link, JobCalls, Permits | None] | None: ...
        def take_back(self, worker: WorkerRecord, most: int = ALL) -> bool: ...
        def decide(self) -> None: ...
        def entered(self, worker: WorkerRecord) -> None: ...


class SharedWorkerChannel(WorkerChannel):
    """The channel of a worker, which the Executor's thread watches together with the other channels. It never waits."""

    calls: JobCalls
    process: Process

    def __init__(self, process: Process, calls: JobCalls, shared: epoll) -> None:
        super().__init__(process, calls)
        self._shared = shared

    def _new_watch(self) -> epoll:
        return self._shared

    def has_ended(self) -> bool:
        """Return whether the worker has ended, when the channel has nothing to read.

        The channel alone does not tell: another process may still hold the worker's side of it.
        """
        if self.watch is None or self.end < 0:
            return True
        return is_ready(self.end) and not (self.calls.remote and self._more_to_come())

    def unwatch(self) -> None:
        """Stop watching the channel and the end of the worker."""
        if self.watch is not None and self.sock is not None:
            if self.end >= 0:
                self.watch.unregister(self.end)
            self.watch.unregister(self.sock)
        self.watch = None

    def release(self) -> None:
        """Close the channel and the process handle, after the worker has ended."""
        self.unwatch()
        self.close_unread()
        self.close_channel()
        self.process.close()
        del self.process  # otherwise another thread might collect it, and be interrupted


class WatchedProcess(Process):
    """The process of a worker. Sending it a signal does not wait for its birth."""

    __slots__ = ()

    def _signal(self, number: int, use: str) -> None:  # noqa: ARG002  # no user has this handle, so it refuses nothing
        """Send a signal to the process now, or at its birth if that is still to come."""
        self._link.signal_now_or_at_birth(number)


class Workers:
    """The workers of an Executor. ``pooled_workers`` are those that have a process, or may get one.

    With ``adaptive``, this class decides how many jobs each worker has.
    """

    def __init__(self, dispatcher: Dispatching, adaptive: bool) -> None:
        self.pooled_workers: set[PooledWorker] = set()
        self.adaptive = adaptive
        self.durations = JobDuration()
        self._dispatcher = dispatcher
        self._by_fd: dict[int, PooledWorker] = {}
        self.stalled: set[int] = set()  # descriptors of workers to which messages have to be sent again after RETRY

    # --- The life of a worker ---

    def begin(self, worker: WorkerRecord) -> None:
        """Start a worker."""
        dispatcher = self._dispatcher
        started = dispatcher.start_process(worker, Template)
        if started is None:
            return
        link, calls, permits = started
        channel = SharedWorkerChannel(WatchedProcess._of(link), calls, dispatcher.watch.epoll)
        pooled_worker = PooledWorker(dispatcher, worker, channel, calls, permits)
        self.pooled_workers.add(pooled_worker)
        dispatcher.watch.run_flow(_entering(link), partial(self._entered, pooled_worker))

    def _entered(self, pooled_worker: PooledWorker, _: object, error: Exception | None) -> None:
        process = pooled_worker.channel.process
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

    def read(self, ready: list[int]) -> None:
        """Read from the workers whose descriptors are ready, and process their messages. Send on what has stalled."""
        stalled, self.stalled = self.stalled, set()
        for fd in (*stalled, *ready):
            pooled_worker = self._by_fd.get(fd)
            if pooled_worker is not None:
                self._read(pooled_worker)
                if pooled_worker.channel.stalled:
                    self.stalled.add(fd)

    def _read(self, pooled_worker: PooledWorker) -> None:
        came = pooled_worker.channel.came()
        if came is None:
            return
        if not came:
            self._forget(pooled_worker)
            self._dispatcher.watch.run_flow(
                end(pooled_worker.channel.process._link, WORKER_END_TIMEOUT), partial(self._ended, pooled_worker)
            )
            return
        while (event := pooled_worker.take()) is not None:
            self._dispatcher.finished.append((event, None))
        pooled_worker.flush()

    def _ended(self, pooled_worker: PooledWorker, status: ExitStatus | None, error: Exception | None) -> None:
        """Record the end of a worker, and remove it."""
        if error is not None:  # the process runs on without its channel, or its template is stopped
            pooled_worker.kill()
        pooled_worker.ended(status or UNKNOWN)
        self._remove(pooled_worker)

    def _forget(self, pooled_worker: PooledWorker) -> None:
        """Stop reading from a worker."""
        for fd in [fd for fd, there in self._by_fd.items() if there is pooled_worker]:
            del self._by_fd[fd]
        pooled_worker.channel.unwatch()

    def _remove(self, pooled_worker: PooledWorker) -> None:
        self._forget(pooled_worker)
        pooled_worker.close()
        pooled_worker.channel.release()
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
            pooled_worker.channel.process.send_signal(number)

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
            runs = now - pooled_worker.worker.began
            if pooled_worker.calls.outstanding > 1 and runs >= STALL:
                self.durations.saw(runs * 1e6)
                self._dispatcher.take_back(pooled_worker.worker)
        scheduler = self._dispatcher.scheduler
        wanted, load = self.durations.load, scheduler.limits.load
        if wanted > 2 * load or 2 * wanted < load or (wanted == 1) is not (load == 1):
            scheduler.resize(load=wanted)
            if wanted == 1:
                self.take_back_all()

    def balance(self) -> None:
        """Move jobs that wait behind another job to idle workers."""
        scheduler = self._dispatcher.scheduler
        for _ in range(len(scheduler.workers.idle)):
            if scheduler.queue.length or not scheduler.workers.idle:
                return
            pooled_worker = max(self.pooled_workers, key=lambda pooled_worker: pooled_worker.calls.outstanding)
            outstanding = pooled_worker.calls.outstanding
            if outstanding < 2 or not self._dispatcher.take_back(pooled_worker.worker, outstanding // 2):
                return
            self._dispatcher.decide()

    def take_back_all(self) -> None:
        """Return all jobs that have not begun to the queue."""
        for pooled_worker in list(self.pooled_workers):
            self._dispatcher.take_back(pooled_worker.worker)


def _entering(link: Link) -> Flow[Any]:
    yield from enter(link, None)
    yield from birth(link)
