"""The jobs of an Executor: calls into bytes, and answers into what waits for them. Nothing here waits."""

from __future__ import annotations

from _pickle import dumps, loads
from _thread import RLock
from concurrent.futures import CancelledError
from weakref import WeakKeyDictionary, ref

from _anyfork_child._call_wire import (
    CALL,
    CANCELLED,
    FUNCTION,
    HEADER,
    HEADER_SIZE,
    KEYWORDS,
    RESULT,
    SMALL_CALL,
    VALUE,
)
from _anyfork_child._encoding import INLINE, PROTOCOL, encode
from _anyfork_child._message import Message

from ._answers import decode_value, error_of
from ._arguments import check_function
from ._errors import CallCancelledError
from ._fingerprint import fingerprint
from ._jobs import Job
from ._requests import Requests
from ._simple_pickle import simple, simple_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from _anyfork_child import _call_wire
    from _anyfork_child._receiver import Receiver

    from ._executor_map import MapWork
    from ._pending import Handler

    AnyJob: TypeAlias = "EncodedJob | BatchJob"

pack = HEADER.pack
MAX_FUNCTIONS = 1000  # that have numbers; others go with each call
GONE = -1


class Definitions:
    """The functions of an Executor, by number. A worker is told of one before its first call."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._numbers: dict[object, int] = {}
        self._frames: list[bytes] = []
        self._by_value: WeakKeyDictionary[object, tuple[object, int]] = WeakKeyDictionary()
        self._seen: ref[object] | None = None  # the last function that went by value
        self._lock = RLock()  # numbers are given by any thread

    def number(self, function: Callable[..., Any] | str) -> int:
        """That of a function; 0 for one that goes with each call. Raises ArgumentError for what is no function."""
        try:
            return self._numbers[function]
        except (KeyError, TypeError):
            with self._lock:
                return self._define(function)

    def number_for_many(self, function: Callable[..., Any] | str) -> int:
        """The same for many calls, all with the function as it is now."""
        number = self.number(function)
        if not number and not isinstance(function, str):
            with self._lock:
                number = self._define_value(function) or self._add_value(function)
        return number

    def _define(self, function: Callable[..., Any] | str) -> int:
        check_function("submit", function)
        if len(self._frames) >= MAX_FUNCTIONS:
            return 0
        name = function if isinstance(function, str) else self._receiver.name_of(function)
        if name is None:
            return self._define_value(function)
        self._numbers[function] = number = self._add(FUNCTION, name.encode())
        return number

    def _define_value(self, function: object) -> int:
        """One that goes by value is sent once, as long as nothing that it refers to can have changed."""
        print_now = fingerprint(function, self._receiver)
        if print_now is None:
            return 0
        known, number = self._by_value.get(function, (None, 0))
        if known != print_now:
            if self._seen is None or self._seen() is not function:  # most are called once
                self._seen = ref(function)
                return 0
            number = self._add_value(function)
            self._by_value[function] = print_now, number
        return number

    def _add_value(self, function: object) -> int:
        if len(self._frames) >= MAX_FUNCTIONS:
            return 0
        try:
            encoded = encode((function,), receiver=self._receiver)
        except Exception:  # pickling may run any code; whoever encodes the call says what is wrong
            return 0
        if encoded.fds or encoded.buffers or encoded.size > INLINE:
            return 0
        return self._add(VALUE, b"".join(encoded.pieces))

    def _add(self, kind: int, body: bytes) -> int:
        number = len(self._frames) + 1
        self._frames.append(pack(len(body), number, 0, kind, 0, 0) + body)
        return number

    def from_to(self, known: int, wanted: int) -> bytes:
        """What tells a worker that knows so many of the others."""
        return b"".join(self._frames[known:wanted])


class JobEncoder:
    """Calls into bytes that any worker of the Executor understands. Raises ArgumentError."""

    def __init__(self, receiver: Receiver) -> None:
        self.definitions = Definitions(receiver)
        self._requests = Requests(None, receiver)

    def encode(
        self, function: Callable[..., Any] | str, args: Sequence[Any], keywords: dict[str, Any]
    ) -> tuple[int, int, bytes | Message]:
        """The number of the function, the kind of the message, and its body, or the message."""
        number = self.definitions.number(function)
        if number:
            body = simple((args, keywords)) if keywords else simple_arguments(args)
            if body is not None:
                return number, KEYWORDS if keywords else SMALL_CALL, body
        if keywords:
            from functools import partial

            function, number = partial(_callable(function), **keywords), 0
        message = self._requests.message("submit", CALL, 0, number, function, args)
        try:
            message.write_files()
            message.keep()  # it may wait, and have to be sent again
        except BaseException:
            message.close()
            raise
        return number, CALL, message


def _callable(function: Callable[..., Any] | str) -> Callable[..., Any]:
    if isinstance(function, str):
        from _anyfork_child._values import find_function

        return find_function(function)
    return function


class EncodedJob(Job):
    """A job with an encoded call. ``settle`` is what a subclass does with its result or error."""

    __slots__ = ("body", "function", "kind", "on_event")

    def __init__(
        self,
        encoded: tuple[int, int, bytes | Message],
        *,
        on_event: Handler | None = None,
        priority: float = 0,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> None:
        super().__init__(priority=priority, timeout=timeout, idempotent=idempotent)
        self.function, self.kind, self.body = encoded
        self.on_event = on_event

    def write(self, parts: list[bytes], number: int, held: int) -> Message | None:
        """Add what is to be sent to the parts; a message with descriptors is returned."""
        body = self.body
        if type(body) is bytes:
            parts += (pack(len(body), number, self.function | held, self.kind, 0, 0), body)
            return None
        assert isinstance(body, Message)
        data = bytes(body.data)
        length, _, _, kind, flags, count = HEADER.unpack_from(data)
        return body.again(pack(length, number, self.function | held, kind, flags, count) + data[HEADER_SIZE:])

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more, although it was put off and has not begun."""
        return False

    def begin(self) -> None:
        """A worker is to have it."""

    def settle(self, error: BaseException | None, value: Any) -> None:
        """It has this result, or error."""
        raise NotImplementedError

    def finish(self, message: _call_wire.Message) -> None:
        """Its answer has come. Runs without any lock: decoding may run any code."""
        error: BaseException | None = None
        value = None
        try:
            value = loads(message[4]) if plain(message) else value_of(message)
        except BaseException as raised:
            error = raised
        self.release()
        self.settle(error, value)

    def fail(self, error: BaseException) -> None:
        """It has this error instead of an answer."""
        self.release()
        self.settle(error, None)

    def give_up(self, calls: object) -> None:
        """Nobody waits for what a worker has of it: it goes on."""

    def release(self) -> None:
        """Let go of what was encoded."""
        body, self.body = self.body, b""
        if isinstance(body, Message):
            body.close()


