"""The owner's sockets to a process, which may still be open when the program ends."""

from __future__ import annotations

import _socket

from _anyfork_child.wire.platform import FREE_THREADED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class LinkSocket(_socket.socket):
    """A socket that closes itself when it is no longer referenced, without a ResourceWarning."""

    __slots__ = ()

    def __del__(self, close: Callable[[_socket.socket], None] = _socket.socket.close) -> None:
        close(self)  # bound early, because the names of modules are gone when the program ends


def quiet(end: _socket.socket) -> _socket.socket:
    """Return the socket as a link keeps it. Only free-threaded interpreters find plain open ones when they end."""
    return LinkSocket(end.family, end.type, end.proto, end.detach()) if FREE_THREADED else end
