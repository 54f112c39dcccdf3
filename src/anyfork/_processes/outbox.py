"""The outbox of a process: frames with their descriptors, sent over a socket that never blocks the owner.

Most of the time there is no queue: the socket takes a frame at once. The rest waits here, with copies of its
descriptors, until ``flush`` is called again. The number of bytes sent is known whatever interrupts the sending: see
_system.locks.
"""

from __future__ import annotations

import _socket
import os
from collections import deque
from errno import EPIPE
from itertools import islice, starmap
from operator import call

from _anyfork_child.wire.channel import LATER, NOWAIT, RIGHTS, pack_descriptors
from _anyfork_child.wire.descriptors import Owned, duplicate, duplicates
from _anyfork_child.wire.frames import messages
from _anyfork_child.wire.memfd import write_stepwise
from _anyfork_child.wire.platform import NOSIGNAL
from _anyfork_child.wire.signals import comes_from_outside

from .._system.locks import Once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol, TypeVar

    from _anyfork_child.wire.frames import Frame

    Value = TypeVar("Value")

    class Closable(Protocol):
        """An object that holds descriptors."""

        def close(self) -> None:
            """Close the descriptors."""


SO_SNDBUFFORCE = 32  # Linux: a buffer above the limit for everybody, if we have the privilege
SEND_BUFFER = 1 << 24  # bytes
FLAGS = (NOWAIT | NOSIGNAL,)  # of send and sendmsg, for ``map``
PIECE = 1 << 18  # bytes: writing them takes a fraction of a millisecond


class _Fill:
    """Data that has to be written into a file before its descriptor is sent."""

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
        """Close the file's descriptor: everything is written, or the file is given up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Message:
    """Bytes, with descriptors that go with the first of them. ``holders`` own the descriptors that are not the
    caller's.
    """

    __slots__ = ("_calls", "data", "fds", "fill", "holders", "lent")

    def __init__(self, data: bytes, fds: Sequence[int]) -> None:
        self.data = data
        self.fds = fds
        self.fill: _Fill | None = None
        self.holders: Sequence[Closable] = ()
        self.lent = len(fds)  # how many descriptors, at the end, are the caller's
        self._calls = Once()

    @property
    def begun(self) -> bool:
        """True when some of the bytes were sent, and the descriptors with them."""
        return bool(self._calls)

    def send(self, sock: _socket.socket) -> bool:
        """Send what the socket takes. Return whether all was sent. Raises OSError."""
        calls, data = self._calls, self.data
        number, size = len(calls), len(data)
        if number:
            sent = sum(calls[:number])
            if sent == size:
                return True
            calls.call(number, map(sock.send, (memoryview(data)[sent:],), FLAGS))
        elif self.fds:
            rights = ((*RIGHTS, pack_descriptors(self.fds)),)
            calls.call(0, map(sock.sendmsg, ((data,),), (rights,), FLAGS))
        else:
            calls.call(0, map(sock.send, (data,), FLAGS))
        total: int = sum(calls)
        return total == size

    def own(self) -> None:
        """Keep copies of the caller's descriptors, because the caller may close its own. Raises OSError."""
        if not self.lent or self.begun:
            return
        first = len(self.fds) - self.lent
        copies = Owned(duplicates(self.fds[first:]))
        self.fds, self.holders, self.lent = [*self.fds[:first], *copies.fds], [*self.holders, copies], 0

    def release(self) -> None:
        """Close the descriptors that the message holds: they have been sent, or never will be."""
        for holder in self.holders:
            holder.close()
        if self.fill is not None:
            self.fill.close()


