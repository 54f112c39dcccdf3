"""The jobs of an Executor: encoding their calls, and delivering their answers. Nothing here waits."""

from __future__ import annotations

from _pickle import dumps
from _thread import RLock
from concurrent.futures import CancelledError
from itertools import repeat
from weakref import WeakKeyDictionary, ref

from _anyfork_child.values.encode import INLINE, PROTOCOL
from _anyfork_child.values.message import Message
from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.call_messages import (
    BODY,
    CALL,
    CANCELLED,
    CHUNK,
    DETAIL,
    FDS,
    FUNCTION,
    HEADER,
    HEADER_SIZE,
    KEYWORDS,
    KIND,
    NUMBER,
    RESULT,
    SMALL_CALL,
    SMALL_KEYWORDS,
    TIME,
)

from .._calls.known_functions import FunctionsByValue, KnownFunction, fingerprint
from .._calls.requests import Requests
from .._calls.results import decode_value, error_of
from .._errors import ArgumentError, CallCancelledError
from .._pools.records import Job
from .._processes.arguments import check_function
from .._system.locks import do_locked
from .simple_pickle import simple, simple_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol, TypeAlias

    from _anyfork_child.values.by_name_or_value import Receiver
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler

    AnyJob: TypeAlias = "EncodedJob | BatchJob"

    class MapItems(Protocol):
        """A map (_executor.map), as the jobs of its items see it."""

        function: KnownFunction
        kind: int
        on_event: Handler | None
        label: str
        options: dict[str, Any]
        items: dict[int, Any]
        jobs: set[Any]

        def settle(self, index: int, result: Any) -> None: ...
        def over(self, job: Any) -> None: ...


pack = HEADER.pack
MAX_FUNCTIONS = 1000  # functions by name that get numbers; further ones are sent with each call
GONE = -1


class FunctionTable:
    """The functions of an Executor, by number. A worker gets a function before the first call of it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.by_value = FunctionsByValue(receiver)
        self.none = KnownFunction(0, Message(b""))  # stands for a function that is sent with each call
        self._by_name: dict[object, KnownFunction] = {}
        self._same: WeakKeyDictionary[object, tuple[object, KnownFunction]] = WeakKeyDictionary()
        self._seen: ref[object] | None = None  # the last function that was sent by value
        self._lock = RLock()  # numbers are given by any thread

    def find(self, function: Callable[..., Any] | str) -> KnownFunction:
        """Return the function as workers know it, or ``none`` if it is sent with each call.

        Raises ArgumentError if it is not a function.
        """
        try:
            return self._by_name[function]
        except (KeyError, TypeError):
            return do_locked(self._lock, self._define, function)

    def find_for_many(self, function: Callable[..., Any] | str) -> KnownFunction:
        """Return the function in its present state, for many calls. Raises ArgumentError, and OSError."""
        known = self.find(function)
        return self.by_value.take("map", function) if known is self.none else known

    def _define(self, function: Callable[..., Any] | str) -> KnownFunction:
        check_function("submit", function)
        name = function if isinstance(function, str) else self._receiver.name_of(function)
        if name is None:
            return self._define_value(function)
        if function in self._by_name:  # another thread has defined it meanwhile
            return self._by_name[function]
        number = len(self._by_name) + 1
        if number > MAX_FUNCTIONS:
            return self.none
        body = name.encode()
        known = KnownFunction(number, Message(pack(len(body), number, 0, FUNCTION, 0, 0) + body))
        self._by_name[function] = known
        return known

    def _define_value(self, function: Any) -> KnownFunction:
        """Give a number to a function that is sent by value; return ``none`` if it is sent with each call instead.

        Each worker gets it once, as long as nothing that it refers to can have changed.
        """
        print_now = fingerprint(function, self._receiver)
        if print_now is None:
            return self.none
        before, known = self._same.get(function, (None, self.none))
        if before != print_now:
            if (self._seen is None or self._seen() is not function) and not self.by_value.looks_large(function):
                self._seen = ref(function)  # no number yet: most functions are called once
                return self.none
            try:
                known = self.by_value.take("submit", function)
            except ArgumentError:  # encoding the call reports the error
                return self.none
            self._same[function] = print_now, known
        return known


class JobEncoder:
    """An encoder of calls, for all workers of the Executor. Its methods raise ArgumentError."""

    def __init__(self, receiver: Receiver) -> None:
        self.functions = FunctionTable(receiver)
        self._requests = Requests(None, receiver)

    def encode(
        self, function: Callable[..., Any] | str, args: Sequence[Any], keywords: dict[str, Any]
    ) -> tuple[KnownFunction, int, bytes | Message]:
        """Encode a call. Return the function, the kind of the message, and the message or, if it is small, its body.

        Raises OSError too.
        """
        known = self.functions.find(function)
        if known.number:
            return self._encode_known(known, function, args, keywords)
        if isinstance(function, str):
            return known, CALL, self._message(CALL, 0, with_keywords(_found(function), keywords), args)
        by_value = self.functions.by_value
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
        """Encode an item of a map as ``encode`` does: the arguments of a call, or a chunk of such arguments."""
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
            message.keep()  # the message may wait in a queue, and have to be sent again
        except BaseException:
            message.close()
            raise
        return message


def with_keywords(function: Callable[..., Any], keywords: dict[str, Any]) -> Callable[..., Any]:
    """Bind keyword arguments to the function; return it unchanged if there are none."""
    if not keywords:
        return function
    from functools import partial

    return partial(function, **keywords)


def _found(function: str) -> Callable[..., Any]:
    from _anyfork_child.values.decode import find_function

    return find_function(function)


class EncodedJob(Job):
    """A job with an encoded call. Subclasses define ``settle``, which delivers the result or the error."""

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
        """Append a small call to ``parts``; return any other call as a message, which may have descriptors."""
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
        """True if a deferred job should be dropped, because its result is no longer wanted. Always False here."""
        return False

    def begin(self) -> None:
        """Prepare the job for the worker that gets it. Does nothing here; subclasses may override it."""

    def settle(self, error: BaseException | None, value: Any) -> None:
        """Deliver the error, or the result if ``error`` is None. Each kind of job implements this."""
        raise NotImplementedError

    def finish(self, message: call_messages.Message) -> None:
        """Decode the answer and deliver it. Runs without any lock, because decoding may run arbitrary code."""
        error: BaseException | None = None
        value = None
        try:
            value = load_plain(message[BODY]) if plain(message) else value_of(message)
        except BaseException as raised:
            error = raised
        self.release()
        self.settle(error, value)

    def fail(self, error: BaseException) -> None:
        """Deliver an error in place of an answer."""
        self.release()
        self.settle(error, None)

    def give_up(self, calls: object) -> None:
        """Do nothing when the job is no longer wanted: a worker that has it goes on with it."""

    def release(self) -> None:
        """Release the encoded call."""
        body, self.body = self.body, b""
        if isinstance(body, Message):
            body.close()


def plain(message: call_messages.Message) -> bool:
    """Return whether the message is a result that is a plain pickle of a value."""
    return message[KIND] == RESULT and not (message[DETAIL] & 1 or message[FDS])


def value_of(message: call_messages.Message) -> Any:
    """Decode the result in an answer. Raises the function's exception, ResultError, and CallCancelledError."""
    kind, number, detail, flags, body, fds = message
    if kind == RESULT:
        return decode_value(None, (kind, number, detail & 1, flags, body, fds))
    if kind == CANCELLED:
        raise CallCancelledError("the call was cancelled")
    raise error_of(detail, flags, body, fds, True, (Exception, SystemExit))


