"""How everything that this process has started notices its end: a pipe whose writing end this process alone holds.

It is open as long as the process lives: templates and processes may outlive their handles, so no handle can hold it.
What the other side makes of it is in _anyfork_child._owner.
"""

from __future__ import annotations

import fcntl
import os
from _signal import SIGTERM
from _thread import allocate_lock

from _anyfork_child._wire import FOLLOWED

F_SETSIG: int | None = getattr(fcntl, "F_SETSIG", None)  # Linux
ASYNC = os.O_NONBLOCK | getattr(fcntl, "FASYNC", 0)

_pipe: list[int] = []  # reading and writing end, once there are any
_lock = allocate_lock()


def open_lifeline() -> tuple[int, int]:
    """A new descriptor to hand to one process, and FOLLOWED if the kernel will signal that process.

    The kernel notes whom to signal, and how, with the open file; so the pipe is opened anew, by way of /proc. Without
    that, its end is still seen by who watches it. Raises OSError when descriptors have run out.
    """
    if not _pipe:
        with _lock:
            if not _pipe:
                _pipe.extend(os.pipe())
                os.set_blocking(_pipe[0], False)
    if F_SETSIG is not None:
        try:
            fd = os.open(f"/proc/self/fd/{_pipe[0]}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            pass
        else:
            fcntl.fcntl(fd, F_SETSIG, SIGTERM)
            fcntl.fcntl(fd, fcntl.F_SETFL, ASYNC)
            return fd, FOLLOWED
    return os.dup(_pipe[0]), 0


def lifeline_descriptors() -> tuple[int, ...]:
    """What this program holds of it."""
    return tuple(_pipe)


def _forget() -> None:
    """Runs in a forked copy of the owner, which must not keep alive what ends with the owner."""
    while _pipe:
        os.close(_pipe.pop())


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
os.register_at_fork(after_in_child=_forget)
