"""The call loop of a worker that answers one call after the other, in their order.

``serve`` takes over the process. The loop is written for speed: a call with small values costs one read and one write.
A worker of a pool runs worker.job_loop.
"""

from __future__ import annotations

from _pickle import loads
from collections import deque
from time import monotonic

from ..values.decode import FunctionNotFoundError, keep_shared_data, named
from ..values.encode import INLINE
from ..values.scalars import FORMAT, SCALARS, dump_scalars, load_plain
from ..wire.call_messages import (
    BAD_RESULT,
    CALL,
    CANCEL,
    CANCELLED,
    END,
    FAILED,
    FORGET,
    FUNCTION,
    HEADER,
    HEADER_SIZE,
    ITEM,
    MORE,
    NO_FUNCTION,
    NUMBER,
    RAISED,
    READY,
    RESULT,
    SMALL_CALL,
    SMALL_CALLS,
    STREAM,
    STREAM_WINDOW,
    VALUE,
    VERSION,
)
from ..wire.channel import NOWAIT, close_all
from ..wire.descriptors import claim
from ..wire.emitter import become
from .server import NobodyListensError, WorkerServer, handle_interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ..values.decode import Descriptor
    from ..wire import call_messages
    from .title import PoolTitle

pack, unpack_from = HEADER.pack, HEADER.unpack_from
UNRESOLVED = frozenset({str, tuple})  # types of the placeholders for a function until its first call
QUICK = 0.0002  # seconds: after a longer call, the loop checks whether queued calls have been cancelled meanwhile


class WorkerVersionError(Exception):
    """Raised when owner and worker are of different versions of anyfork."""


def serve(channel: socket.socket, *given: Any) -> None:
    """Run this process as a worker; the last argument has its settings, the others go to its initializer."""
    server, concurrency, backend, _, _ = begin(channel, given)
    if concurrency is None:
        Loop(server).run()
    else:
        from .async_loop import serve_concurrently

        serve_concurrently(server, backend)


def begin(
    channel: socket.socket, given: Sequence[Any]
) -> tuple[WorkerServer, int | None, str, Descriptor | None, PoolTitle | None]:
    """Run the initializer and report that this worker is ready. Return what it was started with.

    If the version differs or the initializer fails, send the error and raise SystemExit.
    """
    *sent, (version, serializer, concurrency, backend, initializer, initargs, permits, logs, title, in_pool) = given
    server = become(WorkerServer(channel, serializer))
    if in_pool:
        server.fatal = NobodyListensError
    if logs is not None:
        from .logs import send_logs

        send_logs(server, *logs)
    if title is not None:
        from .title import PoolTitle

        title = PoolTitle(*title)
    if permits is not None:
        claim(permits.fileno())
    try:
        if version != VERSION:
            raise WorkerVersionError(f"the owner speaks version {version} of calls, this worker version {VERSION}")
        if initializer is not None:
            named(initializer)(*sent, *initargs)
            keep_shared_data()
    except SystemExit:
        raise
    except BaseException as error:
        server.send_error(0, RAISED, error, FAILED)
        raise SystemExit(1) from None
    server.send(HEADER.pack(0, 0, VERSION, READY, 0, 0))
    return server, concurrency, backend, permits, title


def serve_one(channel: socket.socket, *given: Any) -> None:
    """Answer the single call at the end of the arguments.

    The last argument is the number of the function's arguments, which come just before it, after the function.
    """
    first = len(given) - given[-1] - 2
    function, *args = given[first:-1]
    server = become(WorkerServer(channel, None))
    try:
        called = named(function)
    except FunctionNotFoundError as error:
        server.send_error(1, NO_FUNCTION, error)
    else:
        Loop(server).answer(1, called, args)


