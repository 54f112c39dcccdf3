"""The channel: one end of a stream socket that carries frames and descriptors, in the owner and in its processes.

It uses ``_socket.socket``, not ``socket.socket``: importing the latter doubles the start time of an interpreter, and
making one costs a new process some 20 page faults more.
"""

from __future__ import annotations

import _socket
from _struct import Struct
from errno import ENOBUFS, ENOMEM, ETOOMANYREFS
from os import close
from sys import byteorder
from time import sleep

from .frames import DESCRIPTORS_A_MESSAGE, HEADER_SIZE, Decoder, Frame, messages, wipe
from .own_imports import import_own
from .platform import CLOEXEC, NOSIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Sequence

RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
ROOM = _socket.CMSG_SPACE(DESCRIPTORS_A_MESSAGE * 4)
NOWAIT = _socket.MSG_DONTWAIT
WAITALL = _socket.MSG_WAITALL
TRUNCATED = _socket.MSG_CTRUNC


unpack_three = Struct("3i").unpack
LATER = frozenset({ETOOMANYREFS, ENOBUFS, ENOMEM})  # errors of a kernel that takes the message later; no poll says when
SHORTAGE = 0.01  # seconds until the kernel may take what it has refused


def wait_for_memory(error: OSError) -> None:
    """Wait a moment before a retry of a call that the kernel refused for lack of memory. Raises other errors."""
    if not is_short_of_memory(error):
        raise error


def is_short_of_memory(error: Exception) -> bool:
    """Return whether the kernel refused a call for lack of memory; wait a moment then, before the retry."""
    if isinstance(error, OSError) and error.errno in LATER:
        sleep(SHORTAGE)
        return True
    return False


def receive_body(sock: _socket.socket, length: int) -> bytes:
    """Read a body whose header has been read; the read cannot be put off. The end of the stream makes it shorter."""
    while True:
        try:
            return sock.recv(length, WAITALL)
        except OSError as error:
            wait_for_memory(error)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors of our own; skip those that were lost on the way."""
    for fd in fds:
        if fd >= 0:
            close(fd)


def pack_descriptors(fds: Sequence[int]) -> bytes:
    """Return descriptors as the C array that SCM_RIGHTS carries."""
    if len(fds) == 1:  # the case of every fork: making or using a Struct costs the template page faults
        return fds[0].to_bytes(4, byteorder)
    return Struct(f"{len(fds)}i").pack(*fds)


def unpack_descriptors(data: bytes) -> Sequence[int]:
    """Return the descriptors in the data of SCM_RIGHTS, without a partial one that the kernel may leave at the end."""
    if len(data) == 12:  # the case of every request for a fork
        return unpack_three(data)
    count = len(data) // 4
    return Struct(f"{count}i").unpack_from(data)


class Channel:
    """A socket on which whole frames are read and written.

    ``flags`` is MSG_DONTWAIT for an end that must not block and 0 for one that may. ``wanted`` is the number of bytes
    that may be read next; ``whole`` is True if they begin a frame.
    """

    __slots__ = ("_decoder", "fd", "sock", "wanted", "whole")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.wanted = HEADER_SIZE
        self.whole = True
        self._decoder = Decoder()

    def receive(self, flags: int = 0) -> Frame | None:
        """Read one frame; None at the end of the stream.

        Raises BlockingIOError if no more bytes are available now (call again later, nothing is lost), ProtocolError for
        a malformed frame, EOFError if the stream ends inside a frame.
        """
        data, ancillary, got, _ = self.sock.recvmsg(self.wanted, ROOM, flags | CLOEXEC)
        fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        return self.complete(data, fds, got, flags)

    def complete(self, data: bytes | bytearray, fds: Sequence[int], got: int, flags: int) -> Frame | None:
        """Read one frame as ``receive`` does, beginning with the result of a call of recvmsg."""
        decoder = self._decoder
        while data:
            frame = decoder.feed(data, fds, got & TRUNCATED != 0)
            self.wanted = decoder.wanted
            self.whole = frame is not None
            if frame is not None:
                return frame
            data, ancillary, got = self._receive_more(flags)
            fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        if decoder.idle:
            return None
        raise EOFError("the stream ended in the middle of a frame")

    def _receive_more(self, flags: int) -> tuple[bytes | bytearray, list[tuple[int, int, bytes]], int]:
        """Read more of a frame: attributes, which may be secrets, into memory that ``wipe`` can overwrite."""
        decoder = self._decoder
        if not decoder.in_attributes:
            return self.sock.recvmsg(decoder.wanted, ROOM, flags | CLOEXEC)[:3]
        data = bytearray(decoder.wanted)
        size, ancillary, got, _ = self.sock.recvmsg_into([data], ROOM, flags | CLOEXEC)
        if size < len(data):  # a bytearray that shrinks may move, and leave a copy
            whole, data = data, data[:size]
            wipe(whole)
        return data, ancillary, got

    def send(self, frame: Frame) -> None:
        """Write one frame and wait until the socket has taken it. The descriptors stay open on this side."""
        for data, fds in messages(frame):
            send_all(self.sock, data, fds)

    def close(self) -> None:
        """Close the socket and the descriptors of an unfinished frame. Closing twice is harmless."""
        fds, self._decoder.fds = self._decoder.fds, ()
        close_all(fds)
        self.sock.close()


def public_socket(sock: _socket.socket) -> _socket.socket:
    """Return the same socket as an object of the socket module, which user code expects."""
    public: socket.socket = import_own("socket").socket(sock.family, sock.type, sock.proto, sock.detach())
    return public


def is_patched() -> bool:
    """Return whether gevent or eventlet has replaced the class of sockets, so that public sockets are not plain."""
    return not issubclass(import_own("socket").socket, _socket.socket)


def plain_socket(sock: socket.socket) -> _socket.socket:
    """Return a socket without the wrapper of gevent or eventlet, whose methods wait whatever the flags are."""
    if isinstance(sock, _socket.socket):
        return sock
    return _socket.socket(sock.family, sock.type, sock.proto, sock.detach())


def sending(sock: _socket.socket, data: bytes | memoryview, fds: Sequence[int], flags: int) -> Iterator[int]:
    """Return an iterator that sends as ``send_some`` does and yields the number of bytes that the socket took.

    It sends and yields in one step, so that no interrupt can separate the two.
    """
    if fds:
        rights = [(*RIGHTS, pack_descriptors(fds))]
        return map(sock.sendmsg, ([data],), (rights,), (flags | NOSIGNAL,))
    return map(sock.send, (data,), (flags | NOSIGNAL,))


def send_some(sock: _socket.socket, data: bytes | memoryview, fds: Sequence[int], flags: int) -> int:
    """Send as much as the socket takes, the descriptors with the first byte; return the number of bytes it took."""
    if fds:
        return sock.sendmsg([data], [(*RIGHTS, pack_descriptors(fds))], flags | NOSIGNAL)
    return sock.send(data, flags | NOSIGNAL)


def send_all(sock: _socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> None:
    """Send bytes, and the descriptors with the first of them; wait until the socket has taken them.

    The kernel refuses descriptors if too many are unread, and bytes if its memory is short. Unlike a full socket,
    that has no event to wait for: retry until it is over.
    """
    while data:
        try:
            sent = send_some(sock, data, fds, 0) if fds else sock.send(data, NOSIGNAL)
        except OSError as error:
            wait_for_memory(error)
        else:
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            fds = ()
