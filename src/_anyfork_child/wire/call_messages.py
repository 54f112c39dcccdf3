"""The wire format of calls, on the channel of a worker, used by both sides. No I/O here.

A message is a header (little endian: u32 length of the body, u32 number of the call, u32 detail, u8 kind, u8 flags, u16
count of descriptors) and its body. The descriptors go with its first byte: first those among the values, then one file
for each large buffer, then a file with the body if it is too long for the socket (IN_FILE). In a message with files,
bytes of the body after the pickle are filler, and so is the whole body if the pickle is in a file. A reader takes all
bytes that have arrived, so that many messages need one system call: only messages travel on this socket.
"""

from __future__ import annotations

from _struct import Struct

from .frames import LOST_DESCRIPTOR, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, TypeAlias

    # Kind, number of the call, detail, flags, body, descriptors.
    Message: TypeAlias = tuple[int, int, int, int, bytes, Sequence[int]]

# The fields of a message, for code that does not unpack it.
KIND: Final = 0
NUMBER: Final = 1
DETAIL: Final = 2
FLAGS: Final = 3
BODY: Final = 4
FDS: Final = 5
TIME = 1  # bits: the time of a call is in a result's detail, above the lowest bit
VERSION = 1  # of this format and of the meaning of messages
HEADER = Struct("<IIIBBH")
HEADER_SIZE = HEADER.size
unpack = HEADER.unpack_from
MAX_BODY = 1 << 20  # bytes of a body that is not in a file: more than this side ever sends
MAX_IN_FILE = (1 << 32) - 1  # bytes of a body in a file, and of any body between two machines, where files cannot go
MAX_DESCRIPTORS = 253  # SCM_MAX_FD: all descriptors of a message go with one byte
READ_SIZE = 16 << 10  # bytes to read at once: each larger read would allocate memory from the system and return it

# Owner to worker. The detail of CALL and STREAM is the number of the function, 0 for one among the values; the detail
# of FUNCTION is the number for the function of this name; that of MORE is the number of further items that a stream may
# send. A SMALL_CALL is a call whose arguments are plain (see values.scalars); SMALL_CALLS are several calls of one
# argument each: a plain pickle of their numbers and of their arguments. MEASURE asks for the size of the worker, by the
# kind of memory in its detail; its RESULT is 8 bytes. VALUE is the pickled function of this number itself: it is
# decoded once, or, with FRESH in the detail, anew for each call, as if it had come with the call. FORGET announces that
# no call of the function of this number follows.
CALL, STREAM, FUNCTION, MORE, CANCEL, SMALL_CALL, SMALL_CALLS, MEASURE, VALUE, FORGET = range(1, 11)
FRESH = 1
# Owner to a worker of a pool, in addition (see worker.job_loop). SMALL_KEYWORDS is a SMALL_CALL with a pair of
# positional and keyword arguments, KEYWORDS a CALL with such a pair; ITEMS are several calls with consecutive numbers:
# a plain pickle of a list of their arguments; CHUNKS are the same with a list of chunks, which are lists of arguments,
# and CHUNK is one chunk, encoded as the arguments of a CALL are. HELD, in the detail of a message that begins a call,
# means that the call needs a permit to begin. A worker of a pool gets neither STREAM nor SMALL_CALLS.
SMALL_KEYWORDS, ITEMS, CHUNKS, KEYWORDS, CHUNK = range(16, 21)
HELD = 1 << 31
# Worker to owner. The detail of READY is the VERSION, the detail of ERROR the kind of failure. The detail of a value
# is 0 for a plain value, 1 for a pickle of a tuple with it; a worker of a pool adds twice the time that the call
# took, in units of 1024 ns. LOG is a log record, as JSON, with the number of the call that made it.
READY, RESULT, ERROR, EVENT, ITEM, END, CANCELLED, FAILED, RETIRE, LOG = range(32, 42)
KINDS = frozenset((*range(1, 11), *range(16, 21), *range(32, 42)))
RAISED, NO_FUNCTION, BAD_ARGUMENT, BAD_RESULT = range(4)  # details of ERROR
IN_FILE = 0x80  # flag: the last descriptor is a file with the body
BUFFERS = 0x7F  # the other bits: the number of large buffers

STREAM_WINDOW = 16  # items that a stream may send ahead of its reader


class Inbox:
    """A parser that cuts the bytes of a socket into messages, whose bodies have at most ``limit`` bytes."""

    __slots__ = ("_limit", "_missing", "_parts", "_sets")

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._limit = limit
        self._parts: list[bytes] = []  # the pieces of an incomplete message
        self._missing = 0  # bytes that its header, or then the message, still lacks
        self._sets: list[Sequence[int]] = []  # descriptors, by message

    @property
    def idle(self) -> bool:
        """True between two messages, the only place where the stream may end."""
        return not self._parts

    def take(self, data: bytes, fds: Sequence[int] = (), truncated: bool = False) -> list[Message]:
        """Take bytes, and the descriptors that came with them; return the messages that are complete.

        ``truncated`` means that some of the descriptors were lost (MSG_CTRUNC). Raises ProtocolError for malformed
        messages.
        """
        if truncated:
            fds = [*fds, *[LOST_DESCRIPTOR] * (MAX_DESCRIPTORS - len(fds))]
        if fds:
            self._sets.append(fds)
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                self._check_sets(1)
                return []
            data, self._parts = b"".join(self._parts), []
        at, end, limit = 0, len(data), self._limit
        found: list[Message] = []
        while end - at >= HEADER_SIZE:
            length, number, detail, kind, flags, count = unpack(data, at)
            if kind not in KINDS or length > limit or (flags and count < (flags >> 7) + (flags & BUFFERS)):
                raise ProtocolError(f"a message of kind {kind}, {length} bytes, {count} descriptors, flags {flags}")
            start = at + HEADER_SIZE
            stop = start + length
            if stop > end:
                self._missing = stop - end
                break
            found.append((kind, number, detail, flags, data[start:stop], self._descriptors(count) if count else ()))
            at = stop
        else:
            self._missing = HEADER_SIZE - (end - at)
        if at < end:
            self._parts.append(data[at:])
        self._check_sets(at < end)
        return found

    def _check_sets(self, beginnings: int) -> None:
        if len(self._sets) > beginnings:
            raise ProtocolError("received descriptors that no message has announced")

    def _descriptors(self, count: int) -> Sequence[int]:
        fds = self._sets.pop(0) if self._sets else ()
        if len(fds) > count and fds[-1] == LOST_DESCRIPTOR:
            fds = fds[:count]
        if len(fds) != count:
            self._sets.insert(0, fds)
            raise ProtocolError(f"received {len(fds)} descriptors instead of the {count} announced")
        return fds

    def unclaimed(self) -> list[int]:
        """Return the descriptors of unfinished messages, which a reader that gives up must close."""
        sets, self._sets = self._sets, []
        return [fd for fds in sets for fd in fds if fd >= 0]
