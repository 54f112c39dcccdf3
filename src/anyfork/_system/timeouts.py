"""Timeouts, as callers give them to all functions: their valid values, their deadlines, and calls with a deadline."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import monotonic

from .._errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar, TypeVarTuple

    Args = TypeVarTuple("Args")
    Result = TypeVar("Result")

inf = float("inf")  # math.inf would need the math module, a file that nothing else here loads
LONGEST_WAIT = 1e6  # seconds in one system call: poll takes 24.8 days at most; longer waits are repeated


def seconds(timeout: object) -> float | None:
    """Return a timeout as seconds, 0 or more, or inf; None for none. Raise ArgumentError if it is not a number."""
    if timeout is None:
        return None
    if isinstance(timeout, str | bytes | bytearray) or not (
        hasattr(timeout, "__float__") or hasattr(timeout, "__index__")
    ):
        raise _refusal(timeout)
    try:
        number = float(timeout)  # type: ignore[arg-type]  # it has one of the two methods
    except OverflowError:  # an int that no float can hold
        return inf if timeout > 0 else 0.0  # type: ignore[operator]  # an int
    except (TypeError, ValueError) as error:
        raise _refusal(timeout) from error
    if number != number:
        raise _refusal(timeout)
    return max(0.0, number)


def _refusal(timeout: object) -> ArgumentError:
    return ArgumentError(f"timeout is a number of seconds, not {timeout!r}")


def deadline(timeout: object) -> float | None:
    """Return when a timeout that begins now is over, by the monotonic clock; None for never. Raise ArgumentError."""
    limit = seconds(timeout)
    return None if limit is None or limit == inf else monotonic() + limit


def remaining(until: float | None) -> float | None:
    """Return how many seconds are left until a deadline, 0 or more; None without a deadline."""
    return None if until is None else max(0.0, until - monotonic())


def one_wait(left: float | None) -> float:
    """Return how many of the seconds left one system call may wait; -1 without a limit."""
    return -1 if left is None else min(left, LONGEST_WAIT)


class NotInTimeError(Exception):
    """Raised at a deadline for a call that goes on in the background."""


def call_until(until: float, function: Callable[[*Args], Result], *args: *Args) -> Result:
    """Call a function in another thread; return its result.

    Raises what the function raises, RuntimeError if there can be no thread, and NotInTimeError at the deadline. The
    function goes on then, and nobody gets its result.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    done = allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            results.append(function(*args))
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    start_new_thread(run, ())
    while not done.acquire(timeout=one_wait(remaining(until))):
        if monotonic() >= until:
            raise NotInTimeError
    if errors:
        raise errors.pop()
    return results[0]
