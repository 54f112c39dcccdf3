"""The thread of an Executor, and what it watches: workers' channels, flows in progress, and its wake-up event."""

from __future__ import annotations

import _thread
import os
import threading
from _thread import RLock
from collections import deque
from math import inf
from select import POLLIN, POLLOUT
from time import monotonic

from _anyfork_child.wire.descriptors import Owned

from .._processes.undelivered import RETRY
from .._system.locks import do_locked
from .._system.polling import new_epoll, new_poll, wait_for
from .._system.timeouts import LONGEST_WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from select import epoll, poll
    from typing import Any

    from .._processes.flows import Flow, Need


class Watch:
    """The thread, its descriptors and the actions posted to it. Descriptors are registered with ``epoll``.

    While the thread waits, or is about to, ``wakes_at`` is the time when it looks again by itself; a thread that needs
    it earlier has to wake it.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        """Make the thread, which is not started yet and will call ``run``, and its descriptors. Raises OSError."""
        self.late: deque[Callable[[], None]] = deque()  # actions that were posted to the thread
        self.wakes_at = 0.0
        self.ident = 0
        self.epoll: epoll = new_epoll()
        self._flows: list[FlowRunner] = []
        self._gate = RLock()  # reentrant: destructors and signal handlers wake the thread, too
        self._eventfd = Owned(map(os.eventfd, (0,), (os.EFD_CLOEXEC | os.EFD_NONBLOCK,))).lifted()
        self._wakeup = self._eventfd.fd  # its number; -1 once it is closed
        self.epoll.register(self._wakeup, POLLIN)
        self.thread: threading.Thread = threading.Thread(target=run, name="anyfork Executor")

    @property
    def is_here(self) -> bool:
        """True in the Executor's thread."""
        return _thread.get_ident() == self.ident

    @property
    def closed(self) -> bool:
        """True once the descriptors are closed."""
        return self._wakeup < 0

    @property
    def held(self) -> bool:
        """True if this thread was interrupted while it woke the Executor's thread."""
        return self._gate._is_owned()  # type: ignore[attr-defined,no-any-return]  # see _system.locks

    def wake(self) -> None:
        """Wake the thread. Do nothing after its end, when the descriptor's number may belong to another file."""
        do_locked(self._gate, self._write)

    def _write(self) -> None:
        if self._wakeup >= 0:
            os.eventfd_write(self._wakeup, 1)

    def post(self, action: Callable[[], None]) -> None:
        """Let the thread run an action soon. May be called at any point, even inside another call."""
        self.late.append(action)
        self.wake()

    def run_flow(self, flow: Flow[Any], then: Callable[[Any, Exception | None], None]) -> None:
        """Run a flow beside the thread's other work, from its next round on; see FlowRunner."""
        self.post(lambda: self._flows.append(FlowRunner(flow, then, self.wake)))

    @property
    def busy(self) -> bool:
        """True if there are flows in progress or posted actions."""
        return bool(self._flows or self.late)

    def go_on(self) -> None:
        """Run the posted actions, and advance the flows as far as possible now."""
        while self.late:
            self.late.popleft()()
        flows, self._flows = self._flows, []
        self._flows += [flow for flow in flows if flow.advance()]

    def wait(self, wakes_at: float) -> list[int]:
        """Wait until ``wakes_at`` at the latest; return the descriptors that are ready."""
        left = None if wakes_at == inf else min(LONGEST_WAIT, max(0.0, wakes_at - monotonic()))
        if self._flows and not self.late:
            self._wait_for_flows(left)
            left = 0.0
        if self.late:
            left = 0.0
        found = [fd for fd, _ in wait_for(self.epoll, left)]
        self.wakes_at = 0.0
        if self._wakeup in found:
            os.eventfd_read(self._wakeup)
        return found

    def _wait_for_flows(self, left: float | None) -> None:
        poller = new_poll()
        poller.register(self.epoll, POLLIN)
        ready: set[int] = set()
        try:
            for flow in self._flows:
                most = flow.register(poller)
                left = most if left is None else left if most is None else min(left, most)
            ready = {fd for fd, _ in poller.poll(None if left is None else left * 1000)}
        finally:  # also after an error: what is waited for is not closed
            for flow in self._flows:
                flow.look(ready)

    def close(self) -> None:
        """Close the descriptors, because the thread is about to end."""
        self.epoll.close()
        do_locked(self._gate, self._close_wakeup)

    def _close_wakeup(self) -> None:
        self._wakeup = -1
        self._eventfd.close()


class FlowRunner:
    """A flow (see _processes.flows) in progress. ``then`` is called at its end, with its return value or its exception.

    ``wake`` is called when another thread that waits for the same process may have read the data that this flow waits
    for.
    """

    def __init__(
        self, flow: Flow[Any], then: Callable[[Any, Exception | None], None], wake: Callable[[], None]
    ) -> None:
        self._flow = flow
        self._then = then
        self.wake = wake
        self.reader: object = self  # takes the place of a thread, see _processes.endpoints.Waiter
        self.fd = -1  # the descriptor that the flow waits for
        self._need: Need | None = None
        self._error: OSError | None = None  # why nothing could be read
        self._deadline: float | None = None
        self._reads = False  # True if the descriptor is watched here, and by no other thread
        self.pollable = True

    def advance(self) -> bool:
        """Advance the flow as far as possible now. Return False at its end."""
        found: Any = None
        why: Exception | None = None
        try:
            while True:
                if self._need is None:
                    self._want(next(self._flow))
                if self._error is not None:
                    error, self._error = self._error, None
                    self._want(self._flow.throw(error))
                came = self._came()
                if came is None:
                    return True
                self._want(self._flow.send(came))
        except StopIteration as stop:
            found = stop.value
        except Exception as error:
            why = error
        self._then(found, why)
        return False

    def _want(self, need: Need) -> None:
        self._need = need
        self._deadline = None if need[3] is None else monotonic() + need[3]

    def _came(self) -> bool | None:
        """Return True if the present need is met, False if its time is over, None if it is still open."""
        assert self._need is not None
        link, done, _, _ = self._need
        self.pollable = link.flush_line()
        with link.lock:
            if done():
                return True
        return False if self._deadline is not None and monotonic() >= self._deadline else None

    def register(self, poller: poll) -> float | None:
        """Register the descriptors to watch; return for how many seconds at most, or None without a limit."""
        assert self._need is not None
        link, _, source, _ = self._need
        with link.lock:
            watched = source()
            fd = -1 if watched is None else watched[0]
            self._reads = link.begin_wait(self, fd) and fd >= 0
            if self._reads:
                poller.register(fd, POLLIN)
            for unsent in link.unsent() if self.pollable else ():  # as in the blocking face
                poller.register(unsent, POLLIN | POLLOUT if unsent == fd else POLLOUT)
        left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        if self.pollable:
            return left
        return RETRY if left is None else min(RETRY, left)

    def look(self, ready: set[int]) -> None:
        """Read from the descriptor if it is ready, and end the wait."""
        assert self._need is not None
        link, _, source, _ = self._need
        with link.lock:
            try:
                watched = source()
                if self._reads and self.fd in ready and watched is not None and watched[0] == self.fd:
                    watched[1]()
            except OSError as error:  # out of memory or descriptors: this flow fails, and no other
                self._error = error
            finally:
                link.end_wait(self)
                link.close_finished()
