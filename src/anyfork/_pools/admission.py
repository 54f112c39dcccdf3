"""Admission to the bounded queue of a pool: callers wait in order until there is space for their jobs."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from .scheduler import Scheduler

    class Queueing(Protocol):
        """The pool whose queue is bounded."""

        scheduler: Scheduler


class Admission:
    """The callers that wait for space in the queue, each with a turn: an object of the face, which ``wake`` ends.

    Waiting callers are in one container; admitted callers that have not used their space yet are in another. The
    scheduler's numbers follow from these two. A pool with threads holds its lock for all methods.
    """

    def __init__(self, pool: Queueing, wake: Callable[[Any], object]) -> None:
        self._pool = pool
        self._wake = wake
        self._waiting: deque[Any] = deque()
        self._promised: set[Any] = set()

    @property
    def is_free(self) -> bool:
        """True if a caller need not wait: there is space, and no other caller waits."""
        return not self._waiting and self._pool.scheduler.has_room

    def knows(self, turn: object) -> bool:
        """Return whether the caller waits, or was admitted and has not used its space."""
        return turn in self._waiting or turn in self._promised  # each container has a lock of its own, without the GIL

    def wait_in_turn(self, turn: object) -> None:
        """Queue a caller. ``decide`` must follow."""
        self._waiting.append(turn)
        self.count()

    def forget(self, turn: object) -> None:
        """Forget a caller: it submits its job now, or was interrupted. ``decide`` must follow."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        self._promised.discard(turn)
        self.count()

    def count(self) -> None:
        """Update the scheduler's numbers of waiting and admitted callers."""
        scheduler = self._pool.scheduler
        scheduler.promised = len(self._promised)
        scheduler.waiters = len(self._waiting) + len(self._promised)

    def admit(self) -> None:
        """Admit waiting callers while there is space."""
        while self._waiting and self._pool.scheduler.has_room:
            turn = self._waiting[0]
            self._promised.add(turn)
            self._wake(turn)
            self._waiting.popleft()  # last: an interrupt may come before
            self.count()

    def open(self) -> None:
        """Wake all waiting callers: each finds out by itself why it is refused."""
        while self._waiting:
            self._wake(self._waiting.popleft())
