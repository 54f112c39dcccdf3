"""anyfork.Executor with the arguments and the few inner attributes of ProcessPoolExecutor that CPython's tests look at."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import anyfork

if TYPE_CHECKING:
    import threading
    from multiprocessing.context import BaseContext


class DropIn(anyfork.Executor):
    """What stands in the place of ProcessPoolExecutor there: ``mp_context`` means nothing to it."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Any = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        super().__init__(
            max_workers=max_workers, initializer=initializer, initargs=initargs, max_calls=max_tasks_per_child
        )

    @property
    def _processes(self) -> dict[int, Process]:
        return {pid: Process(pid) for pid in self.pids}

    @property
    def _executor_manager_thread(self) -> threading.Thread:
        return self._dispatcher.watch.thread

    @property
    def _call_queue(self) -> NoQueue:
        return NoQueue()

    @property
    def _broken(self) -> bool:
        return self._dispatcher.broken is not None


class Process:
    """A worker, as the tests use one of multiprocessing's."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1

    def terminate(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def join(self, timeout: float | None = None) -> None:
        self._wait(timeout)

    def is_alive(self) -> bool:
        return not self._wait(0)

    def _wait(self, timeout: float | None) -> bool:
        """Return whether the process has ended within these seconds."""
        import select

        return self._pidfd < 0 or bool(select.select([self._pidfd], [], [], timeout)[0])

    def __del__(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)


class NoQueue:
    """An Executor has none with a thread of its own."""

    def join_thread(self) -> None:
        pass
