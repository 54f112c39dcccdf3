"""The log of anyfork: messages for programs that have loaded logging, which never make a wait longer or fail it."""

from __future__ import annotations

import sys
from _thread import RLock
from functools import partial

from _anyfork_child.wire.signals import comes_from_outside

from .locks import try_locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger

DEBUG, INFO, WARNING, CRITICAL = 10, 20, 30, 50  # of logging, which need not be loaded


def logger_for(level: int) -> Callable[..., None] | None:
    """Return a function that writes a message and its arguments, if the logger takes messages of this level.

    Return None, too, while another thread is in the middle of changing loggers: it may wait for this thread.
    """
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    found: list[Logger] = []

    def look() -> None:
        logger = logging.getLogger("anyfork")
        if logger.isEnabledFor(level):  # which remembers the answer, and needs no lock for it later
            found.append(logger)

    lock = getattr(logging, "_lock", None)
    if type(lock) is RLock:
        try_locked(lock, look)
    else:  # a library has replaced it
        look()
    return partial(_write, found[0], level) if found else None


def write_record(
    level: int, text: str, *args: object, error: BaseException | None = None, name: str = "anyfork"
) -> None:
    """Write a record for a problem that no caller is told, with the error."""
    import logging

    _write(logging.getLogger(name), level, text, *args, error=error, frames=3)


def _write(
    logger: Logger, level: int, text: str, *args: object, error: BaseException | None = None, frames: int = 2
) -> None:
    """Write a record. Report what a log handler of the program raises as an exception of the thread, which goes on.

    The caller may be a thread or a task that all jobs of a pool depend on. ``frames`` counts the calls from here up to
    the function that the record names.
    """
    try:
        logger.log(level, text, *args, exc_info=error, stacklevel=frames)
    except BaseException as failure:
        if may_be_interrupt(failure):
            raise
        import threading

        about = type(failure), failure, failure.__traceback__, threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs(about))


def may_be_interrupt(error: BaseException) -> bool:
    """Return whether a signal handler may have raised an error of user code: Ctrl-C above all, in the main thread."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        return False
    return not isinstance(error, Exception) or comes_from_outside(error)
