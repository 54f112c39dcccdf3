"""Messages of calls on their way out, with the descriptors and files that go with them. Used by both sides."""

from __future__ import annotations

import os

from ._call_wire import HEADER, IN_FILE, MAX_DESCRIPTORS, MAX_IN_FILE
from ._channel import close_all
from ._encoding import INLINE, CannotTravelError, Encoded
from ._files import new_file, seal, write_stepwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed import ReadableBuffer


PIECE = 1 << 20  # bytes written at once, where somebody has other things to do too
WEIGHT = 3  # of the size of a message in files one part in 1 << WEIGHT goes over the socket, up to INLINE


class Message:
    """Bytes, the descriptors that go with the first of them, and the files among those that have to be written before.

    ``close`` closes what was made for it, when it has been sent or is given up.
    """

    __slots__ = ("_holders", "_made", "data", "fds", "fills", "size")

    def __init__(self, data: bytes, fds: Sequence[int] = ()) -> None:
        self.data: bytes | memoryview = data
        self.fds = fds
        self.fills: list[tuple[int, Sequence[ReadableBuffer]]] = []
        self.size = len(data)
        self._made: list[int] = []
        self._holders: object = None  # what the other descriptors belong to

    def hold(self, holders: object) -> None:
        """Keep what the descriptors belong to, or they would be closed with it."""
        self._holders = holders

    def keep(self) -> None:
        """It has to wait: take copies of the descriptors, whose owners may close them meanwhile. Raises OSError."""
        if self._holders is None:
            return
        ours = set(self._made)
        copies: list[int] = []
        fds: list[int] = []
        try:
            for fd in self.fds:
                if fd not in ours:
                    copies.append(fd := os.dup(fd))
                fds.append(fd)
        except OSError:
            close_all(copies)
            raise
        self._made += copies
        self.fds, self._holders = fds, None

    def add_file(self, parts: Sequence[ReadableBuffer], size: int) -> int:
        """Have these bytes go in a file; return its descriptor. Raises OSError."""
        fd = new_file()
        self._made.append(fd)
        self.fills.append((fd, parts))
        self.size += size
        return fd

    def write_stepwise(self) -> Iterator[None]:
        """Write them, piece by piece, and seal them. Raises OSError; given up or failed, the message is closed."""
        try:
            for fd, parts in self.fills:
                yield from write_stepwise(fd, parts, PIECE)
                seal(fd)
        except BaseException:
            self.close()
            raise
        self.fills = []

    def write_files(self) -> None:
        """The same at once."""
        for _ in self.write_stepwise():
            pass

    def close(self) -> None:
        """Close the files that were made for it."""
        made, self._made = self._made, []
        close_all(made)


def message_of(kind: int, number: int, detail: int, encoded: Encoded, in_band: bool = False) -> Message:
    """The message that carries encoded values; its files are not written yet. Raises OSError, CannotTravelError.

    It goes ``in_band`` where the other side is on another machine: without descriptors, whatever its size.
    """
    if in_band:
        return _in_band(kind, number, detail, encoded)
    message = Message(b"")
    flags = len(encoded.buffers)
    fds = list(encoded.fds)
    try:
        fds += [message.add_file((buffer,), buffer.nbytes) for buffer in encoded.buffers]
        if encoded.size > INLINE:
            flags |= IN_FILE
            fds.append(message.add_file(encoded.pieces, encoded.size))
            body = b""
        else:
            body = b"".join(encoded.pieces)
        if len(fds) > MAX_DESCRIPTORS:
            raise CannotTravelError(f"{len(fds)} descriptors in one message; at most {MAX_DESCRIPTORS} can travel")
    except BaseException:
        message.close()
        raise
    if message.fills:  # a file weighs in the socket too, which stops whoever sends without being read
        body += bytes(min(message.size >> WEIGHT, INLINE - len(body)))
    message.data = HEADER.pack(len(body), number, detail, kind, flags, len(fds)) + body
    message.size += len(message.data)
    message.fds = fds
    if encoded.fds:
        message.hold(encoded.holders)
    return message


def _in_band(kind: int, number: int, detail: int, encoded: Encoded) -> Message:
    if encoded.fds:
        raise CannotTravelError("a descriptor cannot go to another machine")
    if encoded.size > MAX_IN_FILE:
        raise CannotTravelError(f"it has {encoded.size} bytes; at most {MAX_IN_FILE} can travel")
    return Message(b"".join((HEADER.pack(encoded.size, number, detail, kind, 0, 0), *encoded.pieces)))
