"""How a process learns of its owner's end: the lifeline, a pipe of which the owner alone holds the writing end.

Templates watch it. That is not enough for what runs user code: a template may be busy, stopped or dead when its owner
ends, and then could not tell the processes that it has forked. So on Linux every process that is not detached has the
kernel send it SIGTERM when the last writing end is closed. The kernel notes whom to signal with the open file, so each
process opens the pipe anew, by way of /proc; where there is none, the template is all there is.
"""

from __future__ import annotations

import fcntl
from _signal import SIGTERM
from os import O_CLOEXEC, O_NONBLOCK, O_RDONLY, close, dup2, open, read  # noqa: A004  # the builtin is not used here

_FLAGS = O_RDONLY | O_NONBLOCK | O_CLOEXEC
# Bound here, because looking through modules costs page faults at every birth.
control, F_SETFL, F_SETOWN = fcntl.fcntl, fcntl.F_SETFL, fcntl.F_SETOWN
F_SETSIG: int | None = getattr(fcntl, "F_SETSIG", None)
ASYNC = getattr(fcntl, "FASYNC", 0) | O_NONBLOCK


class Lifeline:
    """The pipe's reading end, under one number in a template and in everything forked from it."""

    __slots__ = ("_path", "fd", "followed")

    def __init__(self, fd: int) -> None:
        self.move(fd)

    def move(self, fd: int) -> None:
        """Be another descriptor from now on."""
        self.fd = fd
        self._path = b"/proc/self/fd/%d" % fd
        self.followed = F_SETSIG is not None  # by processes, by themselves: see check

    def follow(self, pid: int) -> None:
        """Have the kernel send SIGTERM to this process, ``pid``, at the owner's end, if it has not come yet.

        Raises OSError when descriptors have run out.
        """
        if self.followed and F_SETSIG is not None:
            fd = open(self._path, _FLAGS)
            dup2(fd, self.fd, False)
            close(fd)
            fd = self.fd
            control(fd, F_SETSIG, SIGTERM)
            control(fd, F_SETOWN, pid)
            control(fd, F_SETFL, ASYNC)

    def check(self) -> None:
        """Find out whether processes can follow: not without /proc, nor where it is another user's (after setuid)."""
        try:
            close(open(self._path, _FLAGS))
        except (FileNotFoundError, PermissionError):
            self.followed = False

    def over(self) -> bool:
        """True when the owner has ended."""
        try:
            return not read(self.fd, 1)
        except BlockingIOError:
            return False
