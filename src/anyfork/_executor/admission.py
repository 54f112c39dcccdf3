"""Those who wait until there is room for their job in the bounded queue of an Executor, in turn."""

from __future__ import annotations

import _thread
from collections import deque
from functools import partial

from .._system.decision_lock import LATER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType

    from .dispatcher import Dispatcher


class Room:
    """All but ``wait`` is done under the dispatcher's lock. Who waits, and who was told that there is room and has not
    taken it yet, is in two containers, from which the scheduler's numbers follow.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._waiting: deque[LockType] = deque()
        self._promised: set[LockType] = set()
        self._threads: dict[int, None] = {}  # that wait

    def wait(self) -> None:
        """Wait until there is room. Raises QueueFullError where nobody is to wait, and what stands in the way of a job.

        Nobody waits where the room would never come: in the Executor's thread, and in what has interrupted a decision,
        or somebody who waits.
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
            if turn in self._waiting or turn in self._promised:
                self._leave(turn)

    def _ask(self, turn: LockType, again: bool) -> bool | BaseException:
        """Return whether this one has to wait, or why it must not."""
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
        if self._dispatcher.lock.do(_nothing, self._forget, turn) is LATER:
            self._dispatcher.post(partial(self._forget, turn))

    def _forget(self, turn: LockType) -> None:
        if turn in self._waiting:  # interrupted
            self._waiting.remove(turn)
        self._promised.discard(turn)
        self.count()
        self._dispatcher.watch.wake()

    def count(self) -> None:
        """Let the scheduler know how many there are."""
        scheduler = self._dispatcher.scheduler
        scheduler.promised = len(self._promised)
        scheduler.waiters = len(self._waiting) + len(self._promised)

    def admit(self) -> None:
        """Tell those for whom there is room."""
        while self._waiting and self._dispatcher.scheduler.has_room:
            turn = self._waiting.popleft()
            self._promised.add(turn)
            self.count()
            turn.release()

    def open(self) -> None:
        """Tell all: they find out themselves what stands in the way."""
        while self._waiting:
            self._waiting.popleft().release()


def _nothing() -> None:
    """Nothing stands in the way."""
