"""The jobs of an Executor: calls into bytes, and answers into what waits for them. Nothing here waits."""

from __future__ import annotations

from _pickle import dumps, loads
from _thread import RLock
from concurrent.futures import CancelledError
from weakref import WeakKeyDictionary, ref

from _anyfork_child.values.encode import INLINE, PROTOCOL
from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import (
    CALL,
    CANCELLED,
    CHUNK,
    FUNCTION,
    HEADER,
    HEADER_SIZE,
    KEYWORDS,
    RESULT,
    SMALL_CALL,
    SMALL_KEYWORDS,
)

from .._calls.fingerprint import fingerprint
from .._calls.known_functions import FunctionsByValue, KnownFunction
from .._calls.requests import Requests
from .._calls.results import decode_value, error_of
from .._errors import ArgumentError, CallCancelledError
from .._pools.jobs import Job
from .._processes.arguments import check_function
from .simple_pickle import simple, simple_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from _anyfork_child.values.receiver import Receiver
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .map import MapWork

    AnyJob: TypeAlias = "EncodedJob | BatchJob"

pack = HEADER.pack
MAX_FUNCTIONS = 1000  # by name, that have numbers; others go with each call
GONE = -1


class Definitions:
    """The functions of an Executor. A worker is told of one before its first call."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.by_value = FunctionsByValue(receiver)
        self.none = KnownFunction(0, Message(b""))  # in the place of one that goes with each call
        self._by_name: dict[object, KnownFunction] = {}
        self._same: WeakKeyDictionary[object, tuple[object, KnownFunction]] = WeakKeyDictionary()
        self._seen: ref[object] | None = None  # the last function that went by value
        self._lock = RLock()  # numbers are given by any thread

    def find(self, function: Callable[..., Any] | str) -> KnownFunction:
        """The function as workers know it, or ``none``. Raises ArgumentError for what is no function."""
        try:
            return self._by_name[function]
        except (KeyError, TypeError):
            with self._lock:
                return self._define(function)

    def find_for_many(self, function: Callable[..., Any] | str) -> KnownFunction:
        """The same for many calls, all with the function as it is now. Raises ArgumentError, and OSError."""
        known = self.find(function)
        return self.by_value.take("map", function) if known is self.none else known

    def _define(self, function: Callable[..., Any] | str) -> KnownFunction:
        check_function("submit", function)
        name = function if isinstance(function, str) else self._receiver.name_of(function)
        if name is None:
            return self._define_value(function)
        number = len(self._by_name) + 1
        if number > MAX_FUNCTIONS:
            return self.none
        body = name.encode()
        known = KnownFunction(number, Message(pack(len(body), number, 0, FUNCTION, 0, 0) + body))
        self._by_name[function] = known
        return known

    def _define_value(self, function: Any) -> KnownFunction:
        """One that goes by value is sent once, as long as nothing that it refers to can have changed."""
        print_now = fingerprint(function, self._receiver)
        if print_now is None:
            return self.none
        before, known = self._same.get(function, (None, self.none))
        if before != print_now:
            if (self._seen is None or self._seen() is not function) and not self.by_value.looks_large(function):
                self._seen = ref(function)  # most are called once
                return self.none
            try:
                known = self.by_value.take("submit", function)
            except ArgumentError:  # whoever encodes the call says what is wrong
                return self.none
            self._same[function] = print_now, known
        return known


class JobEncoder:
    """Calls into bytes that any worker of the Executor understands. Raises ArgumentError."""

    def __init__(self, receiver: Receiver) -> None:
        self.definitions = Definitions(receiver)
        self._requests = Requests(None, receiver)

    def encode(
        self, function: Callable[..., Any] | str, args: Sequence[Any], keywords: dict[str, Any]
    ) -> tuple[KnownFunction, int, bytes | Message]:
        """The function, the kind of the message, and its body, or the message. Raises OSError too."""
        known = self.definitions.find(function)
        if known.number:
            return self._encode_known(known, function, args, keywords)
        if isinstance(function, str):
            return known, CALL, self._message(CALL, 0, with_keywords(_found(function), keywords), args)
        by_value = self.definitions.by_value
        large = by_value.take_large("submit", function) if by_value.looks_large(function) else None
        if large is None:
            message = self._message(CALL, 0, with_keywords(function, keywords), args)
            if message.size <= INLINE or (large := by_value.take_large("submit", function)) is None:
                return known, CALL, message
            message.close()
        return self._encode_known(large, function, args, keywords)

    def encode_item(
        self, known: KnownFunction, function: Callable[..., Any] | str, item: Any, chunk: bool
    ) -> tuple[KnownFunction, int, bytes | Message]:
        """The same for an item of a map: the arguments of a call, or a chunk of those."""
        if chunk:
            return known, CHUNK, self._message(CHUNK, known.number, function, (item,))
        return self._encode_known(known, function, item, {})

    def _encode_known(
        self, known: KnownFunction, function: Callable[..., Any] | str, args: Sequence[Any], keywords: dict[str, Any]
    ) -> tuple[KnownFunction, int, bytes | Message]:
        body = simple((args, keywords)) if keywords else simple_arguments(args)
        if body is not None:
            return known, SMALL_KEYWORDS if keywords else SMALL_CALL, body
        if keywords:
            return known, KEYWORDS, self._message(KEYWORDS, known.number, function, (args, keywords))
        return known, CALL, self._message(CALL, known.number, function, args)

    def _message(self, kind: int, number: int, function: Callable[..., Any] | str, args: Sequence[Any]) -> Message:
        message = self._requests.message("submit", kind, 0, number, function, args)
        try:
            message.write_files()
            message.keep()  # it may wait, and have to be sent again
        except BaseException:
            message.close()
            raise
        return message


def with_keywords(function: Callable[..., Any], keywords: dict[str, Any]) -> Callable[..., Any]:
    """The function with these keyword arguments."""
    if not keywords:
        return function
    from functools import partial

    return partial(function, **keywords)


def _found(function: str) -> Callable[..., Any]:
    from _anyfork_child.values.decode import find_function

    return find_function(function)


class EncodedJob(Job):
    """A job with an encoded call. ``settle`` is what a subclass does with its result or error."""

    __slots__ = ("body", "function", "kind", "on_event")

    def __init__(
        self,
        encoded: tuple[KnownFunction, int, bytes | Message],
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
            parts += (pack(len(body), number, self.function.number | held, self.kind, 0, 0), body)
            return None
        assert isinstance(body, Message)
        data = bytes(body.data)
        length, _, _, kind, flags, count = HEADER.unpack_from(data)
        return body.again(pack(length, number, self.function.number | held, kind, flags, count) + data[HEADER_SIZE:])

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more, although it was put off and has not begun."""
        return False

    def begin(self) -> None:
        """A worker is to have it."""

    def settle(self, error: BaseException | None, value: Any) -> None:
        """It has this result, or error."""
        raise NotImplementedError

    def finish(self, message: call_messages.Message) -> None:
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


def plain(message: call_messages.Message) -> bool:
    """Whether it is a result that is a plain pickle of a value."""
    return message[0] == RESULT and not (message[2] & 1 or message[5])


def value_of(message: call_messages.Message) -> Any:
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
        parts += (pack(len(body), number, self.function.number | held, self.work.kind, 0, 0), body)

    def begin(self) -> None:
        """A worker is to have it: after the death of another one, what is left of it."""
        if self.left != self.size:
            self._indexes = self.open()
            self.size = self.left

    def open(self) -> list[int]:
        """The items that have no answer."""
        items = self.work.items
        return [index for index in self._indexes if index in items]

    def answered(self, message: call_messages.Message) -> int:
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
