"""The bytes that two relays exchange over one connection, which carries many streams. No I/O here.

A message is a header (little endian: u8 kind, u32 number of the stream, u32 length of the body) and its body. A stream
stands for a socket at each end. It carries bytes both ways, and whole frames if descriptors belong to them. The
descriptor of a socket or pipe becomes a stream of its own on the other side; the content of a file is copied before the
frame (FILE).

Each side may send as many bytes on a stream as it has credit for, at first WINDOW_BYTES; it gets more credit when the
other side has written the bytes to the socket. So backpressure on one stream never stops another.
"""

from __future__ import annotations

from _struct import Struct

from ..wire.frames import HEADER_SIZE as FRAME_SIZE
from ..wire.frames import MAX_BODY as MAX_FRAME
from ..wire.frames import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Message: TypeAlias = tuple[int, int, bytes]  # kind, number of the stream, body

HEADER = Struct("<BII")
SIZE = HEADER.size
NUMBER = Struct("<I")
WINDOW_BYTES = 1 << 20  # bytes in flight on one stream: fills 80 Mbit/s at a round trip of 100 ms
PIECE = 64 << 10  # bytes to read and to send at once
MAX_STREAMS = 8  # streams that one frame may bring
MAX_BODY = FRAME_SIZE + MAX_STREAMS * NUMBER.size + MAX_FRAME

# Messages of a stream: bytes; a whole frame, with the numbers of the streams that it brings; a piece of the file of the
# next frame; the end of the sender's data; the end of the sender's reading; credit for more bytes.
DATA, FRAME, FILE, EOF, STOP, CREDIT = range(1, 7)
# Messages of the connection: a keep-alive; the orderly end.
BEAT, BYE = range(7, 9)

pack, unpack_from = HEADER.pack, HEADER.unpack_from


def message(kind: int, number: int, body: bytes = b"") -> bytes:
    """Return the bytes of one message."""
    return pack(kind, number, len(body)) + body


def credit(number: int, count: int) -> bytes:
    """Return the message that gives credit for ``count`` more bytes."""
    return message(CREDIT, number, NUMBER.pack(count))


class MessageDecoder:
    """A parser that cuts the bytes of a connection into messages."""

    __slots__ = ("_rest",)

    def __init__(self, rest: bytes = b"") -> None:
        self._rest = rest

    def take(self, data: bytes) -> list[Message]:
        """Take bytes; return the messages that are complete. Raises ProtocolError for malformed messages."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        found: list[Message] = []
        while end - at >= SIZE:
            kind, number, length = unpack_from(data, at)
            if not DATA <= kind <= BYE or length > MAX_BODY:
                raise ProtocolError(f"a message of kind {kind} and {length} bytes")
            start = at + SIZE
            stop = start + length
            if stop > end:
                break
            found.append((kind, number, data[start:stop]))
            at = stop
        self._rest = data[at:]
        return found
