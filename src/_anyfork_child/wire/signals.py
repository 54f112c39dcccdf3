"""Signal handlers and masks: those of a template, and those that it sets for the function or program it becomes."""

from __future__ import annotations

import _signal
from _signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGUSR1, SIGUSR2, getsignal, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

FROM_CHILDREN = (SIGHUP, SIGUSR1, SIGUSR2)  # what a process may send to its parent, to tell it something


def handled_signals() -> list[int]:
    """Return the signals for which this process has handlers in Python."""
    return [number for number in _signal.valid_signals() if callable(getsignal(number))]


def default_actions(numbers: Iterable[int]) -> None:
    """Give signals back their default action."""
    for number in numbers:
        signal(number, SIG_DFL)


def ignore_defaults(numbers: Collection[int]) -> list[int]:
    """Ignore those signals whose action is the default; return them."""
    found = [number for number in numbers if getsignal(number) == SIG_DFL]
    if found:
        found = [number for number in found if not _has(b"SigCgt:", number) and not _has(b"SigIgn:", number)]
    for number in found:
        signal(number, SIG_IGN)
    return found


def still_ignored(numbers: Iterable[int]) -> Sequence[int]:
    """Return those signals that are ignored: a library may have set a handler without the interpreter's knowledge."""
    return tuple(number for number in numbers if getsignal(number) == SIG_IGN and _has(b"SigIgn:", number, True))


def _has(field: bytes, number: int, unknown: bool = False) -> bool:
    """Return whether a signal is in a mask of this process, or ``unknown`` where the system does not tell."""
    try:
        with open("/proc/self/status", "rb") as status:
            masks = [int(line.removeprefix(field), 16) for line in status if line.startswith(field)]
    except OSError:
        return unknown
    return any(mask >> number - 1 & 1 for mask in masks)


def unblock_all() -> None:
    """Unblock all signals of this thread."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def program_signals(ignored: Iterable[int]) -> None:
    """Give this process the signals that a program expects: no mask, and default actions, also for those that Python
    ignores, or its template, which are ``ignored``. What its owner ignores stays so.
    """
    default_actions((*handled_signals(), *ignored, SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ))
    unblock_all()
