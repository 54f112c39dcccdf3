"""The handover of a Unix socket from one socket object to another, in one step for interrupts."""

from __future__ import annotations

import _socket
from itertools import chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from typing import TypeVar

    Socket = TypeVar("Socket", bound=socket.socket)


def unopened(kind: type[Socket]) -> Socket:
    """Return a socket object without a descriptor, for ``hand_on``."""
    sock = kind.__new__(kind)
    if isinstance(sock, _socket.socket):
        sock._io_refs, sock._closed = 0, False  # type: ignore[attr-defined]  # as socket.socket.__init__ does
    return sock


def hand_on(sock: _socket.socket, to: socket.socket, *attributes: tuple[object, str, object]) -> Iterator[None]:
    """Return the steps, for ``any``, that move a Unix socket to another object and set attributes of objects.

    No interrupt splits the steps, unless a library has replaced ``socket.socket`` by a class of its own.
    """
    open_by = _socket.socket.__init__ if isinstance(to, _socket.socket) else type(to).__init__
    descriptor = map(_socket.socket.detach, (sock,))
    moved = map(open_by, (to,), (_socket.AF_UNIX,), (_socket.SOCK_STREAM,), (0,), descriptor)
    return chain(moved, map(setattr, *zip(*attributes, strict=True)))
