"""The call loop: what runs in a worker, where one call is answered after the other, in their order.

``serve`` takes the process over. It is written for speed: a call with small values costs one read and one write. What
workers of both kinds have in common is in Serving.
"""

from __future__ import annotations

from _pickle import dumps, loads
from _signal import SIGINT, signal
from _thread import allocate_lock
from collections import deque
from time import monotonic

from ._call_wire import (
    BAD_ARGUMENT,
    BAD_RESULT,
    BUFFERS,
    CALL,
    CANCEL,
    CANCELLED,
    END,
    ERROR,
    EVENT,
    FAILED,
    FUNCTION,
    HEADER,
    HEADER_SIZE,
    IN_FILE,
    ITEM,
    MORE,
    NO_FUNCTION,
    RAISED,
    READ_SIZE,
    READY,
    RESULT,
    SMALL_CALL,
    STREAM,
    STREAM_WINDOW,
    VERSION,
    Inbox,
)
from ._channel import CLOEXEC, NOSIGNAL, NOWAIT, ROOM, TRUNCATED, send_some, unpack_descriptors
from ._encoding import INLINE, PROTOCOL, SCALARS, Encoded, encode, is_plain
from ._failure import format_error, pack_texts
from ._files import read_all, take
from ._message import Message, message_of
from ._values import DescriptorsLostError, FunctionNotFoundError, find_function, load_values
from ._wire import LOST_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from . import _call_wire
    from ._serializers import Serializer

pack, unpack_from = HEADER.pack, HEADER.unpack_from
QUICK = 0.0002  # seconds: after a longer call it is looked whether those behind it have been cancelled meanwhile
MAX_IN_FILE = (1 << 32) - 1  # bytes of a message

serving: Serving | None = None  # in a worker: what emit uses


class WorkerVersionError(Exception):
    """Owner and worker are of different versions of anyfork."""


