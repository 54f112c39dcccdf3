"""The log of anyfork: messages for programs that have loaded logging, and that never make a wait longer."""

from __future__ import annotations

import sys
from _thread import RLock

from .locks import try_locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger

DEBUG, INFO, WARNING = 10, 20, 30  # of logging, which need not be loaded


def logger_for(level: int) -> Logger | None:
    """Return the logger if it takes messages of this level.

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
    return found[0] if found else None
