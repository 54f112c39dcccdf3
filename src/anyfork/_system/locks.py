"""Holding a lock in a way that no interrupt can leave it held.

An exception of a signal handler may come between the moment in which a lock is taken and the block of ``with`` (CPython
3.14), and a tracer may raise at the line of ``with`` on the way out. So whoever takes a lock here gives back, after an
exception, all that was taken since.
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
        """What has a lock of its own."""

        lock: RLock

    Owner = TypeVar("Owner", bound=HasLock)
    Params = ParamSpec("Params")
    Result = TypeVar("Result")

# How often this thread holds a lock. Python 3.11.2 cannot tell how often; it can tell whether.
# Looked up in each lock: eventlet replaces those that are there when it patches a program.
held: Callable[[RLock], int] = methodcaller("_recursion_count" if hasattr(RLock, "_recursion_count") else "_is_owned")


def locked(
    method: Callable[Concatenate[Owner, Params], Result],
) -> Callable[Concatenate[Owner, Params], Result]:
    """Let a method run with the lock of its object held."""

    @wraps(method)
    def hold(self: Owner, /, *args: Params.args, **options: Params.kwargs) -> Result:
        return do_locked(self.lock, method, self, *args, **options)

    return hold


def do_locked(lock: RLock, action: Callable[..., Result], /, *args: Any, **options: Any) -> Result:
    """Call something with the lock held: also in the middle of something else that this thread does with it."""
    if held(lock):
        return action(*args, **options)
    try:
        with lock:
            return action(*args, **options)
    except BaseException:
        release_to(lock, 0)
        raise


def try_locked(lock: RLock, action: Callable[[], Any]) -> bool:
    """Call something with the lock held, unless another thread holds it now: return False, and nothing was done."""
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
    """Release what this thread has taken of a lock since it held it so often."""
    while held(lock) > before:
        lock.release()
