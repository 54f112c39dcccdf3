"""The worker's end of its channel: what comes in is decoded, what goes out is on the wire when a call returns.

Runs in workers of both kinds, see worker.loop and worker.concurrent_loop.
"""

from __future__ import annotations

from _pickle import dumps
from _thread import allocate_lock
from errno import ETOOMANYREFS
from fcntl import F_GETOWN, fcntl
from os import dup, getpid, register_at_fork
from sys import exception
from time import sleep

from .. import HOST
from ..birth.claims import claim, is_claimed
from ..birth.exit import end_copy, fail_copy
from ..values.decode import FunctionNotFoundError, find_function, load_values, named
from ..values.encode import INLINE, PROTOCOL, Encoded, encode, encode_error, is_plain
from ..values.message import Message, decode_values, in_pieces, message_of
from ..wire.call_messages import (
    BAD_ARGUMENT,
    BAD_RESULT,
    ERROR,
    EVENT,
    FRESH,
    HEADER,
    IN_FILE,
    MAX_BODY,
    MAX_IN_FILE,
    NO_FUNCTION,
    RAISED,
    READ_SIZE,
    RESULT,
    RETIRE,
    Inbox,
)
from ..wire.channel import CLOEXEC, NOSIGNAL, ROOM, TRUNCATED, close_all, plain_socket, send_some, unpack_descriptors
from ..wire.failure import format_error, pack_texts
from ..wire.memory_files import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from ..values.serializers import Serializer
    from ..wire import call_messages

    Pickled: TypeAlias = tuple[int, int, bytes, Sequence[int]]  # a function: detail, flags, body and descriptors

RETRY = 0.01  # seconds between attempts when the kernel's limit of descriptors in flight is reached


class NobodyListensError(SystemExit):
    """The owner has ended, and so does this worker."""


class ChannelLostError(NobodyListensError):
    """A function has closed or replaced a descriptor of this worker, which therefore ends."""


