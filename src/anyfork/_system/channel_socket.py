"""The owner's end of a process's channel."""

from __future__ import annotations

import _socket
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, SupportsIndex


class ChannelSocket(socket.socket):
    """A socket that, by design, closes itself when it is no longer referenced, without a ResourceWarning."""

    __slots__ = ()  # no state beyond its descriptor, so it can be sent, see _anyfork_child.values.reduce

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Reduce the socket for connections of multiprocessing, which know sockets by their exact class."""
        reduction = sys.modules.get("multiprocessing.reduction")
        if reduction is None:
            return super().__reduce_ex__(protocol)
        reduced: tuple[Any, ...] = reduction._reduce_socket(self)
        return reduced

    if issubclass(socket.socket, _socket.socket):  # the classes of gevent and eventlet close their sockets themselves

        def __del__(self, close: Callable[[_socket.socket], None] = _socket.socket.close) -> None:
            close(self)  # bound early, because the names of modules are gone when the program ends
