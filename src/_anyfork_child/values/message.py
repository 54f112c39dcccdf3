"""Outgoing messages of calls, with their descriptors and files. Used by both sides."""

from __future__ import annotations

from ..wire.call_messages import BUFFERS, HEADER, IN_FILE, MAX_DESCRIPTORS, MAX_IN_FILE
from ..wire.channel import close_all
from ..wire.descriptors import Owned, duplicates
from ..wire.frames import LOST_DESCRIPTOR
from ..wire.memfd import new_file, seal, take, write_stepwise
from .decode import DescriptorsLostError, load_values
from .encode import INLINE, CannotTravelError, Encoded
from .remote_descriptors import check_none
from .scalars import PICKLED, load_scalars

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from _typeshed import ReadableBuffer


PIECE = 1 << 20  # bytes to write into a file in one step, between which the writer can do other things
WEIGHT = 3  # a message with files sends its size >> WEIGHT as filler over the socket, up to INLINE in all


class Message:
    """A message: bytes, the descriptors sent with the first byte, and the files among them to write before sending.

    A message holds references to the descriptors that were made for it, and drops them when it has been sent or is
    given up (``close``). A job and its queued messages share these references: while one of the messages can still be
    sent, no descriptor number can be reused for another file.
    """

    __slots__ = ("_holders", "_owned", "data", "fds", "fills", "size")

    def __init__(self, data: bytes, fds: Sequence[int] = ()) -> None:
        self.data: bytes | memoryview = data
        self.fds = fds
        self.fills: Sequence[tuple[int, Sequence[ReadableBuffer]]] = ()
        self.size = len(data)
        self._owned: Sequence[Owned] = ()
        self._holders: object = None  # the objects that the other descriptors belong to

    def again(self, data: bytes) -> Message:
        """Return another message with the same descriptors, whose files have been written, and other bytes."""
        other = Message(data, self.fds)
        other._owned = self._owned
        other._holders = self._holders
        return other

    def hold(self, holders: object) -> None:
        """Keep the objects that the descriptors belong to, because dropping them would close the descriptors."""
        self._holders = holders

    def keep(self) -> None:
        """Duplicate the descriptors, because the message must wait and their owners may close them meanwhile.

        Raises OSError.
        """
        if self._holders is None:
            return
        ours = {fd for one in self._owned for fd in one.fds}
        theirs = [fd for fd in self.fds if fd not in ours]
        self._owned = [*self._owned, Owned(duplicates(theirs))]  # in no local variable, see ``close``
        copies = dict(zip(theirs, self._owned[-1].fds, strict=True))
        self.fds, self._holders = [copies.get(fd, fd) for fd in self.fds], None

    def add_file(self, parts: Sequence[ReadableBuffer], size: int) -> int:
        """Add a file for these bytes; return its descriptor. Raises OSError."""
        self._owned = [*self._owned, new_file()]  # in no local variable, see ``close``
        fd = self._owned[-1].fd
        self.fills = [*self.fills, (fd, parts)]
        self.size += size
        return fd

    def write_stepwise(self) -> Iterator[None]:
        """Write the files, piece by piece, and seal them. Raises OSError.

        Closes the message if the writing fails or the iterator is closed before its end.
        """
        try:
            for fd, parts in self.fills:
                yield from write_stepwise(fd, parts, PIECE)
                seal(fd)
        except BaseException:
            self.close()
            raise
        self.fills = ()

    def write_files(self) -> None:
        """Write and seal the files at once. Raises OSError, and closes the message then."""
        for _ in self.write_stepwise():
            pass

    def close(self) -> None:
        """Drop the references to descriptors. The message cannot be sent any more.

        This closes them at once after an interrupt, too, unless a frame in its traceback refers to them.
        """
        self.fds = self._owned = ()
        self._holders = None


def message_of(kind: int, number: int, detail: int, encoded: Encoded, *, remote: bool = False) -> Message:
    """Return the message that carries encoded values; its files are not written yet. Raises OSError, CannotTravelError.

    A message to another machine (``remote``) goes without descriptors, whatever its size.
    """
    if remote:
        return _message_without_descriptors(kind, number, detail, encoded)
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
        if message.fills:  # filler makes the file count in the socket's buffer: backpressure where nobody reads
            body += bytes(min(message.size >> WEIGHT, INLINE - len(body)))
        message.data = HEADER.pack(len(body), number, detail, kind, flags, len(fds)) + body
        message.size += len(message.data)
        message.fds = fds
        if encoded.fds:
            message.hold(encoded.holders)
        return message
    except BaseException:
        message.close()
        raise


def _message_without_descriptors(kind: int, number: int, detail: int, encoded: Encoded) -> Message:
    check_none(encoded)
    if encoded.size > MAX_IN_FILE:
        raise CannotTravelError(f"it has {encoded.size} bytes; at most {MAX_IN_FILE} can travel")
    return Message(b"".join((HEADER.pack(encoded.size, number, detail, kind, 0, 0), *encoded.pieces)))


def decode_values(flags: int, body: bytes, fds: Sequence[int]) -> Any:
    """Decode a pickled body with its descriptors, its large buffers and its file, or one of scalars.

    Raises DescriptorsLostError, and any exception that the decoding raises.
    """
    if not fds:
        if body and body[0] != PICKLED:
            return load_scalars(body)
        return load_values(body, -1, (), ()) if body else ()
    if LOST_DESCRIPTOR in fds:
        close_all(fds)
        raise DescriptorsLostError
    file = fds[-1] if flags & IN_FILE else -1
    out_of_band = flags & BUFFERS
    end = len(fds) - (file >= 0)
    first = end - out_of_band
    return load_values(body, file, fds[:first], [take(fd) for fd in fds[first:end]])


def in_pieces(*pieces: bytes) -> Encoded:
    """Return pieces of bytes as an encoded body."""
    encoded = Encoded()
    for piece in pieces:
        encoded.write(piece)
    return encoded
