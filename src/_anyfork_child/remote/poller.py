"""The pollers by which a relay waits for many descriptors: epoll if available, whose cost does not grow with them."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EVENTS = 64  # most events per call: epoll allocates memory for all of them at each call


class Poller(ABC):
    """A set of watched descriptors. Events are those of poll; epoll uses the same values."""

    add: Callable[[int, int], object]
    change: Callable[[int, int], object]
    remove: Callable[[int], object]

    @abstractmethod
    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        """Wait up to ``seconds``. Return the descriptors with events, each with its events."""


class EpollPoller(Poller):
    """The poller of Linux, by epoll."""

    def __init__(self) -> None:
        epoll = select.epoll()
        self.add, self.change, self.remove = epoll.register, epoll.modify, epoll.unregister
        self._poll = epoll.poll

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        return self._poll(seconds, EVENTS)


class PollPoller(Poller):
    """The poller of every other system, by poll."""

    def __init__(self) -> None:
        poll = select.poll()
        self.add = self.change = poll.register
        self.remove = poll.unregister
        self._poll = poll.poll

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        return self._poll(seconds * 1000)


make_poller: Callable[[], Poller] = EpollPoller if hasattr(select, "epoll") else PollPoller
