"""What programs and templates report, of their start, their end and their files, and what both sides make of it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    State: TypeAlias = tuple[int, ...] | None

FAILED, COLD = b"E", b"C"  # what a report begins with; a pipe that is closed without a report means success
REWRITTEN = "!"  # before the name of a module that a hook of the program has loaded
VOLATILE = {b"_", b"PWD", b"OLDPWD", b"SHLVL"}  # shells change them; who reads all variables means no single one

# What an interpreter sets that starts without a locale (PEP 538), and the variables that are missing then.
COERCED = {b"LC_CTYPE": b"C.UTF-8"}
LOCALES = {b"LC_ALL", b"LC_CTYPE", b"LANG"}

# Nanoseconds. Byte code is trusted by the size and the whole seconds of its source. The clock of files goes in steps of
# at most 10 ms, on a few file systems of a second or two; within a step, a second change of a file does not show.
UNSETTLED_NS = 2 * 10**9
TICK_NS = 2 * 10**7
SECOND_NS = 10**9


def file_state(path: str) -> State:
    """Return what is compared of a file; None if there is none. The last two are the times of its last change."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def margin(state: State) -> int:
    """Return how many nanoseconds after its last change another change of a file surely shows."""
    return UNSETTLED_NS if state is not None and state[-1] % SECOND_NS == 0 else TICK_NS
