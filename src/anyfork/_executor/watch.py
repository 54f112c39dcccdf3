"""The thread of an Executor, and what it watches: the channels of workers, dialogues that go on, and who wakes it."""

from __future__ import annotations

import _thread
import os
import threading
from _thread import RLock
from collections import deque
from math import inf
from select import POLLIN
from time import monotonic

from _anyfork_child.wire.descriptors import lift

from .._system.locks import do_locked
from .._system.polling import new_epoll, new_poll, wait_for
from .flow_runner import Proceeding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from select import epoll
    from typing import Any

    from .._processes.flows import Dialogue

LONGEST = 86400.0  # seconds to wait in one go: the kernel counts milliseconds in 32 bits


class Watch:
    """Descriptors are registered with ``epoll``. ``wakes_at`` is when the thread looks again by itself, where it waits:
    whoever wants it before has to wake it.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        """Make what the thread needs, which will run this. Raises OSError."""
        self.late: deque[Callable[[], None]] = deque()  # what others want the thread to do
        self.wakes_at = 0.0
        self.ident = 0
        self._wakeup = -1
        self.epoll: epoll = new_epoll()
        self._proceedings: list[Proceeding] = []
        self._gate = RLock()  # reentrant: destructors and signal handlers wake, too
        self._wakeup = lift(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.epoll.register(self._wakeup, POLLIN)
        self.thread: threading.Thread = threading.Thread(target=run, name="anyfork Executor")

    @property
    def is_here(self) -> bool:
        """Whether this is the thread."""
        return _thread.get_ident() == self.ident

    @property
    def held(self) -> bool:
        """Whether this thread was interrupted while it woke that one."""
        return self._gate._is_owned()  # type: ignore[attr-defined,no-any-return]  # see _system.decision_lock

    def wake(self) -> None:
        """Let the thread look. After its end nothing happens: the number may be that of something else then."""
        do_locked(self._gate, self._write)

    def _write(self) -> None:
        if self._wakeup >= 0:
            os.eventfd_write(self._wakeup, 1)

    def post(self, action: Callable[[], None]) -> None:
        """Let the thread do something soon. May be called in the middle of anything."""
        self.late.append(action)
        self.wake()

    def proceed(self, dialogue: Dialogue[Any], then: Callable[[Any, Exception | None], None]) -> None:
        """Go through a dialogue beside all the rest, from the next look on; see Proceeding."""
        self.post(lambda: self._proceedings.append(Proceeding(dialogue, then, self.wake)))

    @property
    def busy(self) -> bool:
        """Whether something is under way here."""
        return bool(self._proceedings or self.late)

    def go_on(self) -> None:
        """Do what others want, and go on with dialogues as far as that is possible now."""
        while self.late:
            self.late.popleft()()
        proceedings, self._proceedings = self._proceedings, []
        self._proceedings += [one for one in proceedings if one.advance()]

    def wait(self, wakes_at: float) -> list[int]:
        """Wait until then at the latest; return the descriptors of which something has come."""
        left = None if wakes_at == inf else min(LONGEST, max(0.0, wakes_at - monotonic()))
        if self._proceedings and not self.late:
            self._wait_for_dialogues(left)
            left = 0.0
        self.wakes_at = wakes_at
        if self.late:
            left = 0.0
        found = [fd for fd, _ in wait_for(self.epoll, left)]
        self.wakes_at = 0.0
        if self._wakeup in found:
            os.eventfd_read(self._wakeup)
        return found

    def _wait_for_dialogues(self, left: float | None) -> None:
        poller = new_poll()
        poller.register(self.epoll, POLLIN)
        for proceeding in self._proceedings:
            most = proceeding.register(poller)
            left = most if left is None else left if most is None else min(left, most)
        ready = {fd for fd, _ in poller.poll(None if left is None else left * 1000)}
        for proceeding in self._proceedings:
            proceeding.look(ready)

    def close(self) -> None:
        """The thread is about to end."""
        self.epoll.close()
        do_locked(self._gate, self._close_wakeup)

    def _close_wakeup(self) -> None:
        wakeup, self._wakeup = self._wakeup, -1
        if wakeup >= 0:
            os.close(wakeup)

    def __del__(self) -> None:  # its thread could not be started
        self._close_wakeup()
