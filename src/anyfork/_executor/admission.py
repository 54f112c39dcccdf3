"""Admission to the bounded queue of an Executor: threads wait in order until there is space for their jobs."""

from __future__ import annotations

import _thread
from functools import partial
from operator import methodcaller

from .._pools.admission import Admission
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


class ThreadAdmission(Admission):
    """The threads that wait for space in the queue. All methods but ``wait`` run under the dispatcher's lock."""

    def __init__(self, dispatcher: Queueing) -> None:
        super().__init__(dispatcher, methodcaller("release"))
        self._dispatcher = dispatcher
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
            if self.knows(turn):
                self._leave(turn)

    def _ask(self, turn: LockType, again: bool) -> bool | BaseException:
        """Return whether the caller has to wait, and queue it then; or return the exception that refuses it."""
        dispatcher = self._dispatcher
        if self.is_free:
            return False
        if dispatcher.raises_when_full:
            return dispatcher.refusal()
        if again or dispatcher.watch.is_here:
            return False
        self.wait_in_turn(turn)
        dispatcher.decide()
        return True

    def _leave(self, turn: LockType) -> None:
        if self._dispatcher.lock.do(unchecked, self.forget, turn) is LATER:
            self._dispatcher.post(partial(self.forget, turn))

    def forget(self, turn: object) -> None:
        """Do the same as ``Admission.forget``, and wake the thread of the Executor."""
        super().forget(turn)
        self._dispatcher.watch.wake()


def unchecked() -> None:
    """Return None: no check refuses the action."""
