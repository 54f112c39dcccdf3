"""The lock under which an Executor decides. A signal handler may need it in the thread that holds it.

A ``with`` statement is not enough: on CPython 3.14, a signal handler may run between the acquisition and the block, and
an exception of the handler then leaves the lock held for ever (python/cpython#148874). So every exception releases it.
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
    """The result of ``DecisionLock.do`` for an action that cannot be done now."""


LATER: Final = Later()


class DecisionLock:
    """The lock under which decisions are made. ``torn`` is True if an interrupt has stopped one in the middle."""

    __slots__ = ("_lock", "torn")

    def __init__(self) -> None:
        self._lock = RLock()
        self.torn = False

    @property
    def held(self) -> bool:
        """True if this thread holds the lock: it was interrupted in the middle of a decision."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # missing in the type stubs

    def do(self, check: Callable[[], Result], action: Callable[..., Result], *args: Any) -> Result | Later:
        """Run the action under the lock, unless ``check`` returns a refusal. Return the refusal or the action's result.

        Return LATER, with nothing done, in the middle of another decision of this thread, or after one that was torn.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # as in ``held``
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
        """Read, under the lock, state that decisions change."""
        return do_locked(self._lock, action, *args)

    def __enter__(self) -> None:
        """Acquire the lock, in a thread where no interrupt comes."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
