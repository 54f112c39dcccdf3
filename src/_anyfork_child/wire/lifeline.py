"""The lifeline: a pipe whose writing end the owner alone holds, so that all processes it started notice its end.

Runs in the owner, and in the remote relay, which acts as the owner on another machine. The processes use the other end
in birth.owner_watch.
"""

from __future__ import annotations

import fcntl
import os
from _signal import SIGTERM

from .descriptors import duplicate, lift
from .frames import FOLLOWED
from .platform import ASYNC, F_SETSIG

READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def open_pipe() -> tuple[int, int]:
    """Make the pipe; return its reading and its writing end."""
    read, write = map(lift, os.pipe())
    os.set_blocking(read, False)
    return read, write


def open_anew(pipe: int) -> tuple[int, int]:
    """Return a new descriptor of the reading end for one process, and FOLLOWED if the kernel will signal that process.

    The kernel stores the process to signal, and the signal, with the open file; so the pipe is opened anew, through
    /proc. If the system does not support that, return a duplicate and 0: a process that watches the pipe still sees its
    end. Raises OSError if descriptors have run out.
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
    """Return the path under which a pipe can be opened anew."""
    return f"/proc/self/fd/{pipe}"


def follow(fd: int) -> int:
    """Have the kernel signal the process that gets this new descriptor; return FOLLOWED."""
    assert F_SETSIG is not None
    fcntl.fcntl(fd, F_SETSIG, SIGTERM)
    fcntl.fcntl(fd, fcntl.F_SETFL, ASYNC)
    return FOLLOWED
