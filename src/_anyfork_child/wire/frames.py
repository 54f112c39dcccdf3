"""The frames that an owner and its processes exchange: bytes and descriptor counts, no I/O.

A frame is a header of 16 bytes and a body:

    version: u8 | kind: u8 | descriptors: u16 | length of the body: u32 | value: i64      (little endian)

Descriptors travel by SCM_RIGHTS beside the bytes, at most 253 a message, which is the kernel's limit (SCM_MAX_FD).
The first 253 come with the header, every further group with a filler byte of its own between header and body.
``value`` is one integer whose meaning depends on the kind: a pid, the length of a name, or the size of the file that
carries the body.

Readers must not read past the end of a frame, because the bytes after ENTERED are the user's own protocol. So a reader
first asks the :class:`Decoder` how many bytes it wants, and feeds it at most that many.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1
HEADER = Struct("<BBHIq")
HEADER_SIZE = HEADER.size
MAX_BODY = (
    1 << 20
)  # bytes. Longer bodies travel in a file (IN_FILE); the limit bounds what a broken peer makes us hold.
MAX_DESCRIPTORS = 0xFFFF  # the limit of the header's field
DESCRIPTORS_A_MESSAGE = 253  # SCM_MAX_FD of Linux; macOS allows more
FILLER = b"\0"
LOST_DESCRIPTOR = -1

# Owner to process.
INIT, FORK, PRELOAD, EXECUTE, PREPARE, SEND, PING = range(1, 8)
START, PROGRAM, REVOKE, CLOSE, DETACH, ADOPT, SIGNAL, TRACK, IMMORTALIZE, FORK_PROGRAM = range(8, 18)
# Process to owner, on the control socket.
READY, ENTERED, EXECUTING, FAILED, LOST, ADOPTED, IMPORTED = range(32, 39)
# Template to owner, on the status socket of one process.
BORN, DIED, NOTED, BORN_AS_PROGRAM = range(48, 52)
KINDS = frozenset((*range(1, 18), *range(32, 39), *range(48, 52)))
# FORK_PROGRAM is a FORK of a process whose socket already holds the PROGRAM that takes it over.
COMPILED, IN_PYTHON = b"compiled", b"python"  # the body of READY: which part serves the template
# IMPORTED precedes ENTERED if the module of the function, its body, had to be imported; its value is the time in ns.
# NOTED carries a text for the log of the owner about the template whose pid is its value.
# BORN_AS_PROGRAM is BORN after FORK_PROGRAM, of a process that has executed its program already.
# Bits of the value of FORK: the process outlives the owner; the kernel tells it of the owner's end (see
# wire.lifeline); it executes an interpreter; nobody waits for it yet.
DETACHED, FOLLOWED, EXECUTES, SPARE = 1, 2, 4, 8
# The body of DIED: the status of waitpid and the sixteen fields of struct rusage in their order, followed by the text
# of an error in UTF-8.
DEATH = Struct("<idd14q")
CHANNEL = "channel"  # as stdin, stdout or stderr: the process's channel, connected when the function is entered
NO_LIMIT = -1  # as a limit of resources: RLIM_INFINITY, which was -1 before Python 3.15 and is positive since
AS_STDOUT = "stdout"  # as stderr: what stdout is
STDIO = ("stdin", "stdout", "stderr")
FORK_DESCRIPTORS = 3  # in every FORK: control socket, status socket, lifeline. The descriptors of attributes follow
IN_FILE = 0x80  # flag on a kind: the last descriptor is a file that holds the body, ``value`` is its size in bytes


class ProtocolError(Exception):
    """Raised when the bytes from a socket are not a frame of this version."""


class Frame:
    """A frame: its kind, its integer, its body, and the descriptors that came with it."""

    __slots__ = ("body", "fds", "kind", "value")

    def __init__(self, kind: int, value: int = 0, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        self.kind = kind
        self.value = value
        self.body = body
        self.fds = fds

    def __repr__(self) -> str:
        return f"<Frame kind={self.kind} value={self.value} body={len(self.body)} fds={list(self.fds)}>"


def messages(frame: Frame) -> list[tuple[bytes, Sequence[int]]]:
    """Split a frame for sending: into pairs of bytes and the at most 253 descriptors that go with their first byte.

    Raises ProtocolError if the frame exceeds a limit of the format.
    """
    fds, body = frame.fds, frame.body
    count, length = len(fds), len(body)
    if length > MAX_BODY or count > MAX_DESCRIPTORS:
        raise ProtocolError(
            f"a frame of {length} bytes and {count} descriptors; at most {MAX_BODY} and {MAX_DESCRIPTORS} fit"
        )
    header = HEADER.pack(VERSION, frame.kind, count, length, frame.value)
    if count <= DESCRIPTORS_A_MESSAGE:
        return [(header + body, fds)]
    cuts = range(DESCRIPTORS_A_MESSAGE, len(fds), DESCRIPTORS_A_MESSAGE)
    parts = [(header, fds[:DESCRIPTORS_A_MESSAGE])]
    parts += [(FILLER, fds[at : at + DESCRIPTORS_A_MESSAGE]) for at in cuts]
    return [*parts, (body, ())] if body else parts


def usual_frame(data: bytes, fds: Sequence[int]) -> Frame | int:
    """Return the frame that begins with ``data``, or how many bytes of it are missing.

    Return 0 for anything that needs a Decoder: a part of a header, more descriptors than one message carries, lost
    descriptors, a body in a file, and errors.
    """
    if len(data) < HEADER_SIZE:
        return 0
    version, kind, count, length, value = HEADER.unpack_from(data)
    missing = HEADER_SIZE + length - len(data)
    if version != VERSION or kind not in KINDS or count != len(fds) or length > MAX_BODY or missing < 0:
        return 0
    return missing or Frame(kind, value, data[HEADER_SIZE:], fds)


def wipe(data: bytes | bytearray) -> None:
    """Overwrite the body of a FORK frame, or a part of it."""
    if type(data) is bytearray:
        data[:] = bytes(len(data))


class Decoder:
    """A parser that cuts a stream into frames without ever requesting a byte after the end of a frame.

    ``wanted`` is the number of bytes that may be read next. ``fds`` are the descriptors of the unfinished frame; the
    user of a decoder must close them when dropping it. A descriptor that the receiving kernel could not install appears
    as LOST_DESCRIPTOR, and the stream goes on.
    """

    _kind = 0  # 0 until the header is complete
    _count = 0
    _length = 0
    _value = 0
    _buffer: bytes | bytearray = b""  # first of the header, then of the body
    _truncated = False
    fds: Sequence[int] = ()
    wanted = HEADER_SIZE

    @property
    def in_attributes(self) -> bool:
        """True inside a frame whose body is the attributes of a process."""
        return self._kind in (FORK, FORK_PROGRAM)

    @property
    def idle(self) -> bool:
        """True between two frames, the only place where a stream may end."""
        return not (self._kind or self._buffer or self.fds)

    def feed(self, data: bytes | bytearray, fds: Sequence[int] = (), truncated: bool = False) -> Frame | None:
        """Take at most ``wanted`` bytes and the descriptors that came with them; return the frame they complete.

        ``truncated`` means that some of the descriptors were lost (MSG_CTRUNC). Raises ProtocolError for a wrong
        version, an unknown kind, a size above the limits, or descriptors other than the announced ones.
        """
        before = len(self.fds)
        if fds:
            self.fds = [*self.fds, *fds]
        if self._kind:
            self._continue(data, before, truncated)
        else:
            # Not a function of its own: every process runs this once, and calls cost it page faults.
            if self._buffer:
                data = self._buffer + data
            if truncated:
                self._truncated = True
            if len(data) < HEADER_SIZE:
                self._buffer, self.wanted = data, HEADER_SIZE - len(data)
                return None
            version, kind, self._count, self._length, self._value = HEADER.unpack(data)
            if version != VERSION or kind & ~IN_FILE not in KINDS or self._length > MAX_BODY:
                raise ProtocolError(
                    f"a frame of version {version}, kind {kind} and {self._length} bytes; this side speaks "
                    f"{VERSION} and takes at most {MAX_BODY} bytes"
                )
            if kind & IN_FILE and (not self._count or self._value < 0):
                raise ProtocolError("a frame without the file that holds its body")
            self._kind, self._buffer = kind, b""
            if self._truncated:
                self._fill(DESCRIPTORS_A_MESSAGE)
            if len(self.fds) > self._count:
                raise ProtocolError(f"received {len(self.fds)} descriptors instead of the {self._count} announced")
        if len(self.fds) < self._count:
            self.wanted = 1
        elif len(self._buffer) < self._length:
            self.wanted = self._length - len(self._buffer)
        else:
            frame = Frame(self._kind, self._value, self._buffer, self.fds)  # type: ignore[arg-type]  # see channel.wipe
            self._kind, self._buffer, self.fds, self.wanted, self._truncated = 0, b"", (), HEADER_SIZE, False
            return frame
        return None

    def _continue(self, data: bytes | bytearray, before: int, truncated: bool) -> None:
        """Take bytes after the header: a filler with more of the announced descriptors, or bytes of the body."""
        if truncated:
            self._fill(before + DESCRIPTORS_A_MESSAGE)
        expected = before < self._count
        if len(self.fds) > self._count or expected != (len(self.fds) > before):
            raise ProtocolError(f"received {len(self.fds)} descriptors instead of the {self._count} announced")
        if expected:
            return
        first, self._buffer = self._buffer, self._buffer + data if self._buffer else data
        if first:
            wipe(first)
            wipe(data)

    def _fill(self, end: int) -> None:
        """Add LOST_DESCRIPTOR for the descriptors of one message that did not arrive."""
        self.fds = [*self.fds, *[LOST_DESCRIPTOR] * (min(end, self._count) - len(self.fds))]