class Outbox(deque[Message]):
    """The queue of one socket. Its user holds the lock of the link.

    A handle that the garbage collector drops inside one of these functions may enter again; so may a signal handler.
    """

    __slots__ = ("_sock", "broken", "piecewise")

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self.broken = False  # the process is known to take nothing more
        self.piecewise = False  # write large files a piece at each flush, because flush is called again and again

    @property
    def filling(self) -> bool:
        """True when a file has to be written further before anything else can be sent."""
        message = self._first()
        return message is not None and message.fill is not None

    def _first(self) -> Message | None:
        """Return the first message, if there is one. A signal handler or a destructor may send it at any time."""
        try:
            return self[0] if self else None
        except IndexError as error:
            if comes_from_outside(error):
                raise
            return None

    def push(self, frame: Frame, pieces: Sequence[bytes] = (), holders: Sequence[Closable] = (), held: int = 0) -> None:
        """Queue a frame, and send what the socket takes now.

        The first ``held`` descriptors belong to ``holders``, which are closed when the descriptors have been sent; the
        other descriptors stay the caller's. ``pieces`` are written into the last descriptor first. Raises OSError when
        that fails, or when descriptors have run out and none could be copied: then nothing of the frame is sent.
        """
        queue = self.messages_of(frame)
        queue[0].holders = holders
        queue[0].lent -= held
        if pieces and self.piecewise:
            queue[0].fill = _Fill(frame.fds[-1], pieces)
        elif pieces:
            for _ in write_stepwise(frame.fds[-1], pieces, PIECE):
                pass
        try:
            self.extend(queue)
            self.flush()
            if self:
                self._keep(queue)
        except BaseException:
            if any(message.lent for message in queue):
                self._withdraw(queue)
            raise

    def hold_back(self, frame: Frame, holders: Sequence[Closable], held: int) -> Message | None:
        """Queue a frame as ``push`` does, but do not send it yet; return its message.

        The next flush sends it. Return None if it was sent at once, because it cannot wait.
        """
        queue = self.messages_of(frame)
        message = queue[0]
        message.holders = holders
        message.lent -= held
        try:
            message.own()
        except OSError as error:
            if comes_from_outside(error):
                raise
            queue.clear()  # no descriptors are left for copies
        if len(queue) != 1:
            self.push(frame, (), holders, held)
            return None
        self.append(message)
        return message

    @staticmethod
    def messages_of(frame: Frame) -> list[Message]:
        """Return the messages that carry a frame."""
        return [*starmap(Message, messages(frame))]

    def queueing(self, queue: Iterable[Message], then: Iterator[Value]) -> Iterator[Value]:
        """Return an iterator that queues messages when it is asked for its one value, the next of ``then``.

        ``[x.value] = outbox.queueing(...)`` does both or neither: no interrupt comes in between.
        """
        steps: Iterator[Value] = map(call, (self.extend, next), (queue, then))  # type: ignore[arg-type]
        return islice(steps, 1, None)

    def _keep(self, queue: list[Message]) -> None:
        waiting = {id(message) for message in [*self]}
        for message in queue:
            if id(message) in waiting:
                message.own()

    def flush(self, last: Message | None = None) -> bool:
        """Send what the socket takes, up to the ``last`` message. Return False when a reason other than a full socket
        stopped it, so that polling is no use.
        """
        while (message := self._first()) is not None:
            if message.fill is not None:
                if not self._fill(message):
                    return True
                continue
            try:
                sent = message.send(self._sock)
            except BlockingIOError:
                if not self._enlarge():
                    return True
            except OSError as error:
                if comes_from_outside(error):
                    raise
                if error.errno in LATER:
                    return False
                self.give_up()
                if error.errno == EPIPE or isinstance(error, ConnectionError) or self._sock.fileno() < 0:
                    return True  # the peer has ended, or another thread has closed this socket
                raise
            else:
                if sent:
                    self._remove(message)
                    if message is last:
                        return True
        return True

    def _fill(self, message: Message) -> bool:
        """Write the next piece of a message's file; return whether nothing is left."""
        fill = message.fill
        assert fill is not None
        try:
            if not fill.step():
                return False
        except BaseException:  # it is unknown how much was written
            self._cut()
            raise
        fill.close()
        message.fill = None
        return True

    def _remove(self, message: Message) -> None:
        message.release()
        try:
            self.remove(message)
        except ValueError:  # removed by a signal handler or destructor that came in between
            pass

    def _enlarge(self) -> bool:
        """Give a socket that is full for the first time as much buffer as the system allows; return whether that is
        more.
        """
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
        """Drop all messages, because nothing more can be sent."""
        self.broken = True
        for message in [*self]:
            self._remove(message)

    def _cut(self) -> None:
        """Shut down sending, so that the process sees the end of the stream, perhaps in the middle of a frame: it ends
        then.
        """
        self.give_up()
        self._sock.shutdown(_socket.SHUT_WR)

    def _withdraw(self, parts: list[Message]) -> None:
        """Remove the messages with descriptors that the caller will close; if some of the frame was sent, end the
        stream.
        """
        waiting = [message for message in parts if message in self]
        if any(message.begun for message in parts) and waiting and not waiting[0].begun:
            self._cut()
            return
        for message in waiting:
            if not message.begun:
                self._remove(message)
