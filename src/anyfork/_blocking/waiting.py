"""Waiting in the blocking face: by poll, with a deadline, and with many threads on one process.

One of the threads that wait for the same descriptor polls and reads it. It wakes the others afterwards, because it may
have read the data that they wait for. A signal handler that waits in the middle of a wait of its own thread reads as
well, because that wait cannot go on before the handler returns.
"""

from __future__ import annotations

import _thread
import os
from select import POLLIN, POLLOUT
from sys import _getframe, modules

from _anyfork_child.wire.descriptors import Owned
from _anyfork_child.wire.platform import eventfd

from .._processes.undelivered import RETRY
from .._system.locks import locked
from .._system.polling import new_poll
from .._system.timeouts import LONGEST_WAIT, remaining
from .._system.timeouts import deadline as deadline_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable, Generator
    from typing import Any

    from .._processes.endpoints import Source
    from .._processes.flows import Result
    from .._processes.link import Link

UNALARMED = 0.1  # seconds between looks of a thread that cannot be woken, because descriptors have run out


def warn_in_loop() -> None:
    """Warn of a blocking wait in a running event loop of asyncio that is in its debug mode."""
    events = modules.get("asyncio.events")
    running = getattr(events, "_get_running_loop", None)  # another thread may be importing it
    loop = running and running()
    if loop is None or not loop.get_debug():
        return
    import warnings

    level, frame = 1, _getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "anyfork":
        level, frame = level + 1, frame.f_back
    text = "anyfork blocks the running event loop until this is done: use anyfork.aio, or a thread (asyncio.to_thread)"
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def wait_for_process(
    link: Link, done: Callable[[], bool], source: Callable[[], Source | None], timeout: float | None
) -> bool:
    """Read the source whenever it is readable, until ``done`` is true.

    Return False when the timeout, in seconds, is over before.
    """
    if timeout != 0.0 and "asyncio" in modules:
        warn_in_loop()
    waiter = ThreadWaiter(link)
    try:
        try:
            return waiter.wait(done, source, deadline_of(timeout))
        finally:
            waiter.leave()
    except BaseException:
        waiter.leave()  # again: an interrupt may have come in the middle of it
        raise


def run(flow: Generator[Any, bool, Result], wait: Callable[..., bool] = wait_for_process) -> Result:
    """Run a flow: wait for everything that it needs, by ``wait``, and return its result. Raises what it raises."""
    try:
        need = next(flow)
        while True:
            need = flow.send(wait(*need))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # StopIteration does not know its type
    except BaseException:
        flow.close()  # now, not when the last reference to the exception goes
        raise


class ThreadWaiter:
    """A wait of one thread for a process."""

    __slots__ = ("_alarm", "_alarm_fd", "_link", "_watched", "fd", "lock", "reader")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._watched: Source | None = None
        self._alarm: Owned | None = None
        self._alarm_fd = -1  # its number, -1 if there is none
        self.lock: RLock = link.lock
        self.fd = -1
        self.reader = _thread.get_ident()

    def wait(self, done: Callable[[], bool], source: Callable[[], Source | None], deadline: float | None) -> bool:
        """Wait until ``done`` is true. Return False if the deadline passes before."""
        while True:
            pollable = self._link.flush_line()
            left = remaining(deadline)
            if left != 0.0 and self._alarm is None:
                self._alarm = new_alarm(0)
                self._alarm_fd = max(self._alarm.fds, default=-1)
            if self._look(done, source):
                return True
            if self._link.has_read(self.fd):  # by a wait that an interrupt has stopped, or this one has interrupted
                self._read(done)
                if self._look(done, source):
                    return True
            if self._poll(left, pollable) and self._read(done):
                return True
            if left == 0.0:
                return done()

    @locked
    def _look(self, done: Callable[[], bool], source: Callable[[], Source | None]) -> bool:
        """Return whether the wait is done. If not, note what has to be read, and whether this wait reads it."""
        if done():
            return True
        watched = source()
        fd = -1 if watched is None else watched[0]
        link = self._link
        if fd != self.fd:
            link.end_wait(self)
        self._watched = watched if link.begin_wait(self, fd) else None
        # A signal handler may have read it in between. From now on a reader wakes this wait.
        if done():
            return True
        present = source()
        if (-1 if present is None else present[0]) != fd:
            self.wake()
        return False

    def _poll(self, left: float | None, pollable: bool) -> bool:
        """Wait for a change. Return whether there is something to read.

        If polling the sockets is no use, they would be ready at once, again and again.
        """
        poller = new_poll()
        fd = -1 if self._watched is None else self._watched[0]
        if fd >= 0:
            poller.register(fd, POLLIN)
        for unsent in self._link.unsent() if pollable else ():
            # Wake up, too, when a queue on the way to this process moves on.
            poller.register(unsent, POLLIN | POLLOUT if unsent == fd else POLLOUT)
        alarm = self._alarm_fd
        if alarm >= 0:
            poller.register(alarm, POLLIN)
        readable = False
        for ready, _ in poller.poll(self._milliseconds(left, pollable, alarm >= 0)):
            if ready == fd:
                readable = True
            elif ready == alarm:
                os.eventfd_read(alarm)
        return readable

    @staticmethod
    def _milliseconds(left: float | None, pollable: bool, alarmed: bool) -> float | None:
        if alarmed and pollable:
            return None if left is None else min(left, LONGEST_WAIT) * 1000
        most = (UNALARMED if pollable else RETRY) * 1000
        return most if left is None else min(left * 1000, most)

    @locked
    def _read(self, done: Callable[[], bool]) -> bool:
        """Read what is there. Return whether the wait is done."""
        if self._watched is not None:
            self._watched[1]()
            self._link.wake_behind(self)
        return done()

    def wake(self) -> None:
        """Let the waiting thread look again. Any thread may call this; the caller holds the lock."""
        if self._alarm_fd >= 0:
            try:
                os.eventfd_write(self._alarm_fd, 1)
            except BlockingIOError:  # it was woken very often, and has not looked yet
                pass

    @locked
    def leave(self) -> None:
        """End the wait. Leaving twice is harmless."""
        self._link.end_wait(self)
        if self._alarm is not None:
            self._alarm_fd = -1
            self._alarm.close()
            self._alarm = None
        self._link.close_finished()


def new_alarm(count: int) -> Owned:
    """Make a descriptor that wakes a waiting thread, at once if ``count`` is 1.

    Return an empty Owned if the system has no such descriptors, or none are left.
    """
    if eventfd is not None:
        try:
            return Owned(map(eventfd, (count,), (os.EFD_CLOEXEC | os.EFD_NONBLOCK,))).lifted()
        except OSError:  # out of descriptors
            pass
    return Owned()
