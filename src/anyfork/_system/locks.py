"""Acquisition of locks such that no interrupt can leave a lock held.

A signal handler may raise an exception between the acquisition of a lock and the block of ``with`` (CPython 3.14), and
a tracer may raise one at the line of ``with`` on the way out. So, after an exception, the functions here release the
lock as often as it was acquired since they began.
"""

from __future__ import annotations

from _operator import methodcaller
from _thread import RLock
from functools import wraps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

    class HasLock(Protocol):
        """An object with a lock of its own."""

        lock: RLock

    Owner = TypeVar("Owner", bound=HasLock)
    Params = ParamSpec("Params")
    Result = TypeVar("Result")

# How often this thread holds a lock. Python 3.11.2 can tell only whether it does.
# The method is looked up in each lock, because eventlet replaces existing locks when it patches a program.
held: Callable[[RLock], int] = methodcaller("_recursion_count" if hasattr(RLock, "_recursion_count") else "_is_owned")


def locked(
    method: Callable[Concatenate[Owner, Params], Result],
) -> Callable[Concatenate[Owner, Params], Result]:
    """Make a method run with the lock of its object held."""

    @wraps(method)
    def hold(self: Owner, /, *args: Params.args, **options: Params.kwargs) -> Result:
        return do_locked(self.lock, method, self, *args, **options)

    return hold


def do_locked(lock: RLock, action: Callable[..., Result], /, *args: Any, **options: Any) -> Result:
    """Call the action with the lock held, also inside another call of this thread that holds it."""
    if held(lock):
        return action(*args, **options)
    try:
        with lock:
            return action(*args, **options)
    except BaseException:
        release_to(lock, 0)
        raise


def try_locked(lock: RLock, action: Callable[[], Any]) -> bool:
    """Call the action with the lock held. Return False, with nothing done, if another thread holds the lock now."""
    if held(lock):
        action()
        return True
    try:
        if not lock.acquire(blocking=False):
            return False
        try:
            action()
        finally:
            lock.release()
    except BaseException:
        release_to(lock, 0)
        raise
    return True


def release_to(lock: RLock, before: int) -> None:
    """Release a lock until this thread holds it no more than ``before`` times."""
    while held(lock) > before:
        lock.release()
