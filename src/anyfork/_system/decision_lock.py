"""The lock under which an Executor decides: signal handlers may meet it in the thread that holds it.

A ``with`` statement is not enough: on CPython 3.14 a signal handler may run between its lock and its block, and what
the handler raises then leaves the lock held for ever (python/cpython#148874). So an exception lets go of it.
"""

from __future__ import annotations

from _thread import RLock

from .locks import do_locked, release_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar

    Result = TypeVar("Result")


class Later:
    """What ``DecisionLock.do`` returns for what cannot be done now."""


LATER: Final = Later()


class DecisionLock:
    """The lock under which decisions are made. ``torn`` says that an interrupt has come in the middle of one."""

    __slots__ = ("_lock", "torn")

    def __init__(self) -> None:
        self._lock = RLock()
        self.torn = False

    @property
    def held(self) -> bool:
        """Whether this thread has it: it was interrupted in the middle of a decision."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as above

    def do(self, check: Callable[[], Result], action: Callable[..., Result], *args: Any) -> Result | Later:
        """Decide something, unless the check returns what stands in the way. Return that, or what the action returns.

        Return LATER, with nothing done, in the middle of another decision of this thread, or after one that was torn.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # as above
            return LATER
        try:
            with lock:
                found = check()
                if found is not None:
                    return found
                if self.torn:
                    return LATER
                self.torn = True  # until it is done
                found = action(*args)
                self.torn = False
                return found
        except BaseException:
            release_to(lock, 0)
            raise

    def look(self, action: Callable[..., Result], *args: Any) -> Result:
        """Read something that decisions change."""
        return do_locked(self._lock, action, *args)

    def __enter__(self) -> None:
        """Take it in a thread where no interrupt comes."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
