"""Signal handlers and masks: those of a template, those that it sets for the function or program it becomes, and the
errors that handlers of a program raise.
"""

from __future__ import annotations

import _signal
from _signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGUSR1, SIGUSR2, getsignal, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from types import CodeType

FROM_CHILDREN = (SIGHUP, SIGUSR1, SIGUSR2)  # what a process may send to its parent, to tell it something


def handled_signals() -> list[int]:
    """Return the signals for which this process has handlers in Python."""
    return [number for number in _signal.valid_signals() if callable(getsignal(number))]


def default_actions(numbers: Iterable[int]) -> None:
    """Give signals back their default action."""
    for number in numbers:
        signal(number, SIG_DFL)


def restore_default(number: int) -> None:
    """Give a signal back its default action, unless it has that: this would clear flags that a library has set."""
    if getsignal(number) != SIG_DFL or _has(b"SigCgt:", number, unknown=True) or _has(b"SigIgn:", number):
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
    return tuple(
        number for number in numbers if getsignal(number) == SIG_IGN and _has(b"SigIgn:", number, unknown=True)
    )


def _has(field: bytes, number: int, *, unknown: bool = False) -> bool:
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


def comes_from_outside(error: BaseException) -> bool:
    """Return whether a signal handler has raised this error, in the middle of unrelated code."""
    handlers = {code for number in _signal.valid_signals() if (code := _code_of(getsignal(number))) is not None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: object) -> CodeType | None:
    """Return the code of a handler: a function, a method, a callable object, or a partial of one of these."""
    while hasattr(handler, "func"):
        handler = handler.func
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        handler = vars(type(handler)).get("__call__")
    code: CodeType | None = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return code