def plain(message: _call_wire.Message) -> bool:
    """Whether it is a result that is a plain pickle of a value."""
    return message[0] == RESULT and not (message[2] & 1 or message[5])


def value_of(message: _call_wire.Message) -> Any:
    """The result in an answer. Raises what the function has raised, ResultError, and CallCancelledError."""
    kind, number, detail, flags, body, fds = message
    if kind == RESULT:
        return decode_value(None, (kind, number, detail & 1, flags, body, fds))
    if kind == CANCELLED:
        raise CallCancelledError("the call was cancelled")
    raise error_of(detail, flags, body, fds, True, (Exception, SystemExit))


class BatchJob(Job):
    """Several small items of a map, which a worker does one after the other, each with an answer of its own."""

    __slots__ = ("_first", "_indexes", "function", "left", "on_event", "took", "work")

    def __init__(self, work: MapWork, indexes: list[int]) -> None:
        super().__init__(size=len(indexes), **work.options)
        self.work = work
        self.function = work.function
        self.on_event = work.on_event
        self.left = len(indexes)  # that have no answer yet
        self.took = 0  # microseconds, of those that have
        self._indexes = indexes  # GONE for those that were taken back
        self._first = 0

    def write(self, parts: list[bytes], number: int, held: int) -> None:
        """Add what is to be sent to the parts."""
        self._first = number
        body = dumps([self.work.items[index] for index in self._indexes], PROTOCOL)
        parts += (pack(len(body), number, self.function | held, self.work.kind, 0, 0), body)

    def begin(self) -> None:
        """A worker is to have it: after the death of another one, what is left of it."""
        if self.left != self.size:
            self._indexes = self.open()
            self.size = self.left

    def open(self) -> list[int]:
        """The items that have no answer."""
        items = self.work.items
        return [index for index in self._indexes if index in items]

    def answered(self, message: _call_wire.Message) -> int:
        """Which of its items has this answer."""
        self.took += message[2] >> 1
        return self.take_out(message[1])

    def take_out(self, number: int) -> int:
        """The item of this call, which is not one of its any more."""
        index = self._indexes[number - self._first]
        self.left -= 1
        self.work.items.pop(index, None)
        return index

    unwanted = False  # it is never put off: its map is

    def split(self, numbers: list[int]) -> BatchJob:
        """The items of these calls, which have not begun, as a job of their own."""
        taken = [self._indexes[number - self._first] for number in numbers]
        for number in numbers:
            self._indexes[number - self._first] = GONE
        self.left -= len(taken)
        return BatchJob(self.work, taken)

    def fail(self, error: BaseException) -> None:
        """All of it that has no answer has this error instead."""
        for index in self.open():
            self.work.items.pop(index, None)
            self.work.settle(index, Raised(error))

    def cancel(self) -> None:
        """It will not run."""
        self.fail(CancelledError())

    def give_up(self, calls: object) -> None:
        """Nobody waits for what a worker has of it: it goes on."""

    def release(self) -> None:
        """Nothing is encoded before it is written."""


class Item:
    """One item of a map, of which nothing will come."""

    __slots__ = ("_index", "_work")

    def __init__(self, work: MapWork, index: int) -> None:
        self._work = work
        self._index = index

    def fail(self, error: BaseException) -> None:
        """It has this error instead."""
        self._work.settle(self._index, Raised(error))

    def cancel(self) -> None:
        """Nothing of it will be done."""
        self._work.settle(self._index, Raised(CancelledError()))


class Raised:
    """In the place of a result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