class Loop:
    """The loop of a worker: it answers one call after the other, and steps generators whenever readers want items."""

    def __init__(self, server: WorkerServer) -> None:
        self._serving = server
        self._waiting: deque[call_messages.Message] = deque()
        self._cancelled: set[int] = set()
        self._streams: dict[int, tuple[Iterator[Any], int]] = {}  # each with the number of items that it may send

    def run(self) -> None:
        """Answer calls until the owner closes the channel."""
        handle_interrupts(self._interrupted)
        server, waiting = self._serving, self._waiting
        while (messages := self._next()) is not None:
            self._accept(messages)
            while waiting:
                kind, number, detail, flags, body, fds = waiting.popleft()
                if kind in (SMALL_CALL, CALL):
                    began = monotonic()
                    if kind == CALL or self._cancelled or not self._small_call(number, detail, body):
                        self._call(number, detail, flags, body, fds)
                    if monotonic() - began > QUICK:
                        self._look_ahead()
                elif kind == SMALL_CALLS:
                    self._small_calls(detail, body)
                elif kind == FUNCTION:
                    server.define(number, body)
                elif kind == VALUE:
                    server.keep(number, detail, flags, body, fds)
                elif kind == FORGET:
                    server.forget(number)
                elif kind == STREAM:
                    self._stream(number, detail, flags, body, fds)
                elif kind == MORE:
                    self._go_on(number, detail)
                elif kind == CANCEL:
                    self._cancel(number)
        for items, _ in self._streams.values():
            close_items(items)

    def _next(self) -> list[call_messages.Message] | None:
        """Wait for messages; return them, or None at the end of the stream.

        Small calls that arrive alone are answered here, in as few steps as possible.
        """
        receive, inbox = self._serving.receive, self._serving.inbox
        while True:
            data, fds, truncated = receive(0)
            if not fds and len(data) >= HEADER_SIZE and inbox.idle:
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
            return inbox.take(data, fds, truncated)

    def _interrupted(self, *_: object) -> None:
        """Raise KeyboardInterrupt in the running call on Ctrl-C.

        Ignore Ctrl-C between calls: the owner decides about its workers.
        """
        if self._serving.number:
            raise KeyboardInterrupt

    def _small_calls(self, detail: int, body: bytes) -> None:
        """Answer the calls of one SMALL_CALLS message, one after the other."""
        numbers, items = loads(body)
        function = self._serving.functions[detail]
        if type(function) in UNRESOLVED:
            try:
                function = self._serving.function(detail)
            except BaseException as error:  # decoding a function by value may raise anything
                for number in numbers:
                    self._serving.refuse(number, error)
                return
        server, cancelled, send = self._serving, self._cancelled, self._serving.send
        ended = 0.0  # look ahead after the first call in any case: it may have waited, however short it is
        for number, item in zip(numbers, items, strict=True):
            if cancelled and number in cancelled:
                send(pack(0, number, 0, CANCELLED, 0, 0))
                continue
            try:  # the same as ``answer``, without the cost of a call
                server.number = number
                result = function(item)  # type: ignore[operator]  # no name any more
                server.number = 0
            except server.fatal:
                raise
            except BaseException as error:
                server.number = 0
                server.send_failure(number, error)
            else:
                if type(result) in SCALARS and len(body := dump_scalars(result, FORMAT)) <= INLINE:
                    send(pack(len(body), number, 0, RESULT, 0, 0) + body)
                else:
                    server.send_result(number, result)
            began, ended = ended, monotonic()
            if ended - began > QUICK:
                self._look_ahead()

    def _small_call(self, number: int, detail: int, body: bytes) -> bool:
        """Answer a small call as ``_call`` does, at less cost. Return False, with nothing done, if it cannot."""
        function = self._serving.functions[detail]
        if type(function) in UNRESOLVED:
            return False
        self.answer(number, function, load_plain(body))  # type: ignore[arg-type]  # no name any more
        return True

    def answer(self, number: int, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """Call a function with its arguments, and send its result or exception. Raises what ends the worker."""
        server = self._serving
        try:
            server.number = number
            result = function(*args)
            server.number = 0
        except server.fatal:
            raise
        except BaseException as error:
            server.number = 0
            server.send_failure(number, error)
            return
        if type(result) in SCALARS and server.serializer is None:
            body = dump_scalars(result, FORMAT)
            if len(body) <= INLINE:
                server.send(pack(len(body), number, 0, RESULT, 0, 0) + body)
                return
        server.send_result(number, result)

    def _call(self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        if self._cancelled and number in self._cancelled:
            close_all(fds)
            self._serving.send(HEADER.pack(0, number, 0, CANCELLED, 0, 0))
            return
        try:
            function, *args = self._serving.decode(detail, flags, body, fds)
        except BaseException as error:
            self._serving.refuse(number, error)
            return
        self.answer(number, function, args)

    def _look_ahead(self) -> None:
        """Read and queue the messages that have arrived, to learn which queued calls have been cancelled."""
        try:
            while messages := self._serving.read(NOWAIT):
                self._accept(messages)
        except BlockingIOError:
            return

    def _accept(self, messages: Sequence[call_messages.Message]) -> None:
        """Queue messages, and note the calls that they cancel: a CANCEL follows its call, possibly in the same read."""
        self._waiting.extend(messages)
        if len(self._waiting) > 1:
            self._cancelled.update(message[NUMBER] for message in messages if message[0] == CANCEL)

    # --- Streams ---

    def _stream(self, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        server = self._serving
        try:
            function, *args = server.decode(detail, flags, body, fds)
        except BaseException as error:
            self._serving.refuse(number, error)
            return
        done, items = self._attempt(number, function, *args)
        if done:
            done, items = self._attempt(number, iter, items)
        if done:
            self._streams[number] = items, STREAM_WINDOW
            self._step(number)

    def _attempt(self, number: int, function: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
        """Call a function of a stream. Return True and its result, or send its exception and return False."""
        server = self._serving
        try:
            server.number = number
            return True, function(*args)
        except server.fatal:
            raise
        except BaseException as error:
            server.send_failure(number, error)
            return False, None
        finally:
            server.number = 0

    def _go_on(self, number: int, count: int) -> None:
        if number in self._streams:
            items, credit = self._streams[number]
            self._streams[number] = items, credit + count
            self._step(number)

    def _step(self, number: int) -> None:
        """Send as many items of a stream as its credit allows."""
        server = self._serving
        items, credit = self._streams[number]
        try:
            while credit:
                server.number = number
                item = next(items)
                server.number = 0
                server.send_value(ITEM, number, item)
                credit -= 1
        except StopIteration:
            del self._streams[number]
            server.send(HEADER.pack(0, number, 0, END, 0, 0))
        except server.fatal:
            raise
        except BaseException as error:
            del self._streams[number]
            if server.number:
                server.send_failure(number, error)
            else:
                server.send_error(number, BAD_RESULT, error)
        else:
            self._streams[number] = items, 0
        finally:
            server.number = 0

    def _cancel(self, number: int) -> None:
        self._cancelled.discard(number)
        if number not in self._streams:
            return  # the call was answered, or never begun
        items, _ = self._streams.pop(number)
        done, _ = self._attempt(number, close_items, items)
        if done:
            self._serving.send(HEADER.pack(0, number, 0, CANCELLED, 0, 0))


def close_items(items: Iterator[Any]) -> None:
    """Close a generator; other iterators have nothing to close."""
    close = getattr(items, "close", None)
    if close is not None:
        close()
