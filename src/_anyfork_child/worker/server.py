"""The worker's end of its channel: decodes incoming messages, and has sent outgoing ones when a call returns.

Runs in workers of all kinds, see worker.loop, worker.job_loop and worker.async_loop.
"""

from __future__ import annotations

from _pickle import dumps
from _signal import SIGINT, default_int_handler, getsignal, signal
from _thread import _count as other_threads
from _thread import allocate_lock
from fcntl import F_GETOWN, fcntl
from os import dup, getpid, register_at_fork
from sys import exception

from .. import HOST
from ..birth.exit import end_copy, fail_copy
from ..values.decode import FunctionNotFoundError, find_function, load_values, named
from ..values.encode import INLINE, PROTOCOL, Encoded, encode, encode_error, is_plain
from ..values.message import Message, decode_values, in_pieces, message_of
from ..wire.call_messages import (
    BAD_ARGUMENT,
    BAD_RESULT,
    ERROR,
    FRESH,
    HEADER,
    IN_FILE,
    MAX_BODY,
    MAX_IN_FILE,
    NO_FUNCTION,
    RAISED,
    READ_SIZE,
    RESULT,
    Inbox,
)
from ..wire.channel import ROOM, TRUNCATED, close_all, plain_socket, send_all, unpack_descriptors
from ..wire.descriptors import claim, is_claimed
from ..wire.failure import format_error, pack_texts
from ..wire.memfd import read_all
from ..wire.platform import CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from ..values.serializers import Serializer
    from ..wire import call_messages

    Pickled: TypeAlias = tuple[int, int, bytes, Sequence[int]]  # a function: detail, flags, body and descriptors


class NobodyListensError(SystemExit):
    """Raised to end this worker because the owner has ended."""


class ChannelLostError(NobodyListensError):
    """Raised to end this worker because a function has closed or replaced one of its descriptors."""


