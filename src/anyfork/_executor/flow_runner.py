"""A dialogue (see _processes.flows) that goes on as its descriptors become ready, for somebody who has other things to
do."""

from __future__ import annotations

from select import POLLIN, POLLOUT
from time import monotonic

from .._blocking.waiting import RETRY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from select import poll
    from typing import Any

    from .._processes.flows import Dialogue, Need


class Proceeding:
    """``then`` is called at the end, with what the dialogue returns or the exception that it raises.

    ``wake`` is called when another thread that has waited for the same process may have read what this one waits for.
    """

    def __init__(
        self, dialogue: Dialogue[Any], then: Callable[[Any, Exception | None], None], wake: Callable[[], None]
    ) -> None:
        self._dialogue = dialogue
        self._then = then
        self.wake = wake
        self.reader: object = self  # as that of a thread, see _processes.endpoints.Waiter
        self.fd = -1  # that is waited for
        self._need: Need | None = None
        self._deadline: float | None = None
        self._reads = False  # that is watched here, and by no other thread
        self.pollable = True

    def advance(self) -> bool:
        """Go on as far as that is possible now; False at the end."""
        found: Any = None
        why: Exception | None = None
        try:
            while True:
                if self._need is None:
                    self._want(next(self._dialogue))
                came = self._came()
                if came is None:
                    return True
                self._want(self._dialogue.send(came))
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
        """Whether it has come; None where nobody knows yet."""
        assert self._need is not None
        link, done, _, _ = self._need
        self.pollable = link.flush_line()
        with link.lock:
            if done():
                return True
        return False if self._deadline is not None and monotonic() >= self._deadline else None

    def register(self, poller: poll) -> float | None:
        """Say what is to be watched; return for how many seconds at most."""
        assert self._need is not None
        link, _, source, _ = self._need
        with link.lock:
            watched = source()
            fd = -1 if watched is None else watched[0]
            self._reads = link.begin_wait(self, fd) and fd >= 0
            if self._reads:
                poller.register(fd, POLLIN)
            for unsent in link.unsent():
                poller.register(unsent, POLLIN | POLLOUT if unsent == fd else POLLOUT)
        left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        return left if self.pollable else min(RETRY / 1000, RETRY if left is None else left)

    def look(self, ready: set[int]) -> None:
        """Read what has come."""
        assert self._need is not None
        link, _, source, _ = self._need
        with link.lock:
            watched = source()
            if self._reads and self.fd in ready and watched is not None and watched[0] == self.fd:
                watched[1]()
            link.end_wait(self)
            link.close_finished()
