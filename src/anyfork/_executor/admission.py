"""Admission to the bounded queue of an Executor: threads wait in order until there is space for their jobs."""

from __future__ import annotations

import _thread
from collections import deque
from functools import partial

from .._system.locks import LATER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Protocol

    from .._pools.scheduler import Scheduler
    from .._system.locks import DecisionLock
    from .watch import Watch

    class Queueing(Protocol):
        """The dispatcher whose queue is bounded."""

        lock: DecisionLock
        scheduler: Scheduler
        watch: Watch

        @property
        def raises_when_full(self) -> bool: ...
        def enter(self) -> BaseException | None: ...
        def refusal(self) -> BaseException: ...
        def decide(self) -> None: ...
        def post(self, action: Callable[[], None]) -> None: ...


class Admission:
    """The threads that wait for space in the queue. All methods but ``wait`` run under the dispatcher's lock.

    Waiting threads are in one container; admitted threads that have not used their space yet are in another. The
    scheduler's numbers follow from these two.
    """

    def __init__(self, dispatcher: Queueing) -> None:
        self._dispatcher = dispatcher
        self._waiting: deque[LockType] = deque()
        self._promised: set[LockType] = set()
        self._threads: dict[int, None] = {}  # ids of waiting threads

    def wait(self) -> None:
        """Wait until there is space for a job. Raises the exception that refuses a job, among them QueueFullError.

        Does not wait where the space would never come: in the Executor's thread, and in code that has interrupted a
        decision or a wait of its own thread.
        """
        lock, me = self._dispatcher.lock, _thread.get_ident()
        turn = _thread.allocate_lock()
        turn.acquire()
        again = me in self._threads
        try:
            found = lock.do(self._dispatcher.enter, self._ask, turn, again)
            if isinstance(found, BaseException):
                raise found
            if found is True:
                self._threads[me] = None
                turn.acquire()
        finally:
            if not again:
                self._threads.pop(me, None)
            if turn in self._waiting or turn in self._promised:  # each container has a lock of its own, without the GIL
                self._leave(turn)

    def _ask(self, turn: LockType, again: bool) -> bool | BaseException:
        """Return whether the caller has to wait, and queue it then; or return the exception that refuses it."""
        dispatcher = self._dispatcher
        if not self._waiting and dispatcher.scheduler.has_room:
            return False
        if dispatcher.raises_when_full:
            return dispatcher.refusal()
        if again or dispatcher.watch.is_here:
            return False
        self._waiting.append(turn)
        self.count()
        dispatcher.decide()
        return True

    def _leave(self, turn: LockType) -> None:
        if self._dispatcher.lock.do(unchecked, self._forget, turn) is LATER:
            self._dispatcher.post(partial(self._forget, turn))

    def _forget(self, turn: LockType) -> None:
        if turn in self._waiting:  # the wait was interrupted
            self._waiting.remove(turn)
        self._promised.discard(turn)
        self.count()
        self._dispatcher.watch.wake()

    def count(self) -> None:
        """Update the scheduler's numbers of waiting and admitted threads."""
        scheduler = self._dispatcher.scheduler
        scheduler.promised = len(self._promised)
        scheduler.waiters = len(self._waiting) + len(self._promised)

    def admit(self) -> None:
        """Admit waiting threads while there is space."""
        while self._waiting and self._dispatcher.scheduler.has_room:
            turn = self._waiting.popleft()
            self._promised.add(turn)
            self.count()
            turn.release()

    def open(self) -> None:
        """Wake all waiting threads: each finds out by itself why it is refused."""
        while self._waiting:
            self._waiting.popleft().release()


def unchecked() -> None:
    """Return None: no check refuses the action."""
