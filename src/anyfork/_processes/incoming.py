"""The incoming frames of one socket of a process: none is lost if an interrupt comes in the middle of one.

Received data stays until everything that the frame means was noted: see _system.locks.
"""

from __future__ import annotations

from _anyfork_child.wire.channel import CLOEXEC, NOWAIT, ROOM, TRUNCATED, close_all, unpack_descriptors
from _anyfork_child.wire.frames import Decoder

from .._system.locks import Once

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from _anyfork_child.wire.frames import Frame

_update: Callable[[dict[str, Any], object], None] = dict.update  # type: ignore[assignment]  # of its kinds, this one


class Incoming:
    """The reading end of one socket, which this object owns."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._calls = Once()

    @property
    def present(self) -> Once:
        """The data read of the next frame. A caller that takes this before it decides to read cannot read beyond that
        frame.
        """
        return self._calls

    def receive(self, calls: Once) -> Frame | None:
        """Read up to the end of the next frame and return it; return None at the end of the stream. Pass ``calls`` to
        ``commit``, too.

        Raises BlockingIOError when nothing more is there now (call again later, nothing is lost), ProtocolError for
        data that is not a frame, EOFError when the stream ends inside a frame.
        """
        while True:
            decoder = Decoder()
            read = [*calls.results]
            for data, ancillary, flags, _ in read:
                if not data:
                    if decoder.idle:
                        return None
                    raise EOFError("the stream ended in the middle of a frame")
                fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
                frame = decoder.feed(data, fds, flags & TRUNCATED != 0)
                if frame is not None:
                    return frame
            calls.call(len(read), self.sock.recvmsg, decoder.wanted, ROOM, NOWAIT | CLOEXEC)

    def commit(self, calls: Once, *noted: tuple[object, dict[str, object]]) -> None:
        """Set these attributes of objects, and go on to the next frame: all in one step, and once for each frame."""
        changes = [*noted, (self, {"_calls": Once()})]
        owners = [vars(owner) for owner, _ in changes]
        calls.finish(map(_update, owners, [values for _, values in changes]))

    def close(self) -> None:
        """Close the socket and the descriptors of an unfinished frame. Closing twice is harmless."""
        calls, self._calls = self._calls, Once()
        for _, ancillary, _, _ in calls.results:
            if ancillary:
                close_all(unpack_descriptors(ancillary[0][2]))
        self.sock.close()
