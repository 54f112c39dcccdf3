"""Descriptors: their numbers, their owners in Python, and the claims of a process on them. Used by both sides.

In a program that was started without a standard stream, or has closed one, the next descriptor to be opened gets its
number, and then receives everything that is written to that stream. So anyfork's own descriptors stay above those of
the standard streams, in the owner and in its processes.

No signal handler runs inside a function written in C, nor between a loop in C over such functions and the assignment of
its result. So the call that makes a descriptor also puts it into its owner, as in ``Owned(map(os.dup, (fd,)))``. This
uses the ``map`` up: its calls are made once, even if a signal handler interrupts the caller or enters it again.

User code may close our descriptors, open others under their numbers, and fork copies of the process. The kernel keeps
the claim of a process with the open file (as its F_SETOWN owner, which causes no signal without O_ASYNC or out-of-band
data). So one system call distinguishes our file from any other, and the process from its copies, and a start costs no
further page.
"""

from __future__ import annotations

import _socket
import os
from fcntl import F_DUPFD_CLOEXEC, F_GETFD, F_GETOWN, F_SETOWN, FD_CLOEXEC, fcntl
from os import getpid

from .platform import epoll, kqueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

FIRST = 3  # the lowest number above the standard streams

# A class written in C whose objects close any descriptor when they are deleted, without a warning. A destructor in
# Python could lose an interrupt, because the interpreter drops the exceptions of destructors.
# macOS has no epoll, but objects of its kqueue hold a descriptor just as well.
_Holder: Any = epoll or kqueue


def duplicate(fd: int) -> int:
    """Return another descriptor of the same open file, above the standard streams. Raises OSError."""
    return fcntl(fd, F_DUPFD_CLOEXEC, FIRST)


def duplicates(fds: Sequence[int]) -> Iterator[int]:
    """Return an iterator that duplicates descriptors as ``duplicate`` does, each in one uninterruptible step."""
    count = len(fds)
    return map(fcntl, fds, (F_DUPFD_CLOEXEC,) * count, (FIRST,) * count)


def lift(fd: int) -> int:
    """Move a descriptor with the number of a standard stream above these; return its number. Raises OSError."""
    if fd >= FIRST or fd < 0:  # -1 stands for a descriptor that was lost on the way
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def socket_pair(kind: int = _socket.SOCK_STREAM) -> Sequence[_socket.socket]:
    """Make two connected sockets with numbers above those of the standard streams. Raises OSError."""
    ends = _socket.socketpair(_socket.AF_UNIX, kind)
    if ends[0].fileno() >= FIRST and ends[1].fileno() >= FIRST:
        return ends
    return [_socket.socket(_socket.AF_UNIX, kind, 0, lift(end.detach())) for end in ends]


def is_standard_stream(fd: int) -> bool:
    """Return whether the number of a standard stream really is one: not closed, and not reused.

    A file or a socket that Python opened when the number was free is closed on exec, as all that Python opens; a
    standard stream never is.
    """
    try:
        return not fcntl(fd, F_GETFD) & FD_CLOEXEC
    except OSError:  # the number is not in use
        return False


def open_stdio() -> None:
    """Open the null device for each closed one of 0, 1 and 2: the next file would become that standard stream."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
            os.set_inheritable(fd, True)


class Owned:
    """Descriptors that are closed once: by ``close``, or with the last reference to this object.

    ``fds`` are the open ones.
    """

    __slots__ = ("_held", "fds")

    def __init__(self, made: Iterable[int] = ()) -> None:
        self._held = [*map(_Holder.fromfd, made)]
        self.fds: list[int] = [*map(_Holder.fileno, self._held)]

    @property
    def fd(self) -> int:
        """The number of the only descriptor. Raises ValueError once it is closed."""
        [fd] = self.fds
        return fd

    def lifted(self) -> Owned:
        """Return the owner of the same files with numbers above those of the standard streams. Raises OSError."""
        return Owned(duplicates(self.fds)) if self.fds and min(self.fds) < FIRST else self

    def split(self) -> list[Owned]:
        """Return an owner of each descriptor; this object has none afterwards."""
        owners = [Owned() for _ in self._held]
        for owner, holder, fd in zip(owners, self._held, self.fds, strict=True):
            owner._held, owner.fds = [holder], [fd]
        self._held, self.fds = [], []
        return owners

    def close(self) -> None:
        """Close the descriptors. Closing twice is harmless."""
        self.fds = []
        any(map(_Holder.close, self._held))


def claim(fd: int) -> None:
    """Claim a descriptor for this process."""
    fcntl(fd, F_SETOWN, getpid())


def is_claimed(fd: int) -> bool:
    """Return whether this number is still the file that this process has claimed; False in a copy of the process."""
    try:
        return fcntl(fd, F_GETOWN) == getpid()
    except OSError:  # the number is closed
        return False
