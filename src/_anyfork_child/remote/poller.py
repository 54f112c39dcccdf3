"""How a relay waits for many descriptors: by epoll where there is one, whose cost does not grow with their number."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EVENTS = 64  # at most so many at once: epoll makes room for all of them at each call


class Poller(ABC):
    """Watches descriptors. Events are those of poll, which epoll has taken over."""

    add: Callable[[int, int], object]
    change: Callable[[int, int], object]
    remove: Callable[[int], object]

    @abstractmethod
    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        """The descriptors to which something has happened within so many seconds, and what."""


class EpollPoller(Poller):
    """That of Linux."""

    def __init__(self) -> None:
        epoll = select.epoll()
        self.add, self.change, self.remove = epoll.register, epoll.modify, epoll.unregister
        self._poll = epoll.poll

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        return self._poll(seconds, EVENTS)


class PollPoller(Poller):
    """That of every other system."""

    def __init__(self) -> None:
        poll = select.poll()
        self.add = self.change = poll.register
        self.remove = poll.unregister
        self._poll = poll.poll

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        return self._poll(seconds * 1000)


make_poller: Callable[[], Poller] = EpollPoller if hasattr(select, "epoll") else PollPoller
