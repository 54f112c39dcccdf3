"""Messages between the client of ``anyfork run`` and the keeper: marshalled values, with descriptors beside them.

Both ends are the same interpreter of the same user: the keeper's key holds its version, and the kernel says who the
peer is. So nobody else's bytes are ever decoded here.
"""

from __future__ import annotations

import _socket
import marshal
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_RIGHTS, SOL_SOCKET, socket
from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HEADER = 8  # bytes: the size of the value that follows
LARGEST = 64 << 20  # bytes; an argument list and an environment have at most 6 MiB on Linux
MOST_DESCRIPTORS = 200  # in one message; the kernel allows 253
PIECE = 1 << 20  # bytes to ask for at once
INTEGER = 4  # bytes
SO_PEERCRED = getattr(_socket, "SO_PEERCRED", 17)  # some builds of Python do not know it


class LostError(Exception):
    """Raised when the other end has closed the connection, or sends what is no message."""


def send(sock: socket, value: Any, fds: Sequence[int] = ()) -> None:
    """Send a message. Raises OSError, and TimeoutError after the socket's timeout."""
    body = marshal.dumps(value)
    data = len(body).to_bytes(HEADER, byteorder) + body
    packed = b"".join(fd.to_bytes(INTEGER, byteorder) for fd in fds)
    sent = sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)] if fds else [])
    if sent < len(data):
        sock.sendall(data[sent:])


def receive(sock: socket, fds: list[int] | None = None) -> Any:
    """Return the next message; append its descriptors to ``fds``. Raises LostError, OSError and TimeoutError."""
    size = int.from_bytes(_receive_exactly(sock, HEADER, fds), byteorder)
    if size > LARGEST:
        raise LostError(f"a message of {size} bytes is too large")
    try:
        return marshal.loads(_receive_exactly(sock, size, fds))
    except (EOFError, ValueError, TypeError) as error:
        raise LostError(f"it is not a message: {error}") from error


def _receive_exactly(sock: socket, size: int, fds: list[int] | None) -> bytes:
    data = b""
    while len(data) < size:
        piece = _receive(sock, min(size - len(data), PIECE), fds)
        if not piece:
            raise LostError("the connection has ended")
        data += piece
    return data


def _receive(sock: socket, size: int, fds: list[int] | None) -> bytes:
    if fds is None:
        return sock.recv(size)
    data, beside, flags, _ = sock.recvmsg(size, CMSG_SPACE(MOST_DESCRIPTORS * INTEGER), MSG_CMSG_CLOEXEC)
    for _level, _kind, packed in beside:
        fds += [int.from_bytes(packed[at : at + INTEGER], byteorder) for at in range(0, len(packed), INTEGER)]
    if flags & MSG_CTRUNC:
        raise LostError("it had too many descriptors")
    return data


def peer(sock: socket) -> tuple[int, int]:
    """Return the pid and the user of the process at the other end, as the kernel knows them. Raises OSError."""
    packed = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 3 * INTEGER)
    return int.from_bytes(packed[:INTEGER], byteorder), int.from_bytes(packed[INTEGER : 2 * INTEGER], byteorder)
