"""The channel of a worker of an Executor. Nothing here waits."""

from __future__ import annotations

from .._calls.worker_channel import WorkerChannel
from .._system.polling import is_ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from select import epoll

    from .._blocking.process import Process
    from .._pools.worker_queue import JobCalls


class SharedWorkerChannel(WorkerChannel):
    """The channel of a worker, which the Executor's thread watches together with the other channels."""

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
