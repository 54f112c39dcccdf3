"""The owner's end of a process's channel."""

from __future__ import annotations

import socket


class ChannelSocket(socket.socket):
    """A socket that closes itself when nobody has it any more, without the warning of others: that is its rule."""

    __slots__ = ()  # no state beyond its descriptor: it can travel, see _anyfork_child._reduction

    def __del__(self) -> None:
        self.close()
