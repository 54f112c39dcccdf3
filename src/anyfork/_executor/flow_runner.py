"""A dialogue (see _processes.flows) that advances as its descriptors become ready, in a thread with other work."""

from __future__ import annotations

from select import POLLIN, POLLOUT
from time import monotonic

from .._blocking.waiting import RETRY_MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from select import poll
    from typing import Any

    from .._processes.flows import Flow, Need


class FlowRunner:
    """A dialogue in progress. ``then`` is called at its end, with its return value or the exception that it raised.

    ``wake`` is called when another thread that waits for the same process may have read the data that this dialogue
    waits for.
    """

    def __init__(
        self, flow: Flow[Any], then: Callable[[Any, Exception | None], None], wake: Callable[[], None]
    ) -> None:
        self._dialogue = flow
        self._then = then
        self.wake = wake
        self.reader: object = self  # takes the place of a thread, see _processes.endpoints.Waiter
        self.fd = -1  # the descriptor that the dialogue waits for
        self._need: Need | None = None
        self._deadline: float | None = None
        self._reads = False  # True if the descriptor is watched here, and by no other thread
        self.pollable = True

    def advance(self) -> bool:
        """Advance the dialogue as far as possible now. Return False at its end."""
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
            for unsent in link.unsent():
                poller.register(unsent, POLLIN | POLLOUT if unsent == fd else POLLOUT)
        left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        if self.pollable:
            return left
        return RETRY_MS / 1000 if left is None else min(RETRY_MS / 1000, left)

    def look(self, ready: set[int]) -> None:
        """Read from the descriptor if it is ready, and end the wait."""
        assert self._need is not None
        link, _, source, _ = self._need
        with link.lock:
            watched = source()
            if self._reads and self.fd in ready and watched is not None and watched[0] == self.fd:
                watched[1]()
            link.end_wait(self)
            link.close_finished()
