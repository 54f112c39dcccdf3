"""How everything that a process has started notices its end: a pipe whose writing end this process alone holds.

In the owner, and in the far relay, which is in the owner's place on another machine. What the other side makes of it is
in birth.owner_watch.
"""

from __future__ import annotations

import fcntl
import os
from _signal import SIGTERM

from .descriptors import duplicate, lift
from .frames import FOLLOWED

F_SETSIG: int | None = getattr(fcntl, "F_SETSIG", None)  # Linux
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
ASYNC = os.O_NONBLOCK | getattr(fcntl, "FASYNC", 0)


def open_pipe() -> tuple[int, int]:
    """The reading and the writing end."""
    read, write = map(lift, os.pipe())
    os.set_blocking(read, False)
    return read, write


def open_anew(pipe: int) -> tuple[int, int]:
    """A new descriptor of the reading end to hand to one process, and FOLLOWED if the kernel will signal that process.

    The kernel notes whom to signal, and how, with the open file; so the pipe is opened anew, by way of /proc. Without
    that, its end is still seen by who watches it. Raises OSError when descriptors have run out.
    """
    if F_SETSIG is not None:
        try:
            fd = os.open(path_of(pipe), READ)
        except (FileNotFoundError, PermissionError):
            pass
        else:
            fd = lift(fd)
            return fd, follow(fd)
    return duplicate(pipe), 0


def path_of(pipe: int) -> str:
    """Where it can be opened anew."""
    return f"/proc/self/fd/{pipe}"


def follow(fd: int) -> int:
    """Have the kernel signal the process that gets this new descriptor; return FOLLOWED."""
    assert F_SETSIG is not None
    fcntl.fcntl(fd, F_SETSIG, SIGTERM)
    fcntl.fcntl(fd, fcntl.F_SETFL, ASYNC)
    return FOLLOWED
