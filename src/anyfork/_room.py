"""Those who wait until there is room for their job in the bounded queue of an Executor, in turn."""

from __future__ import annotations

import _thread
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType

    from ._dispatcher import Dispatcher


class Room:
    """All but ``wait`` is done under the dispatcher's lock. Who waits, and who was told that there is room and has not
    taken it yet, is in two containers, from which the scheduler's numbers follow.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._waiting: deque[LockType] = deque()
        self._promised: set[LockType] = set()

    def wait(self) -> None:
        """Until there is room. Raises QueueFullError where nobody is to wait, and what stands in the way of a job."""
        do = self._dispatcher.do
        turn = do(self._ask)
        if turn is not None:
            try:
                turn.acquire()
            finally:
                do(self._leave, turn)

    def _ask(self) -> LockType | None:
        dispatcher = self._dispatcher
        dispatcher.check_open()
        if not self._waiting and dispatcher.scheduler.has_room:
            return None
        if dispatcher.raises_when_full:
            dispatcher.refuse()
        if dispatcher.watch.is_here:  # a callback: while the thread waited nobody would make room
            return None
        turn = _thread.allocate_lock()
        turn.acquire()
        self._waiting.append(turn)
        self.count()
        dispatcher.decide()
        return turn

    def _leave(self, turn: LockType) -> None:
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