class Serving:
    """The worker's end of the channel: what comes in is decoded, what goes out is on the wire when a call returns."""

    number = 0  # of the call that runs

    def __init__(self, sock: socket.socket, serializer: Serializer | None) -> None:
        self.sock = sock
        self.serializer = serializer
        self.inbox = Inbox()
        self.functions: dict[int, Callable[..., Any] | str] = {}
        self.lock = allocate_lock()

    # --- In ---

    def read(self, flags: int = 0) -> list[_call_wire.Message] | None:
        """The messages that have come; None at the end of the stream. Raises BlockingIOError with MSG_DONTWAIT."""
        try:
            data, ancillary, got, _ = self.sock.recvmsg(READ_SIZE, ROOM, flags | CLOEXEC)
        except ConnectionError:  # the owner ended with something of ours unread
            return None
        if not data:
            return None
        fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        return self.inbox.take(data, fds, got & TRUNCATED != 0)

    def define(self, number: int, name: bytes) -> None:
        """From now on this is the function of that number."""
        self.functions[number] = name.decode()

    def decode(self, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> list[Any]:
        """A function and its arguments. Raises FunctionNotFoundError, and whatever the decoding raises."""
        function = self._function(detail) if detail else None
        if self.serializer is not None:
            return self._decode_by(self.serializer, function, flags, body, fds)
        values = decode_values(flags, body, fds)
        return [*values] if function is None else [function, *values]

    def _function(self, number: int) -> Callable[..., Any]:
        function = self.functions[number]
        if type(function) is str:
            function = self.functions[number] = find_function(function)
        return function  # type: ignore[return-value]  # no name any more

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
            (function,) = load_values(body[4:end], -1, (), ())
            body = body[end:]
        return [function, *serializer.loads(body)]

    # --- Out ---

    def send(self, data: bytes) -> None:
        """Send a whole message. Ends this process when nobody listens any more."""
        try:
            with self.lock:
                self.sock.sendall(data, NOSIGNAL)
        except ConnectionError:
            raise SystemExit(0) from None

    def send_message(self, message: Message) -> None:
        """The same with descriptors and files."""
        try:
            message.write_files()
            with self.lock:
                sent = send_some(self.sock, message.data, message.fds, 0) if message.fds else 0
                self.sock.sendall(message.data[sent:], NOSIGNAL)
        except ConnectionError:
            raise SystemExit(0) from None
        finally:
            message.close()

    def send_value(self, kind: int, number: int, value: Any) -> None:
        """Send a result, an item or an event. Raises whatever its encoding raises; nothing is sent then."""
        if self.serializer is not None:
            body = self.serializer.dumps((value,))
        elif is_plain(value):
            body = dumps(value, PROTOCOL)
        else:
            self.send_message(message_of(kind, number, 1, encode((value,), beside=True)))
            return
        if len(body) <= INLINE:
            self.send(HEADER.pack(len(body), number, 0, kind, 0, 0) + body)
        else:
            self.send_message(message_of(kind, number, 0, in_pieces(body)))

    def send_error(self, number: int, detail: int, error: BaseException, kind: int = ERROR) -> None:
        """Send an exception: as text, and pickled too where that is possible and allowed."""
        described = pack_texts((type(error).__qualname__, text_of(error), format_error(error)))
        encoded = Encoded()
        if self.serializer is None and detail == RAISED:
            try:
                encoded = encode((error,))
            except Exception:  # pickling runs code of the exception; the text says what there is to say
                encoded = Encoded()
        whole = in_pieces(len(described).to_bytes(4, "little"), described, *encoded.pieces)
        whole.fds = encoded.fds
        whole.holders = encoded.holders
        self.send_message(message_of(kind, number, detail, whole))

    def send_failure(self, number: int, error: BaseException, frames: int = 1) -> None:
        """Send what a function has raised. The first frames of the traceback are ours."""
        for _ in range(frames):
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        self.send_error(number, RAISED, error)


def decode_values(flags: int, body: bytes, fds: Sequence[int]) -> Any:
    """What a pickled body means, with its descriptors, its large buffers and its file. Raises what decoding raises."""
    if not fds:
        return load_values(body, -1, (), ()) if body else ()
    if LOST_DESCRIPTOR in fds:
        close_lost(fds)
        raise DescriptorsLostError
    file = fds[-1] if flags & IN_FILE else -1
    beside = flags & BUFFERS
    end = len(fds) - (file >= 0)
    first = end - beside
    return load_values(body, file, fds[:first], [take(fd) for fd in fds[first:end]])


def close_lost(fds: Sequence[int]) -> None:
    """Close what has come of descriptors that are not complete."""
    from ._channel import close_all

    close_all(fds)


def in_pieces(*pieces: bytes) -> Encoded:
    """Bytes as a body."""
    encoded = Encoded()
    for piece in pieces:
        encoded.write(piece)
    return encoded


def text_of(error: BaseException) -> str:
    """What an exception says."""
    try:
        return str(error)
    except Exception as second:  # a __str__ of the user's that raises must not hide the error itself
        return f"<its __str__ raised {type(second).__name__}>"


# --- Events -----------------------------------------------------------------------------------------------------


def emit(value: object) -> None:
    """Send a value to the ``on_event`` of the running call, or of the worker; it is on the wire when this returns.

    Only for functions that run in a worker: raises RuntimeError elsewhere, and whatever the encoding of the value
    raises. Waits as long as the owner does not read.
    """
    if serving is None:
        raise RuntimeError("emit() works only in a worker: in a function that Worker.call or call runs")
    serving.send_value(EVENT, serving.number, value)


# --- The loop ---------------------------------------------------------------------------------------------------


def serve(channel: socket.socket, *given: Any) -> None:
    """Be a worker: the last of the arguments says how, those before are for its initializer."""
    global serving
    *sent, (version, serializer, concurrency, backend, initializer, initargs) = given
    serving = Serving(channel, serializer)
    try:
        if version != VERSION:
            raise WorkerVersionError(f"the owner speaks version {version} of calls, this worker version {VERSION}")
        if initializer is not None:
            _named(initializer)(*sent, *initargs)
    except Exception as error:
        serving.send_error(0, RAISED, error, FAILED)
        raise SystemExit(1) from None
    serving.send(HEADER.pack(0, 0, VERSION, READY, 0, 0))
    if concurrency is None:
        _Loop(serving).run()
    else:
        from ._worker_async import serve_concurrently

        serve_concurrently(serving, backend)


def serve_one(channel: socket.socket, *given: Any) -> None:
    """Answer the one call that is at the end of the arguments, and end."""
    global serving
    first = len(given) - given[-1] - 2
    function, *args = given[first:-1]
    serving = Serving(channel, None)
    _Loop(serving).answer(1, [_named(function), *args])


def _named(function: Callable[..., Any] | str) -> Callable[..., Any]:
    return find_function(function) if isinstance(function, str) else function


class _Loop:
    """One call after the other; generators in between, as far as their readers want items."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._waiting: deque[_call_wire.Message] = deque()
        self._cancelled: set[int] = set()
        self._streams: dict[int, tuple[Iterator[Any], int]] = {}  # and how many items each may send

    def run(self) -> None:
        """Answer until the owner wants nothing more."""
        signal(SIGINT, self._interrupted)
        serving, waiting = self._serving, self._waiting
        while (messages := self._next()) is not None:
            waiting.extend(messages)
            while waiting:
                kind, number, detail, flags, body, fds = waiting.popleft()
                if kind in (SMALL_CALL, CALL):
                    began = monotonic()
                    if kind == CALL or self._cancelled or not self._small_call(number, detail, body):
                        self._call(number, detail, flags, body, fds)
                    if monotonic() - began > QUICK:
                        self._look_ahead()
                elif kind == FUNCTION:
                    serving.define(number, body)
                elif kind == STREAM:
                    self._stream(number, detail, flags, body, fds)
                elif kind == MORE:
                    self._go_on(number, detail)
                elif kind == CANCEL:
                    self._cancel(number)
        for number in list(self._streams):
            self._streams.pop(number)[0].close()  # type: ignore[attr-defined]  # a generator

    def _next(self) -> list[_call_wire.Message] | None:
        """The next messages; a small call that comes alone is answered at once, in as few steps as can be."""
        serving = self._serving
        receive, inbox = serving.sock.recvmsg, serving.inbox
        while True:
            try:
                data, ancillary, got, _ = receive(READ_SIZE, ROOM, CLOEXEC)
            except ConnectionError:  # the owner ended with something of ours unread
                return None
            if not ancillary and len(data) >= HEADER_SIZE and inbox.idle:
                length, number, detail, kind, _, _ = unpack_from(data)
                if kind == SMALL_CALL and length + HEADER_SIZE == len(data) and not self._cancelled:
                    began = monotonic()
                    if self._small_call(number, detail, data[HEADER_SIZE:]):
                        if monotonic() - began > QUICK:
                            self._look_ahead()
                            return []
                        continue
            if not data:
                return None
            return inbox.take(data, unpack_descriptors(ancillary[0][2]) if ancillary else (), got & TRUNCATED != 0)

    def _interrupted(self, *_: object) -> None:
        """Ctrl-C is the running call's, and nobody's while none runs: the owner decides what becomes of its workers."""
        if self._serving.number:
            raise KeyboardInterrupt

    def _small_call(self, number: int, detail: int, body: bytes) -> bool:
        """What _call does, in the usual case and for less. False when it is not that, and nothing was done."""
        serving = self._serving
        function = serving.functions[detail]
        if type(function) is str:
            return False
        args = loads(body)
        try:
            serving.number = number
            result = function(*args)  # type: ignore[operator]  # no name any more
            serving.number = 0
        except SystemExit:
            raise
        except BaseException as error:
            serving.number = 0
            serving.send_failure(number, error)
            return True
        if type(result) in SCALARS:
            answer = dumps(result, PROTOCOL)
            answer = pack(len(answer), number, 0, RESULT, 0, 0) + answer
            try:
                with serving.lock:
                    serving.sock.sendall(answer, NOSIGNAL)
            except ConnectionError:
                raise SystemExit(0) from None
        else:
            self._send_result(number, result)
        return True

    def _call(self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        if self._cancelled and number in self._cancelled:
            close_lost(fds)
            self._serving.send(HEADER.pack(0, number, 0, CANCELLED, 0, 0))
            return
        try:
            call = self._serving.decode(detail, flags, body, fds)
        except Exception as error:
            self._refuse(number, error)
            return
        self.answer(number, call)

    def _refuse(self, number: int, error: Exception) -> None:
        detail = NO_FUNCTION if isinstance(error, FunctionNotFoundError) else BAD_ARGUMENT
        self._serving.send_error(number, detail, error)

    def answer(self, number: int, call: list[Any]) -> None:
        """Call a function with its arguments, and send what it returns or raises."""
        serving = self._serving
        try:
            serving.number = number
            result = call.pop(0)(*call)
            serving.number = 0
        except SystemExit:
            raise
        except BaseException as error:
            serving.number = 0
            serving.send_failure(number, error)
            return
        self._send_result(number, result)

    def _send_result(self, number: int, result: Any) -> None:
        try:
            self._serving.send_value(RESULT, number, result)
        except Exception as error:  # encoding runs code of the result, which may raise anything
            self._serving.send_error(number, BAD_RESULT, error)

    def _look_ahead(self) -> None:
        """Whether calls that wait here have been cancelled meanwhile."""
        try:
            while messages := self._serving.read(NOWAIT):
                for message in messages:
                    if message[0] == CANCEL:
                        self._cancelled.add(message[1])
                    self._waiting.append(message)
        except BlockingIOError:
            return

    # --- Streams ---

    def _stream(self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        serving = self._serving
        try:
            function, *args = serving.decode(detail, flags, body, fds)
        except Exception as error:
            self._refuse(number, error)
            return
        try:
            serving.number = number
            self._streams[number] = iter(function(*args)), STREAM_WINDOW
        except SystemExit:
            raise
        except BaseException as error:
            serving.send_failure(number, error)
            return
        finally:
            serving.number = 0
        self._step(number)

    def _go_on(self, number: int, count: int) -> None:
        if number in self._streams:
            items, credit = self._streams[number]
            self._streams[number] = items, credit + count
            self._step(number)

    def _step(self, number: int) -> None:
        """Send as many items as may be sent."""
        serving = self._serving
        items, credit = self._streams[number]
        try:
            while credit:
                serving.number = number
                item = next(items)
                serving.number = 0
                serving.send_value(ITEM, number, item)
                credit -= 1
        except StopIteration:
            del self._streams[number]
            serving.send(HEADER.pack(0, number, 0, END, 0, 0))
        except SystemExit:
            raise
        except BaseException as error:
            del self._streams[number]
            if serving.number:
                serving.send_failure(number, error)
            else:
                serving.send_error(number, BAD_RESULT, error)
        else:
            self._streams[number] = items, 0
        finally:
            serving.number = 0

    def _cancel(self, number: int) -> None:
        self._cancelled.discard(number)
        if number not in self._streams:
            return  # answered, or never begun
        items, _ = self._streams.pop(number)
        serving = self._serving
        try:
            serving.number = number
            close = getattr(items, "close", None)
            if close is not None:
                close()
        except SystemExit:
            raise
        except BaseException as error:
            serving.send_failure(number, error)
            return
        finally:
            serving.number = 0
        serving.send(HEADER.pack(0, number, 0, CANCELLED, 0, 0))