class WorkerServer:
    """The worker's end of the channel: it decodes incoming messages, and has sent outgoing ones when a call returns.

    Functions may fork. A forked copy ends when it leaves the function: it sends nothing on the channel and takes no
    call. Nothing is written to a file that a function has opened under the number of the channel either.
    """

    fatal: type[BaseException] = SystemExit  # what ends this worker when a function raises it
    number = 0  # of the running call; 0 between calls
    took = 0  # the time of the call, for the detail of its result

    def __init__(self, sock: socket.socket, serializer: Serializer | None) -> None:
        self.sock: _socket.socket = plain_socket(sock)
        if self.sock is not sock:  # gevent or eventlet, which have made it non-blocking
            self.sock.setblocking(True)
        self.fd = self.sock.fileno()
        self.pid = self.claimant = getpid()
        claim(self.fd)
        register_at_fork(after_in_child=self._forget_claim)
        self.serializer = serializer
        self.remote = bool(HOST)
        self.inbox = Inbox(MAX_IN_FILE if self.remote else MAX_BODY)
        self.functions: dict[int, Callable[..., Any] | str | Pickled] = {}
        self.lock = allocate_lock()

    # --- In ---

    def receive(self, flags: int) -> tuple[bytes, Sequence[int], bool]:
        """Read bytes that have arrived. Return them, their descriptors, and whether some descriptors were lost.

        Return no bytes at the end of the stream. Raises BlockingIOError with MSG_DONTWAIT.
        """
        try:
            data, ancillary, got, _ = self.sock.recvmsg(READ_SIZE, ROOM, flags | CLOEXEC)
        except ConnectionError:  # the owner ended with unread data from this worker
            return b"", (), False
        return data, unpack_descriptors(ancillary[0][2]) if ancillary else (), got & TRUNCATED != 0

    def read(self, flags: int = 0) -> list[call_messages.Message] | None:
        """Read messages; return None at the end of the stream. Raises BlockingIOError with MSG_DONTWAIT."""
        data, fds, truncated = self.receive(flags)
        return self.inbox.take(data, fds, truncated) if data else None

    def define(self, number: int, name: bytes) -> None:
        """Give a number to the function of this name."""
        self.functions[number] = name.decode()

    def keep(self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        """Give a number to the pickled function of a message."""
        self.functions[number] = detail, flags, body, fds

    def forget(self, number: int) -> None:
        """Drop the function of a number, because no call of it follows."""
        function = self.functions.pop(number, None)
        if type(function) is tuple:
            close_all(function[3])

    def decode(self, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> list[Any]:
        """Return a function and its arguments. Raises FunctionNotFoundError, and any exception of the decoding."""
        try:
            function = self.function(detail) if detail else None
        except BaseException:  # decoding a function by value may raise anything
            close_all(fds)
            raise
        if self.serializer is not None:
            return self._decode_by(self.serializer, function, flags, body, fds)
        values = decode_values(flags, body, fds)
        return [named(values[0]), *values[1:]] if function is None else [function, *values]

    def function(self, number: int) -> Callable[..., Any]:
        """Return the function of a number. Raises FunctionNotFoundError, and any exception of its decoding."""
        function = self.functions[number]
        if type(function) is str:
            function = self.functions[number] = find_function(function)
        elif type(function) is tuple:
            function = self._decode_function(number, *function)
        return function  # type: ignore[return-value]  # no name any more

    def _decode_function(
        self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]
    ) -> Callable[..., Any]:
        """Decode a function that came by value, from copies of its descriptors.

        The originals are kept for another decoding: after a failure, and for each call with FRESH.
        """
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
        if function is None:  # a function by value is unpickled: the owner is trusted, it has started this process
            end = 4 + int.from_bytes(body[:4], "little")
            function = named(*load_values(body[4:end], -1, (), ()))
            body = body[end:]
        return [function, *serializer.loads(body)]

    # --- Out ---

    def send(self, data: bytes) -> None:
        """Send a whole message. Ends this process if the owner has ended, or if it is a copy of the worker."""
        try:
            if fcntl(self.fd, F_GETOWN) != self.claimant:  # as is_claimed, at less cost
                self.check_channel()
            if other_threads():
                with self.lock:
                    send_all(self.sock, data)
            else:  # the lock costs more than all other steps here together, without the system calls
                send_all(self.sock, data)
        except ConnectionError:
            raise NobodyListensError(0) from None
        except OSError:
            self.check_channel()
            raise

    def send_message(self, message: Message) -> None:
        """Send a whole message with descriptors and files, and close it. Ends this process as ``send`` does."""
        try:
            self.check_channel()
            message.write_files()
            with self.lock:
                send_all(self.sock, message.data, message.fds)
        except ConnectionError:
            raise NobodyListensError(0) from None
        finally:
            message.close()

    def _forget_claim(self) -> None:
        """Forget that this process claims the channel, so that ``send`` checks it. Runs in a copy of the worker."""
        self.claimant = -1

    @property
    def is_copy(self) -> bool:
        """True in a copy of the worker that a function has forked."""
        return getpid() != self.pid

    def leave_copy(self) -> None:
        """End this process if it is a copy of the worker, with the exception being handled, if any, as its failure."""
        if self.is_copy:
            error = exception()
            end_copy(0) if error is None else fail_copy(error)

    def check_channel(self) -> None:
        """End this process if it is a copy of the worker.

        Raises ChannelLostError if a function has closed or replaced the channel.
        """
        if self.is_copy:
            end_copy(0)
        self.check_descriptor(self.fd)

    def check_descriptor(self, fd: int) -> None:
        """Raise ChannelLostError if a function has closed or replaced this descriptor of the worker."""
        if not is_claimed(fd):
            self.sock.detach()  # the socket must not close the number, which may be another file's now
            raise ChannelLostError(
                f"anyfork: worker {self.pid} ends: a function has closed or replaced its descriptor {fd}, over "
                "which it talks with its owner; functions should close only what they have opened"
            )

    def send_value(self, kind: int, number: int, value: Any) -> None:
        """Send a result, an item or an event. Raises any exception of its encoding; nothing is sent then."""
        if self.serializer is not None:
            body = self.serializer.dumps((value,))
        elif is_plain(value):
            body = dumps(value, PROTOCOL)
        else:
            self._send_encoded(kind, number, self.took | 1, encode((value,), out_of_band=not self.remote))
            return
        if len(body) <= INLINE:
            self.send(HEADER.pack(len(body), number, self.took, kind, 0, 0) + body)
        else:
            self._send_encoded(kind, number, self.took, in_pieces(body))

    def _send_encoded(self, kind: int, number: int, detail: int, encoded: Encoded) -> None:
        self.send_message(message_of(kind, number, detail, encoded, remote=self.remote))

    def send_error(self, number: int, detail: int, error: BaseException, kind: int = ERROR) -> None:
        """Send an exception: as text, and also pickled if that is possible and allowed."""
        if self.is_copy:
            fail_copy(error)
        where = f" (on {HOST})" if HOST and detail != RAISED else ""
        described = pack_texts((type(error).__qualname__, text_of(error) + where, format_error(error)))
        encoded = Encoded()
        if self.serializer is None and detail == RAISED:
            try:
                encoded = encode_error(error)
                if self.remote and encoded.fds:
                    encoded = Encoded()
            except BaseException:  # pickling runs code of the exception, which may raise anything; the text must do
                encoded = Encoded()
        whole = in_pieces(len(described).to_bytes(4, "little"), described, *encoded.pieces)
        whole.fds = encoded.fds
        whole.holders = encoded.holders
        self._send_encoded(kind, number, detail, whole)

    def send_result(self, number: int, result: Any) -> None:
        """Send the result of a function, or the error of its encoding."""
        try:
            self.send_value(RESULT, number, result)
        except self.fatal:
            raise
        except BaseException as error:  # encoding runs code of the result, which may raise anything
            self.send_error(number, BAD_RESULT, error)

    def send_size(self, number: int, kind: int) -> None:
        """Send the memory size of this process."""
        from .memory import measure

        self.send(HEADER.pack(8, number, 0, RESULT, 0, 0) + measure(kind).to_bytes(8, "little"))

    def refuse(self, number: int, error: BaseException) -> None:
        """Send the error because of which a call does not run. Raises SystemExit, which ends the worker, again."""
        if isinstance(error, SystemExit):
            raise error
        self.send_error(number, NO_FUNCTION if isinstance(error, FunctionNotFoundError) else BAD_ARGUMENT, error)

    def send_failure(self, number: int, error: BaseException) -> None:
        """Send the exception of a function, without the first frame of its traceback, which is anyfork's own."""
        error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # a class may refuse the assignment
        self.send_error(number, RAISED, error)


def apply(function: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Call a function with positional and keyword arguments."""
    return function(*args, **keywords)


def handle_interrupts(handler: Callable[..., object] | int) -> None:
    """Let this handler receive Ctrl-C, unless the initializer has set another one."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, handler)


def text_of(error: BaseException) -> str:
    """Return the text of an exception, or a substitute if its ``__str__`` raises."""
    try:
        return str(error)
    except BaseException as second:  # a __str__ of the user's that raises must not hide the error itself
        return f"<its __str__ raised {type(second).__name__}>"
