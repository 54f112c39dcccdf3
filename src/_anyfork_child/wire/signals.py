"""Signal handlers and masks: those of a template, and those that it sets for the function or program it becomes."""

from __future__ import annotations

import _signal
from _signal import SIG_DFL, SIGINT, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def handled_signals() -> list[int]:
    """Return the signals for which this process has handlers in Python."""
    getsignal = _signal.getsignal
    return [number for number in _signal.valid_signals() if callable(getsignal(number))]


def default_actions(numbers: Iterable[int]) -> None:
    """Give signals back their default action."""
    for number in numbers:
        signal(number, SIG_DFL)


def unblock_all() -> None:
    """Unblock all signals of this thread."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def program_signals() -> None:
    """Give this process the signals that a program expects: default actions, also for those Python ignores, no mask."""
    default_actions((*handled_signals(), SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ))
    unblock_all()
