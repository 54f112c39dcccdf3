"""What is on its way to one process: frames, and the descriptors that go with them, over a socket that never blocks us.

Most of the time there is no queue: the socket takes a frame at once. What it does not take waits here, with copies of
its descriptors, until somebody calls ``flush`` again.
"""

from __future__ import annotations

import _socket
import os
from collections import deque
from errno import EPIPE, ETOOMANYREFS

from _anyfork_child._channel import NOWAIT, close_all, send_some
from _anyfork_child._descriptors import duplicate
from _anyfork_child._files import write_stepwise
from _anyfork_child._wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from _anyfork_child._wire import Frame

SO_SNDBUFFORCE = 32  # Linux: above the limit for everybody, where we may
SEND_BUFFER = 1 << 24  # bytes
PIECE = 1 << 18  # bytes: a fraction of a millisecond


class _Fill:
    """What has to be written into a file before its descriptor is sent."""

    __slots__ = ("_fd", "_steps")

    def __init__(self, fd: int, pieces: Sequence[bytes]) -> None:
        self._fd = duplicate(fd)
        self._steps = write_stepwise(self._fd, pieces, PIECE)

    def step(self) -> bool:
        """Write a piece; True when nothing is left. Raises OSError (ENOSPC, ENOMEM)."""
        for _ in self._steps:
            return False
        return True

    def close(self) -> None:
        """All is written, or it is given up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Message:
    """Bytes, with descriptors that go with the first of them."""

    __slots__ = ("_owned", "data", "fds", "fill")

    def __init__(self, data: bytes | memoryview, fds: Sequence[int]) -> None:
        self.data = data
        self.fds = fds
        self.fill: _Fill | None = None
        self._owned = False

    def own(self) -> None:
        """Keep copies of the descriptors: the caller may close its own."""
        if self._owned or not self.fds:
            return
        given, copies = self.fds, list[int]()
        self.fds, self._owned = copies, True
        for fd in given:
            copies.append(duplicate(fd))  # what is copied when descriptors run out is released

    def release(self) -> None:
        """The descriptors have been sent, or never will be."""
        if self._owned:
            close_all(self.fds)
        self.fds = ()
        if self.fill is not None:
            self.fill.close()


class Outbox:
    """The queue of one socket. Whoever uses it holds the lock of its link.

    A handle that the garbage collector drops inside one of these functions may enter again, hence ``_busy``: what it
    queues is sent by the loop that it has interrupted.
    """

    __slots__ = ("_busy", "_queue", "_sock", "broken", "piecewise")

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._queue: deque[_Message] | None = None  # made when there is something to wait for the first time
        self._busy = False
        self.broken = False  # the process is known to take nothing any more
        self.piecewise = False  # write large files a piece at each flush: somebody calls it again and again

    def __len__(self) -> int:
        return len(self._queue) if self._queue else 0

    @property
    def filling(self) -> bool:
        """True when it is a file that has to be written on before anything else can be sent."""
        return bool(self._queue) and self._queue[0].fill is not None  # type: ignore[index]  # not None either

    def push(self, frame: Frame, pieces: Sequence[bytes] = ()) -> None:
        """Queue a frame, and send what the socket takes now. The descriptors stay the caller's.

        ``pieces`` are written into the last of them before. Raises OSError when that fails, or when descriptors have
        run out, so that none could be kept: then nothing of the frame is sent.
        """
        parts = messages(frame)
        if pieces and not self.piecewise:
            for _ in write_stepwise(frame.fds[-1], pieces, PIECE):
                pass
            pieces = ()
        if not pieces and not self._queue and not self._busy and len(parts) == 1 and self._send_at_once(*parts[0]):
            return
        if self._queue is None:
            self._queue = deque()
        queue = [_Message(data, fds) for data, fds in parts]
        if pieces:
            queue[0].fill = _Fill(frame.fds[-1], pieces)
        self._queue.extend(queue)
        self.flush()
        if not self._queue:
            return
        try:
            for message in queue:
                message.own()
        except OSError:
            self._withdraw(queue)
            raise

    def _send_at_once(self, data: bytes, fds: Sequence[int]) -> bool:
        """The usual case. True when the socket has taken all of it."""
        try:
            sent = send_some(self._sock, data, fds, NOWAIT)
        except OSError:  # whatever it is, flush meets it again
            return False
        except BaseException:
            self._cut()
            raise
        if sent == len(data):
            return True
        self._queue = self._queue or deque()
        self._queue.append(_Message(memoryview(data)[sent:], ()))
        self.flush()
        return True

    def flush(self) -> bool:
        """Send what the socket takes; False when it is not a full socket that stopped it, so that polling is no use."""
        queue = self._queue
        if self._busy or not queue:
            return True
        self._busy = True
        try:
            while queue:
                message = queue[0]
                if message.fill is not None:
                    if not message.fill.step():
                        return True
                    message.fill.close()
                    message.fill = None
                try:
                    sent = send_some(self._sock, message.data, message.fds, NOWAIT)
                except BlockingIOError:
                    if not self._enlarge():
                        return True
                    continue
                except OSError as error:
                    if error.errno == ETOOMANYREFS:
                        return False
                    self.give_up()
                    if error.errno == EPIPE or isinstance(error, ConnectionError):
                        return True
                    raise
                message.release()
                if sent == len(message.data):
                    queue.popleft()
                else:
                    message.data = memoryview(message.data)[sent:]
        except BaseException:
            self._cut()
            raise
        finally:
            self._busy = False
        return True

    def _enlarge(self) -> bool:
        """The socket is full for the first time: give it as much room as the system allows."""
        before = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
        if before >= SEND_BUFFER:
            return False
        for option in (SO_SNDBUFFORCE, _socket.SO_SNDBUF):
            try:
                self._sock.setsockopt(_socket.SOL_SOCKET, option, SEND_BUFFER)
                break
            except OSError:  # not privileged, or not Linux
                continue
        return self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF) > before

    def give_up(self) -> None:
        """Nothing more can be sent."""
        self.broken = True
        queue, self._queue = self._queue, None
        for message in queue or ():
            message.release()

    def _cut(self) -> None:
        """An interrupt between a system call and its bookkeeping: what is on the wire is not known any more, so the
        process gets the end of the stream, in the middle of a frame or not, and ends."""
        self.give_up()
        self._sock.shutdown(_socket.SHUT_WR)

    def _withdraw(self, parts: list[_Message]) -> None:
        """Take back a frame that is last in the queue; where some of it was sent already, the stream ends there."""
        for message in parts:
            message.release()
        if self._queue is None:
            return
        if len(self._queue) < len(parts) or isinstance(parts[0].data, memoryview):
            self._cut()
        else:
            for _ in parts:
                self._queue.pop()
