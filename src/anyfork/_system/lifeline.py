"""The lifeline: a pipe by which every process started here notices the end of this process.

Only this process holds the writing end, which is open as long as the process lives. No handle owns it, because
templates and processes may outlive their handles. The processes use the other end as in
_anyfork_child.wire.lifeline.
"""

from __future__ import annotations

import os
from _thread import RLock

from _anyfork_child.wire.descriptors import Owned, duplicates
from _anyfork_child.wire.lifeline import READ, open_pipe, path_of, set_signal
from _anyfork_child.wire.platform import F_SETSIG

from .locks import do_locked

_pipe: list[int] = []  # its reading and its writing end, once it is open
_lock = RLock()  # reentrant: a signal handler may come in the middle


def open_lifeline() -> tuple[Owned, int]:
    """Open a new descriptor to hand to one process; return it, and FOLLOWED if the kernel will signal that process.

    It works like _anyfork_child.wire.lifeline.open_anew. Raises OSError when descriptors have run out.
    """
    if not _pipe:
        do_locked(_lock, _open)
    if F_SETSIG is not None:
        try:
            line = Owned(map(os.open, (path_of(_pipe[0]),), (READ,)))
        except (FileNotFoundError, PermissionError):
            pass
        else:
            line = line.lifted()
            return line, set_signal(line.fds[0])
    return Owned(duplicates(_pipe[:1])), 0


def _open() -> None:
    if not _pipe:
        _pipe.extend(open_pipe())


def lifeline_descriptors() -> tuple[int, ...]:
    """Return the descriptors of the lifeline that this process holds."""
    return tuple(_pipe)


def _forget() -> None:
    """Close the pipe. Runs in a forked copy of the owner, which must not keep processes alive after the owner's end."""
    while _pipe:
        os.close(_pipe.pop())


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
os.register_at_fork(after_in_child=_forget)