class Serving:
    """The worker's end of the channel: what comes in is decoded, what goes out is on the wire when a call returns.

    Functions may fork. A copy ends when it has left the function: it says nothing here, and takes no call. Nor is
    anything written to what a function has opened under the number of the channel.
    """

    number = 0  # of the call that runs
    took = 0  # what the detail of a result says of it

    def __init__(self, sock: socket.socket, serializer: Serializer | None) -> None:
        self.sock: _socket.socket = plain_socket(sock)
        if self.sock is not sock:  # gevent or eventlet, which have made it non-blocking
            self.sock.setblocking(True)
        self.fd = self.sock.fileno()
        self.pid = self.claimant = getpid()
        claim(self.fd)
        register_at_fork(after_in_child=self._forget_claim)
        self.serializer = serializer
        self.in_band = bool(HOST)
        self.inbox = Inbox(MAX_IN_FILE if self.in_band else MAX_BODY)
        self.functions: dict[int, Callable[..., Any] | str | Pickled] = {}
        self.lock = allocate_lock()

    # --- In ---

    def receive(self, flags: int) -> tuple[bytes, Sequence[int], bool]:
        """What has come, with descriptors, and whether some of those were lost; no bytes at the end of the stream.

        Raises BlockingIOError with MSG_DONTWAIT.
        """
        try:
            data, ancillary, got, _ = self.sock.recvmsg(READ_SIZE, ROOM, flags | CLOEXEC)
        except ConnectionError:  # the owner ended with something of ours unread
            return b"", (), False
        return data, unpack_descriptors(ancillary[0][2]) if ancillary else (), got & TRUNCATED != 0

    def read(self, flags: int = 0) -> list[call_messages.Message] | None:
        """The messages that have come; None at the end of the stream. Raises BlockingIOError with MSG_DONTWAIT."""
        data, fds, truncated = self.receive(flags)
        return self.inbox.take(data, fds, truncated) if data else None

    def define(self, number: int, name: bytes) -> None:
        """From now on this is the function of that number."""
        self.functions[number] = name.decode()

    def keep(self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        """From now on the function of that number is the one in a message."""
        self.functions[number] = detail, flags, body, fds

    def forget(self, number: int) -> None:
        """No call of that function follows."""
        function = self.functions.pop(number, None)
        if type(function) is tuple:
            close_all(function[3])

    def decode(self, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> list[Any]:
        """A function and its arguments. Raises FunctionNotFoundError, and whatever the decoding raises."""
        try:
            function = self.function(detail) if detail else None
        except Exception:  # that of one by value may raise anything
            close_all(fds)
            raise
        if self.serializer is not None:
            return self._decode_by(self.serializer, function, flags, body, fds)
        values = decode_values(flags, body, fds)
        return [named(values[0]), *values[1:]] if function is None else [function, *values]

    def function(self, number: int) -> Callable[..., Any]:
        """That of the number. Raises FunctionNotFoundError."""
        function = self.functions[number]
        if type(function) is str:
            function = self.functions[number] = find_function(function)
        elif type(function) is tuple:
            function = self._decode_function(number, *function)
        return function  # type: ignore[return-value]  # no name any more

    def _decode_function(
        self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]
    ) -> Callable[..., Any]:
        """One that came by value, from copies of its descriptors: it is decoded again if that fails, or is wanted."""
        copies: list[int] = []
        try:
            copies.extend(dup(fd) if fd >= 0 else fd for fd in fds)
        except OSError:
            close_all(copies)
            raise
        function = named(*decode_values(flags, body, copies))
        if detail != FRESH:
            self.functions[number] = function
            close_all(fds)
        return function

    def _decode_by(
        self,
        serializer: Serializer,
        function: Callable[..., Any] | None,
        flags: int,
        body: bytes,
        fds: Sequence[int],
    ) -> list[Any]:
        if flags & IN_FILE:
            body = read_all(fds[-1], MAX_IN_FILE)
        if function is None:  # by value, and the owner is trusted: it has started this process
            end = 4 + int.from_bytes(body[:4], "little")
            function = named(*load_values(body[4:end], -1, (), ()))
            body = body[end:]
        return [function, *serializer.loads(body)]

    # --- Out ---

    def send(self, data: bytes) -> None:
        """Send a whole message. Ends this process when nobody listens any more, and a copy of the worker."""
        try:
            if fcntl(self.fd, F_GETOWN) != self.claimant:  # as is_claimed, for less
                self.check_channel()
            with self.lock:
                self.sock.sendall(data, NOSIGNAL)
        except ConnectionError:
            raise NobodyListensError(0) from None
        except OSError:
            self.check_channel()
            raise

    def send_message(self, message: Message) -> None:
        """The same with descriptors and files."""
        try:
            self.check_channel()
            message.write_files()
            with self.lock:
                sent = self._send_first(message) if message.fds else 0
                self.sock.sendall(message.data[sent:], NOSIGNAL)
        except ConnectionError:
            raise NobodyListensError(0) from None
        finally:
            message.close()

    def _forget_claim(self) -> None:
        """Runs in a copy of the worker."""
        self.claimant = -1

    @property
    def is_copy(self) -> bool:
        """Whether this is a copy of the worker that a function has made."""
        return getpid() != self.pid

    def leave_copy(self) -> None:
        """End this process where it is a copy of the worker, by what has been raised in the function, if anything."""
        if self.is_copy:
            error = exception()
            end_copy(0) if error is None else fail_copy(error)

    def check_channel(self) -> None:
        """End this process where it is a copy of the worker, or has no channel any more."""
        if self.is_copy:
            end_copy(0)
        self.check_descriptor(self.fd)

    def check_descriptor(self, fd: int) -> None:
        """Raise ChannelLostError where a function has closed or replaced this descriptor of the worker."""
        if not is_claimed(fd):
            self.sock.detach()  # or the number would be closed with it
            raise ChannelLostError(
                f"anyfork: worker {self.pid} ends: a function has closed or replaced its descriptor {fd}, over "
                "which it talks with its owner; functions should close only what they have opened"
            )

    def _send_first(self, message: Message) -> int:
        """Send the descriptors, with some of the bytes. So many of them may be unread that the kernel takes no more:
        that is as a full socket, but nothing tells when it is over."""
        while True:
            try:
                return send_some(self.sock, message.data, message.fds, 0)
            except OSError as error:
                if error.errno != ETOOMANYREFS:
                    raise
                sleep(RETRY)

    def send_value(self, kind: int, number: int, value: Any) -> None:
        """Send a result, an item or an event. Raises whatever its encoding raises; nothing is sent then."""
        if self.serializer is not None:
            body = self.serializer.dumps((value,))
        elif is_plain(value):
            body = dumps(value, PROTOCOL)
        else:
            self._send_encoded(kind, number, self.took | 1, encode((value,), beside=not self.in_band))
            return
        if len(body) <= INLINE:
            self.send(HEADER.pack(len(body), number, self.took, kind, 0, 0) + body)
        else:
            self._send_encoded(kind, number, self.took, in_pieces(body))

    def _send_encoded(self, kind: int, number: int, detail: int, encoded: Encoded) -> None:
        self.send_message(message_of(kind, number, detail, encoded, self.in_band))

    def send_error(self, number: int, detail: int, error: BaseException, kind: int = ERROR) -> None:
        """Send an exception: as text, and pickled too where that is possible and allowed."""
        if self.is_copy:
            fail_copy(error)
        where = f" (on {HOST})" if HOST and detail != RAISED else ""
        described = pack_texts((type(error).__qualname__, text_of(error) + where, format_error(error)))
        encoded = Encoded()
        if self.serializer is None and detail == RAISED:
            try:
                encoded = encode_error(error)
                if self.in_band and encoded.fds:
                    encoded = Encoded()
            except Exception:  # pickling runs code of the exception; the text says what there is to say
                encoded = Encoded()
        whole = in_pieces(len(described).to_bytes(4, "little"), described, *encoded.pieces)
        whole.fds = encoded.fds
        whole.holders = encoded.holders
        self._send_encoded(kind, number, detail, whole)

    def send_result(self, number: int, result: Any) -> None:
        """Send what a function has returned, or why it cannot be sent."""
        try:
            self.send_value(RESULT, number, result)
        except Exception as error:  # encoding runs code of the result, which may raise anything
            self.send_error(number, BAD_RESULT, error)

    def send_size(self, number: int, kind: int) -> None:
        """Send how large this process is."""
        from .memory import measure

        self.send(HEADER.pack(8, number, 0, RESULT, 0, 0) + measure(kind).to_bytes(8, "little"))

    def refuse(self, number: int, error: Exception) -> None:
        """Send why a call does not run."""
        self.send_error(number, NO_FUNCTION if isinstance(error, FunctionNotFoundError) else BAD_ARGUMENT, error)

    def send_failure(self, number: int, error: BaseException) -> None:
        """Send what a function has raised. The first frame of the traceback is ours."""
        error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # a class may refuse the assignment
        self.send_error(number, RAISED, error)


def text_of(error: BaseException) -> str:
    """What an exception says."""
    try:
        return str(error)
    except Exception as second:  # a __str__ of the user's that raises must not hide the error itself
        return f"<its __str__ raised {type(second).__name__}>"


current: Serving | None = None  # in a worker: what emit uses


def become(serving: Serving) -> Serving:
    """Let emit use this one."""
    global current
    current = serving
    return serving


def emit(value: object) -> None:
    """Send a value to the ``on_event`` of the running call, or of the worker; it is on the wire when this returns.

    Only for functions that run in a worker: raises RuntimeError elsewhere, and whatever the encoding of the value
    raises. Waits as long as the owner does not read.
    """
    worker = _current("emit", "in a function that Worker.call or call runs")
    worker.send_value(EVENT, worker.number, value)


def retire() -> None:
    """Let this worker leave its pool: it finishes what it was given, gets nothing more, and ends.

    Another one takes its place. Calling it again changes nothing; a worker that belongs to no pool just goes on. Only
    for functions that run in a worker: raises RuntimeError elsewhere.
    """
    _current("retire", "in a function that a pool runs").send(HEADER.pack(0, 0, 0, RETIRE, 0, 0))


def _current(call: str, where: str) -> Serving:
    if current is None:
        raise RuntimeError(f"{call}() works only in a worker: {where}")
    if current.is_copy:
        raise RuntimeError(f"{call}() works only in the worker itself: process {getpid()} is a forked copy of it")
    return current
