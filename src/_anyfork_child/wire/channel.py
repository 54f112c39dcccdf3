"""One end of a stream socket over which frames and descriptors travel, in the owner and in its processes.

``_socket.socket`` and not ``socket.socket``: importing the latter doubles the start of an interpreter, and making one
costs a new process some 20 page faults more.
"""

from __future__ import annotations

import _socket
from _struct import Struct
from errno import ENOBUFS, ENOMEM
from os import close
from sys import byteorder
from time import sleep

from .frames import DESCRIPTORS_A_MESSAGE, HEADER_SIZE, Decoder, Frame, messages
from .own_imports import import_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Sequence

RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
ROOM = _socket.CMSG_SPACE(DESCRIPTORS_A_MESSAGE * 4)
CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)  # macOS has none
NOSIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
NOWAIT = _socket.MSG_DONTWAIT
WAITALL = _socket.MSG_WAITALL
TRUNCATED = _socket.MSG_CTRUNC


unpack_three = Struct("3i").unpack
SHORTAGE = 0.01  # seconds until the kernel may have memory again


def wait_for_memory(error: OSError) -> None:
    """Wait a moment before a call that failed because the kernel has no memory is made again. Raises other errors."""
    if error.errno not in (ENOMEM, ENOBUFS):
        raise error
    sleep(SHORTAGE)


def receive_body(sock: _socket.socket, length: int) -> bytes:
    """Read a body whose header has been read, so that it cannot be put off; at the end of the stream it is shorter."""
    while True:
        try:
            return sock.recv(length, WAITALL)
        except OSError as error:
            wait_for_memory(error)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that are ours; those that were lost on the way are passed over."""
    for fd in fds:
        if fd >= 0:
            close(fd)


def pack_descriptors(fds: Sequence[int]) -> bytes:
    """The descriptors as the C array that SCM_RIGHTS carries."""
    if len(fds) == 1:  # as in every birth: making or using a Struct costs the template page faults
        return fds[0].to_bytes(4, byteorder)
    return Struct(f"{len(fds)}i").pack(*fds)


def unpack_descriptors(data: bytes) -> Sequence[int]:
    """The descriptors in what SCM_RIGHTS brought; a partial one at the end is cut off, as the kernel may cut it."""
    if len(data) == 12:  # as in every request for a fork
        return unpack_three(data)
    count = len(data) // 4
    return Struct(f"{count}i").unpack_from(data)


class Channel:
    """Reads and writes whole frames on one socket.

    ``flags`` is MSG_DONTWAIT for an end that must not block and 0 for one that may. ``wanted`` is how many bytes may be
    read next; ``whole`` says that they begin a frame.
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

        Raises BlockingIOError when nothing more is there now (call again later, nothing is lost), ProtocolError for
        what is no frame, EOFError when the stream ends inside one.
        """
        data, ancillary, got, _ = self.sock.recvmsg(self.wanted, ROOM, flags | CLOEXEC)
        fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        return self.complete(data, fds, got, flags)

    def complete(self, data: bytes, fds: Sequence[int], got: int, flags: int) -> Frame | None:
        """Go on from what recvmsg has brought, as ``receive``."""
        decoder = self._decoder
        while data:
            frame = decoder.feed(data, fds, got & TRUNCATED != 0)
            self.wanted = decoder.wanted
            self.whole = frame is not None
            if frame is not None:
                return frame
            data, ancillary, got, _ = self.sock.recvmsg(decoder.wanted, ROOM, flags | CLOEXEC)
            fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        if decoder.idle:
            return None
        raise EOFError("the stream ended in the middle of a frame")

    def send(self, frame: Frame) -> None:
        """Write one frame and wait until the socket has taken it. The descriptors stay open here."""
        for data, fds in messages(frame):
            sent = send_some(self.sock, data, fds, 0) if fds else 0
            self.sock.sendall(data[sent:] if sent else data, NOSIGNAL)

    def close(self) -> None:
        """Close the socket and what an unfinished frame brought. Closing twice is harmless."""
        fds, self._decoder.fds = self._decoder.fds, ()
        close_all(fds)
        self.sock.close()


def public_socket(sock: _socket.socket) -> _socket.socket:
    """The same socket as an object of the socket module, which user code expects."""
    public: socket.socket = import_own("socket").socket(sock.family, sock.type, sock.proto, sock.detach())
    return public


def is_patched() -> bool:
    """Whether gevent or eventlet has replaced the class of sockets, so that public sockets are none of ours."""
    return not issubclass(import_own("socket").socket, _socket.socket)


def plain_socket(sock: socket.socket) -> _socket.socket:
    """Return a socket without what gevent and eventlet put around it: their methods wait, whatever the flags say."""
    if isinstance(sock, _socket.socket):
        return sock
    return _socket.socket(sock.family, sock.type, sock.proto, sock.detach())


def sending(sock: _socket.socket, data: bytes | memoryview, fds: Sequence[int], flags: int) -> Iterator[int]:
    """Return what sends as ``send_some`` does, and yields how many bytes were taken: no interrupt comes in between."""
    if fds:
        rights = [(*RIGHTS, pack_descriptors(fds))]
        return map(sock.sendmsg, ([data],), (rights,), (flags | NOSIGNAL,))
    return map(sock.send, (data,), (flags | NOSIGNAL,))


def send_some(sock: _socket.socket, data: bytes | memoryview, fds: Sequence[int], flags: int) -> int:
    """Send what the socket takes, the descriptors with the first byte; return how many bytes it took."""
    if fds:
        return sock.sendmsg([data], [(*RIGHTS, pack_descriptors(fds))], flags | NOSIGNAL)
    return sock.send(data, flags | NOSIGNAL)
