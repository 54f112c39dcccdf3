"""A stream at this end of a connection: its socket, the queue of bytes to write there, and the credit for sending.

Runs in relays. The other end of the socket belongs to the owner in the local relay, to a process in the remote one.
"""

from __future__ import annotations

import _socket
import os
from collections import deque
from select import POLLIN, POLLOUT

from ..wire.channel import NOWAIT, Channel, close_all, is_short_of_memory, send_some
from ..wire.descriptors import duplicate
from ..wire.frames import messages
from ..wire.memfd import new_file
from ..wire.platform import NOSIGNAL
from .protocol import WINDOW_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..wire.frames import Frame


CONTROL, STATUS, PLAIN = range(3)  # the roles of streams; the first two carry frames, in the order of a FORK frame


def _new_file() -> int:
    file = new_file()
    return duplicate(file.fd)  # frames with plain numbers of descriptors go through relays


class RelayFile:
    """A file that is being sent, piece by piece; ``behind`` is the message of its frame, which follows it."""

    __slots__ = ("_at", "_fd", "_size", "behind")

    def __init__(self, fd: int, size: int, behind: bytes) -> None:
        self._fd = fd
        self._at = 0
        self._size = size
        self.behind = behind

    def read(self, size: int) -> bytes:
        """Return the next piece, of at most ``size`` bytes; no bytes at the end."""
        piece = os.pread(self._fd, min(size, self._size - self._at), self._at)
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """Close the file, sent or not."""
        os.close(self._fd)


class RelayPipe:
    """The reading end of a pipe, with those methods of a socket that a stream uses."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def recv_into(self, room: memoryview, size: int, _flags: int) -> int:
        """Read available bytes into ``room``; return their number. Raises BlockingIOError."""
        return os.readv(self._fd, (room[:size],))

    def send(self, _data: bytes, _flags: int) -> int:
        """Raise BrokenPipeError: a reading end takes no bytes."""
        raise BrokenPipeError

    def shutdown(self, how: int) -> None:
        """Do nothing: a pipe has only one direction."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class RelayStream:
    """A stream, at one end of a connection.

    ``credit`` is the number of bytes that may be sent now, ``owed`` the number written to the socket but not yet
    returned to the other side as credit. ``channel`` reads frames while the socket delivers frames, and is None
    otherwise; ``answers`` is True while frames are written to the socket. ``reads`` and ``writes`` are the directions
    still open. ``broken``: the reader of the socket has gone, and the other side has not been told.
    """

    __slots__ = (
        "_filling",
        "_queue",
        "answers",
        "broken",
        "channel",
        "credit",
        "fd",
        "file",
        "forks",
        "mask",
        "number",
        "owed",
        "queued",
        "reads",
        "role",
        "sock",
        "stops",
        "writes",
    )

    def __init__(self, number: int, sock: _socket.socket | RelayPipe, role: int) -> None:
        self.number = number
        self.role = role
        self.sock: Any = sock  # a Pipe has only the methods that are used
        self.fd = sock.fileno()
        self.channel = None if role == PLAIN or isinstance(sock, RelayPipe) else Channel(sock)
        self.answers = role != PLAIN
        self.credit = WINDOW_BYTES
        self.owed = 0
        self.reads = True
        self.writes = not isinstance(sock, RelayPipe)
        self.broken = False
        self.mask = -1  # the events that are watched; -1 if the descriptor is not watched
        self.file: RelayFile | None = None  # the file that is being sent; the socket is not read meanwhile
        self.forks = 0  # forks requested over this stream
        self.queued = 0  # bytes in the queue
        self._queue: deque[tuple[bytes | memoryview, Sequence[int]]] = deque()
        self._filling = -1  # the file that is being received
        self.stops = False  # whether to shut the socket once the queue is empty

    @property
    def interest(self) -> int:
        """The events to watch at the socket, or -1 for none: even its end would be reported again and again."""
        wanted = POLLOUT if self.queued else 0
        if self.reads and self.credit > 0 and self.file is None:
            return wanted | POLLIN
        return wanted or (-1 if self.reads else 0)

    @property
    def finished(self) -> bool:
        """True once both directions are closed."""
        return not (self.reads or self.writes)

    # --- Towards the socket ---

    def put(self, data: bytes) -> None:
        """Write as much of the bytes as the socket takes now; queue the rest."""
        if not self.writes:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self.sock.send(data, NOWAIT | NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError as error:
                if not is_short_of_memory(error):
                    self.give_up()
                    return
            self.owed += sent
            if sent == len(data):
                return
        self._queue.append((memoryview(data)[sent:], ()))
        self.queued += len(data) - sent

    def put_frame(self, frame: Frame) -> None:
        """Queue a frame and write what the socket takes now. Its descriptors are closed once they are sent."""
        for data, fds in messages(frame):
            self._queue.append((data, fds))
            self.queued += len(data)
        self.flush()

    def flush(self) -> None:
        """Write as much of the queue as the socket takes now."""
        queue = self._queue
        while queue:
            data, fds = queue[0]
            try:
                sent = send_some(self.sock, data, fds, NOWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if not is_short_of_memory(error):  # nobody reads there any more
                    self.give_up()
                    return
                continue
            close_all(fds)
            self.owed += sent
            self.queued -= sent
            if sent < len(data):
                queue[0] = memoryview(data)[sent:], ()
            else:
                queue.popleft()
        if self.stops:
            self.stop()

    def stop(self) -> None:
        """Shut the socket for writing once the queue is written: the other side sends nothing more."""
        self.stops = True
        if not self._queue and self.writes:
            self.writes = False
            self._shut(_socket.SHUT_WR)

    def give_up(self) -> None:
        """Drop the queue and write no more, because nobody reads at the other end of the socket."""
        self.broken = self.broken or self.writes
        self.writes = False
        for _, fds in self._queue:
            close_all(fds)
        self._queue.clear()
        self.queued = 0

    def fill(self, piece: bytes) -> None:
        """Take a piece of the file that belongs to the next frame."""
        if self._filling < 0:
            self._filling = _new_file()
        at = 0
        while at < len(piece):
            at += os.write(self._filling, memoryview(piece)[at:])
        self.owed += len(piece)

    def take_file(self) -> int:
        """Return the descriptor of the received file, which is complete; an empty file if no piece has come."""
        fd, self._filling = self._filling, -1
        return fd if fd >= 0 else _new_file()

    # --- From the socket ---

    def refuse(self) -> None:
        """Stop reading and shut the socket, so that its writer sees that nobody reads on the other side."""
        if self.reads:
            self.reads = False
            self.drop_file()
            self._shut(_socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError:  # the socket is disconnected
            pass

    def drop_file(self) -> None:
        """Close the file that is being sent, complete or not."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def close(self) -> None:
        """Close the socket, and drop the queue and files."""
        self.give_up()
        self.drop_file()
        if self._filling >= 0:
            os.close(self._filling)
        if self.channel is not None:
            self.channel.close()
        self.sock.close()
