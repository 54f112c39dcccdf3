"""One stream at this end of a connection: its socket, what waits to be written there, and what may be sent of it.

Runs in relays. The other end of the socket is the owner's here, a process's there.
"""

from __future__ import annotations

import _socket
import os
from collections import deque
from select import POLLIN, POLLOUT

from ..wire.channel import NOSIGNAL, NOWAIT, Channel, close_all, send_some
from ..wire.frames import messages
from ..wire.memory_files import new_file
from .protocol import WINDOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..wire.frames import Frame


CONTROL, STATUS, PLAIN = range(3)  # what streams are for; the first two in the order of a FORK frame, and with frames


class File:
    """A file that is sent, piece by piece, and the message with the frame that it belongs to."""

    __slots__ = ("_at", "_fd", "_size", "behind")

    def __init__(self, fd: int, size: int, behind: bytes) -> None:
        self._fd = fd
        self._at = 0
        self._size = size
        self.behind = behind

    def read(self, size: int) -> bytes:
        """The next piece; nothing at the end."""
        piece = os.pread(self._fd, min(size, self._size - self._at), self._at)
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """All of it has been read, or nobody wants it."""
        os.close(self._fd)


class Pipe:
    """The reading end of a pipe, as far as a stream uses it as a socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def recv_into(self, room: memoryview, size: int, _flags: int) -> int:
        """Read what has come; return how many bytes. Raises BlockingIOError."""
        return os.readv(self._fd, (room[:size],))

    def send(self, _data: bytes, _flags: int) -> int:
        """Nobody writes there."""
        raise BrokenPipeError

    def shutdown(self, how: int) -> None:
        """It has nothing to shut but itself."""

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class Stream:
    """A stream. ``credit`` is how many bytes may be sent now, ``owed`` how many were written and not given back yet.

    ``channel`` reads frames, as long as that is what comes from the socket; ``answers`` says whether it is what goes to
    it. ``reads`` and ``writes`` say what the socket is still good for, ``broken`` that nobody reads there, which the
    other side does not know yet.
    """

    __slots__ = (
        "_filling",
        "_queue",
        "_stops",
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
        "writes",
    )

    def __init__(self, number: int, sock: _socket.socket | Pipe, role: int) -> None:
        self.number = number
        self.role = role
        self.sock: Any = sock  # a pipe has no more of a socket than is used
        self.fd = sock.fileno()
        self.channel = None if role == PLAIN or isinstance(sock, Pipe) else Channel(sock)
        self.answers = role != PLAIN
        self.credit = WINDOW
        self.owed = 0
        self.reads = True
        self.writes = not isinstance(sock, Pipe)
        self.broken = False
        self.mask = -1  # the events that are watched; -1 while none are
        self.file: File | None = None  # that is being sent: nothing is read meanwhile
        self.forks = 0  # that were asked for here
        self.queued = 0  # bytes that wait to be written
        self._queue: deque[tuple[bytes | memoryview, Sequence[int]]] = deque()
        self._filling = -1  # a file that comes
        self._stops = False  # nothing will come behind the queue

    @property
    def interest(self) -> int:
        """What to wait for at the socket; -1 for nothing, not even its end, which would be told again and again."""
        wanted = POLLOUT if self.queued else 0
        if self.reads and self.credit > 0 and self.file is None:
            return wanted | POLLIN
        return wanted or (-1 if self.reads else 0)

    @property
    def finished(self) -> bool:
        """Whether nothing more will go either way."""
        return not (self.reads or self.writes)

    # --- Towards the socket ---

    def put(self, data: bytes) -> None:
        """Write what the socket takes now; the rest waits."""
        if not self.writes:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self.sock.send(data, NOWAIT | NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError:
                self.give_up()
                return
            self.owed += sent
            if sent == len(data):
                return
        self._queue.append((memoryview(data)[sent:], ()))
        self.queued += len(data) - sent

    def put_frame(self, frame: Frame) -> None:
        """The same with a frame, whose descriptors are closed here."""
        for data, fds in messages(frame):
            self._queue.append((data, fds))
            self.queued += len(data)
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now."""
        queue = self._queue
        while queue:
            data, fds = queue[0]
            try:
                sent = send_some(self.sock, data, fds, NOWAIT)
            except BlockingIOError:
                return
            except OSError:  # nobody reads there any more
                self.give_up()
                return
            close_all(fds)
            self.owed += sent
            self.queued -= sent
            if sent < len(data):
                queue[0] = memoryview(data)[sent:], ()
            else:
                queue.popleft()
        if self._stops:
            self.stop()

    def stop(self) -> None:
        """Nothing more will come from the other side: shut the socket behind the queue."""
        self._stops = True
        if not self._queue and self.writes:
            self.writes = False
            self._shut(_socket.SHUT_WR)

    def give_up(self) -> None:
        """Nobody reads at the other end of the socket."""
        self.broken = self.broken or self.writes
        self.writes = False
        for _, fds in self._queue:
            close_all(fds)
        self._queue.clear()
        self.queued = 0

    def fill(self, piece: bytes) -> None:
        """Take a piece of the file that belongs to the next frame."""
        if self._filling < 0:
            self._filling = new_file()
        at = 0
        while at < len(piece):
            at += os.write(self._filling, memoryview(piece)[at:])
        self.owed += len(piece)

    def take_file(self) -> int:
        """The descriptor of that file, which is complete."""
        fd, self._filling = self._filling, -1
        return fd if fd >= 0 else new_file()

    # --- From the socket ---

    def refuse(self) -> None:
        """Nobody reads on the other side: whoever writes here is to see that."""
        if self.reads:
            self.reads = False
            self.drop_file()
            self._shut(_socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError:  # it is disconnected
            pass

    def drop_file(self) -> None:
        """It has been sent, or nobody wants it."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def close(self) -> None:
        """Let go of everything."""
        self.give_up()
        self.drop_file()
        if self._filling >= 0:
            os.close(self._filling)
        if self.channel is not None:
            self.channel.close()
        self.sock.close()