class BatchJob(Job):
    """A job of several small items of a map. A worker processes them one by one, and answers each separately."""

    __slots__ = ("_first", "_indexes", "function", "left", "on_event", "took", "work")

    def __init__(self, work: MapItems, indexes: list[int]) -> None:
        super().__init__(size=len(indexes), **work.options)
        self.label = work.label
        self.work = work
        self.function = work.function
        self.on_event = work.on_event
        self.left = len(indexes)  # items that have no answer yet
        self.took = 0  # microseconds that the answered items have taken
        self._indexes = indexes  # GONE for items that were taken back
        self._first = 0

    def write(self, parts: list[bytes], number: int, held: int) -> None:
        """Append the encoded items to ``parts``."""
        self._first = number
        body = dumps([self.work.items[index] for index in self._indexes], PROTOCOL)
        parts += (pack(len(body), number, self.function.number | held, self.work.kind, 0, 0), body)

    def begin(self) -> None:
        """Drop the items that have answers already, if another worker had the job and died."""
        if self.left != len(self._indexes):
            self._indexes = self.open()
            self.size = self.left

    def open(self) -> list[int]:
        """Return the indexes of the items that have no answer."""
        items = self.work.items
        return [index for index in self._indexes if index in items]

    @property
    def answers(self) -> int:
        """The number of items that have an answer."""
        return self.size - self.left

    def answered(self, message: call_messages.Message) -> int:
        """Record the duration of an answer; remove its item from the job, and return the item's index."""
        self.took += message[DETAIL] >> TIME
        return self.take_out(message[NUMBER])

    def take_out(self, number: int) -> int:
        """Remove the item of a call from the job; return the item's index."""
        index = self._indexes[number - self._first]
        self.left -= 1
        self.work.items.pop(index, None)
        return index

    unwanted = False  # the job is never deferred: its map is

    def split(self, numbers: list[int]) -> tuple[BatchJob, Sequence[Iterable[object]]]:
        """Return a new job for the items of these calls, which have not begun, and the steps that remove them here.

        The steps must run all or not at all, see ``in_one_go``.
        """
        places = [number - self._first for number in numbers]
        remove = map(self._indexes.__setitem__, places, repeat(GONE))
        count = map(setattr, (self, self), ("left", "size"), (self.left - len(places), self.size - len(places)))
        return BatchJob(self.work, [self._indexes[place] for place in places]), (remove, count)

    def fail(self, error: BaseException) -> None:
        """Deliver an error for all items that have no answer."""
        for index in self.open():
            self.work.items.pop(index, None)
            self.work.settle(index, Raised(error))

    def cancel(self) -> None:
        """Deliver CancelledError for all items that have no answer: the job will not run."""
        self.fail(CancelledError())

    def give_up(self, calls: object) -> None:
        """Do nothing when the job is no longer wanted: a worker that has it goes on with it."""

    def release(self) -> None:
        """Do nothing: items are encoded only when they are written."""


class UnsentItem:
    """An item of a map that is in no job and will not run."""

    __slots__ = ("_index", "_work")

    def __init__(self, work: MapItems, index: int) -> None:
        self._work = work
        self._index = index

    def fail(self, error: BaseException) -> None:
        """Deliver an error in place of the item's result."""
        self._work.settle(self._index, Raised(error))

    def cancel(self) -> None:
        """Deliver CancelledError in place of the item's result."""
        self._work.settle(self._index, Raised(CancelledError()))


class Raised:
    """An error that is stored in place of a result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
