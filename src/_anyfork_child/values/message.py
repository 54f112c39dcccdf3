"""Messages of calls on their way out, with the descriptors and files that go with them. Used by both sides."""

from __future__ import annotations

from os import close as close_descriptor

from ..wire.call_messages import BUFFERS, HEADER, IN_FILE, MAX_DESCRIPTORS, MAX_IN_FILE
from ..wire.channel import close_all
from ..wire.descriptors import duplicate
from ..wire.frames import LOST_DESCRIPTOR
from ..wire.memory_files import new_file, seal, take, write_stepwise
from .decode import DescriptorsLostError, load_values
from .encode import INLINE, CannotTravelError, Encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from _typeshed import ReadableBuffer


PIECE = 1 << 20  # bytes written at once, where somebody has other things to do too
WEIGHT = 3  # of the size of a message in files one part in 1 << WEIGHT goes over the socket, up to INLINE


class Owned:
    """A descriptor that is closed with the last reference to this object, in whichever thread that goes."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = close_descriptor) -> None:  # which goes last at exit
        close(self.fd)


class Message:
    """Bytes, the descriptors that go with the first of them, and the files among those that have to be written before.

    A message holds references to the descriptors that were made for it, and drops them when it has been sent or is
    given up (``close``). A job and the messages that are on their way for it share them: as long as one of them can
    still be sent, no number can have come to mean another file.
    """

    __slots__ = ("_holders", "_owned", "data", "fds", "fills", "size")

    def __init__(self, data: bytes, fds: Sequence[int] = ()) -> None:
        self.data: bytes | memoryview = data
        self.fds = fds
        self.fills: Sequence[tuple[int, Sequence[ReadableBuffer]]] = ()
        self.size = len(data)
        self._owned: Sequence[Owned] = ()
        self._holders: object = None  # what the other descriptors belong to

    def again(self, data: bytes) -> Message:
        """Make another message with the same descriptors, whose files have been written, and other bytes."""
        other = Message(data, self.fds)
        other._owned = self._owned
        other._holders = self._holders
        return other

    def hold(self, holders: object) -> None:
        """Keep what the descriptors belong to, or they would be closed with it."""
        self._holders = holders

    def keep(self) -> None:
        """It has to wait: take copies of the descriptors, whose owners may close them meanwhile. Raises OSError."""
        if self._holders is None:
            return
        ours = {one.fd for one in self._owned}
        owned = list(self._owned)
        fds: list[int] = []
        for fd in self.fds:
            if fd not in ours:
                fd = duplicate(fd)
                owned.append(Owned(fd))
            fds.append(fd)
        self._owned, self.fds, self._holders = owned, fds, None

    def add_file(self, parts: Sequence[ReadableBuffer], size: int) -> int:
        """Have these bytes go in a file; return its descriptor. Raises OSError."""
        fd = new_file()
        self._owned = [*self._owned, Owned(fd)]
        self.fills = [*self.fills, (fd, parts)]
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
        self.fills = ()

    def write_files(self) -> None:
        """The same at once."""
        for _ in self.write_stepwise():
            pass

    def close(self) -> None:
        """Let go of what was made for it. Nothing of it can be sent any more."""
        self.fds = self._owned = ()
        self._holders = None


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


def decode_values(flags: int, body: bytes, fds: Sequence[int]) -> Any:
    """What a pickled body means, with its descriptors, its large buffers and its file. Raises what decoding raises."""
    if not fds:
        return load_values(body, -1, (), ()) if body else ()
    if LOST_DESCRIPTOR in fds:
        close_all(fds)
        raise DescriptorsLostError
    file = fds[-1] if flags & IN_FILE else -1
    beside = flags & BUFFERS
    end = len(fds) - (file >= 0)
    first = end - beside
    return load_values(body, file, fds[:first], [take(fd) for fd in fds[first:end]])


def in_pieces(*pieces: bytes) -> Encoded:
    """Bytes as a body."""
    encoded = Encoded()
    for piece in pieces:
        encoded.write(piece)
    return encoded
