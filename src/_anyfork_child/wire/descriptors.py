"""Descriptor numbers: anyfork's own stay above those of the standard streams.

In a program that was started without a standard stream, or has closed one, the next descriptor to be opened gets its
number, and then receives everything that is written to that stream. Both the owner and its processes keep their own
descriptors out of that range.
"""

from __future__ import annotations

import _socket
import os
from fcntl import F_DUPFD_CLOEXEC, F_GETFD, FD_CLOEXEC, fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIRST = 3  # the lowest number above the standard streams


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
