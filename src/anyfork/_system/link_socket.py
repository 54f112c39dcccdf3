"""The owner's sockets to a process: their class, and the handover of one to another object."""

from __future__ import annotations

import _socket
from itertools import chain

from _anyfork_child.wire.platform import FREE_THREADED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    Socket = TypeVar("Socket", bound=socket.socket)


class LinkSocket(_socket.socket):
    """A socket that closes itself when it is no longer referenced, without a ResourceWarning."""

    __slots__ = ()

    def __del__(self, close: Callable[[_socket.socket], None] = _socket.socket.close) -> None:
        close(self)  # bound early, because the names of modules are gone when the program ends


def quiet(end: _socket.socket) -> _socket.socket:
    """Return the socket as a link keeps it. Only free-threaded interpreters find plain open ones when they end."""
    return LinkSocket(end.family, end.type, end.proto, end.detach()) if FREE_THREADED else end


def unopened(kind: type[Socket]) -> Socket:
    """Return a socket object without a descriptor, for ``hand_on``."""
    sock = kind.__new__(kind)
    if isinstance(sock, _socket.socket):
        sock._io_refs, sock._closed = 0, False  # type: ignore[attr-defined]  # as socket.socket.__init__ does
    return sock


def hand_on(sock: _socket.socket, to: socket.socket, *attributes: tuple[object, str, object]) -> Iterator[None]:
    """Return the steps, for ``carry_out``, that move a Unix socket to another object and set attributes of objects.

    No interrupt splits the steps, unless a library has replaced ``socket.socket`` by a class of its own.
    """
    open_by = _socket.socket.__init__ if isinstance(to, _socket.socket) else type(to).__init__
    descriptor = map(_socket.socket.detach, (sock,))
    moved = map(open_by, (to,), (_socket.AF_UNIX,), (_socket.SOCK_STREAM,), (0,), descriptor)
    return chain(moved, map(setattr, *zip(*attributes, strict=True)))


def carry_out(steps: Iterator[None]) -> None:
    """Carry out the steps of ``hand_on``; those that are left do nothing if the socket was closed meanwhile."""
    try:
        any(steps)
    except ValueError:  # a negative descriptor: a signal handler has closed the socket
        pass
