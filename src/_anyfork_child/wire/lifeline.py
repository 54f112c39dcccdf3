"""The lifeline: a pipe whose writing end the owner alone holds, so that all processes it started notice its end.

The owner opens it, and so does the remote relay, which acts as the owner on another machine. Templates watch it. That
is not enough for processes that run user code: a template may be busy, stopped or dead when its owner ends, and then
could not end the processes that it has forked. So on Linux every process that is not detached lets the kernel send it
SIGTERM when the last writing end is closed. The kernel stores the process to signal, and the signal, with the open
file. Therefore the owner opens the pipe anew for each process (FOLLOWED in a FORK frame's value), and the process only
has to enter its pid.
"""

from __future__ import annotations

import os
from _signal import SIGTERM
from _struct import Struct
from fcntl import F_SETFL, fcntl
from os import read

from .descriptors import duplicate, lift
from .frames import FOLLOWED
from .platform import ASYNC, F_SETSIG

F_SETOWN_EX = 15  # Linux. Its argument is bytes, which fcntl() accepts without a first failed try as an int
F_OWNER_PID = 1
pack_owner = Struct("2i").pack
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def open_pipe() -> tuple[int, int]:
    """Make the pipe; return its reading and its writing end."""
    reading, writing = map(lift, os.pipe())
    os.set_blocking(reading, False)
    return reading, writing


def open_anew(pipe: int) -> tuple[int, int]:
    """Return a new descriptor of the reading end for one process, and FOLLOWED if the kernel will signal that process.

    The pipe is opened anew through /proc. If the system does not support that, return a duplicate and 0: a process that
    watches the pipe still sees its end. Raises OSError if descriptors have run out.
    """
    if F_SETSIG is not None:
        try:
            fd = os.open(path_of(pipe), READ)
        except (FileNotFoundError, PermissionError):
            pass
        else:
            fd = lift(fd)
            return fd, set_signal(fd)
    return duplicate(pipe), 0


def path_of(pipe: int) -> str:
    """Return the path under which a pipe can be opened anew."""
    return f"/proc/self/fd/{pipe}"


def set_signal(fd: int) -> int:
    """Have the kernel signal the process that gets this new descriptor, at the owner's end; return FOLLOWED."""
    assert F_SETSIG is not None
    fcntl(fd, F_SETSIG, SIGTERM)
    fcntl(fd, F_SETFL, ASYNC)
    return FOLLOWED


def follow(lifeline: int, pid: int) -> None:
    """Have the kernel send SIGTERM to this process, ``pid``, when the owner ends, unless the owner has ended before."""
    fcntl(lifeline, F_SETOWN_EX, pack_owner(F_OWNER_PID, pid))


def has_ended(lifeline: int) -> bool:
    """Return whether the owner has ended."""
    try:
        return not read(lifeline, 1)
    except BlockingIOError:
        return False
