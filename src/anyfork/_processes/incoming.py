"""The incoming frames of one socket of a process: none is lost if an interrupt comes in the middle of one.

Received data stays until everything that the frame means was noted: see _system.locks.
"""

from __future__ import annotations

from errno import EAGAIN, EBADF
from itertools import chain
from os import close

from _anyfork_child.wire.channel import NOWAIT, ROOM, TRUNCATED, unpack_descriptors
from _anyfork_child.wire.frames import HEADER_SIZE, Decoder, ProtocolError, usual_frame
from _anyfork_child.wire.platform import CLOEXEC

from .._system.locks import Once

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    from _anyfork_child.wire.frames import Frame

    Read: TypeAlias = tuple[bytes, list[tuple[int, int, bytes]], int, Any]  # a result of recvmsg

ALL_ROOM, FLAGS = (ROOM,), (NOWAIT | CLOEXEC,)  # arguments of recvmsg, for ``map``


class Incoming:
    """The reading end of one socket, which this object owns.

    ``present`` is the data read of the next frame. A caller that takes this before it decides to read cannot read
    beyond that frame.
    """

    __slots__ = ("fd", "present", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.present = Once()

    def receive(self, calls: Once, size: int = HEADER_SIZE) -> Frame | None:
        """Read up to the end of the next frame and return it; return None at the end of the stream. Pass ``calls`` to
        ``commit``, too. ``size`` is the least number of bytes that the frame can have.

        Raises BlockingIOError when nothing more is there now (call again later, nothing is lost) or a signal handler
        has closed this, ProtocolError for data that is not a frame, EOFError when the stream ends inside a frame.
        """
        while True:
            read = [*calls]
            if read:
                found = _usual_frame(read) or _decode(read)
                if not isinstance(found, int):
                    return found
                size = found
            try:
                calls.call(len(read), map(self.sock.recvmsg, (size,), ALL_ROOM, FLAGS))
            except OSError as error:
                if error.errno != EBADF or self.sock.fileno() >= 0:
                    raise
                raise BlockingIOError(EAGAIN, "closed by a signal handler") from error

    def commit(self, calls: Once, *noted: tuple[object, dict[str, object]], replaced: int = -1) -> None:
        """Set these attributes of objects, and go on to the next frame: all in one step, and once for each frame.

        ``replaced`` is a descriptor to close in the same step. Nothing happens if the frame was dropped.
        """
        owners: list[object] = []
        names: list[str] = []
        values: list[object] = []
        for owner, attributes in noted:
            owners += [owner] * len(attributes)
            names += attributes
            values += attributes.values()
        steps = map(setattr, (*owners, self), (*names, "present"), (*values, Once()))
        calls.finish(chain(steps, map(close, (replaced,))) if replaced >= 0 else steps)

    def drop(self) -> None:
        """Drop the frame that was not noted yet, with its descriptors. A caller that this interrupts notes nothing."""
        calls = self.present
        fds = [fd for _, ancillary, _, _ in calls if ancillary for fd in unpack_descriptors(ancillary[0][2]) if fd >= 0]
        calls.finish(chain(map(setattr, (self,), ("present",), (Once(),)), map(close, fds)))

    def close(self) -> None:
        """Close the socket and the descriptors of an unfinished frame. Closing twice is harmless."""
        self.drop()
        self.sock.close()


def _usual_frame(read: Sequence[Read]) -> Frame | int:
    """Return the frame whose header, and perhaps its body, were read, or how many bytes to read next; 0 if only a
    decoder can tell.
    """
    data, ancillary, _, _ = read[0]
    if len(read) > 1:
        more, others, _, _ = read[1]
        if not more or others or len(read) > 2:
            return 0
        data += more
    return usual_frame(data, unpack_descriptors(ancillary[0][2]) if ancillary else ())


def _decode(read: Sequence[Read]) -> Frame | int | None:
    """Return the frame that was read, how many bytes of it to read next, or None at the end of the stream."""
    decoder = Decoder()
    for data, ancillary, flags, _ in read:
        if not data:
            if decoder.idle:
                return None
            raise EOFError("the stream ended in the middle of a frame")
        fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        frame, rest = decoder.feed(data[:HEADER_SIZE], fds, flags & TRUNCATED != 0), data[HEADER_SIZE:]
        while frame is None and rest:
            size = decoder.wanted
            frame, rest = decoder.feed(rest[:size]), rest[size:]
        if rest:
            raise ProtocolError("a frame that is shorter than it can be")
        if frame is not None:
            return frame
    return decoder.wanted
