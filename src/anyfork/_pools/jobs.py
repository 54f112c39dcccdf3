"""The jobs of a pool: the messages of their calls, and the delivery of their answers. Nothing here waits."""

from __future__ import annotations

from _pickle import dumps
from concurrent.futures import CancelledError
from itertools import repeat

from _anyfork_child.values.encode import PROTOCOL
from _anyfork_child.values.message import Message
from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.call_messages import (
    BODY,
    CANCELLED,
    DETAIL,
    FDS,
    HEADER,
    HEADER_SIZE,
    KIND,
    NUMBER,
    RESULT,
    TIME,
)

from .._calls.events import Event
from .._calls.results import decode_value, error_of
from .._errors import CallCancelledError
from .._system.log import may_be_interrupt
from .records import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol, TypeAlias

    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._calls.call import Failed, Handler
    from .._calls.known_functions import KnownFunction
    from .encoder import Encoded

    AnyJob: TypeAlias = "EncodedJob | BatchJob"

    class Decoding(Protocol):
        """A pool, as its answers are decoded: ``raised`` are the exceptions of functions that are rebuilt here."""

        serializer: Serializer | None
        raised: tuple[type[BaseException], ...]

    class MapOfJobs(Protocol):
        """A map (_pools.map), as the jobs of its items see it."""

        function: KnownFunction
        kind: int
        on_event: Handler | None
        label: str
        options: dict[str, Any]
        items: dict[int, Any]
        jobs: set[Any]
        closed: bool

        def settle(self, index: int, result: Any) -> None: ...
        def over(self, job: Any) -> None: ...


pack = HEADER.pack
GONE = -1  # in place of an index, for an item that was taken back


class EncodedJob(Job):
    """A job with an encoded call. Subclasses deliver its answer, or an error in place of an answer."""

    __slots__ = ("body", "function", "kind", "on_event")

    def __init__(
        self,
        encoded: Encoded,
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
    def failing(self) -> Failed | None:
        """The object that keeps the error of a handler of the job's events, which fails the job; or None."""
        return None

    @property
    def unwanted(self) -> bool:
        """True if a deferred job should be dropped, because its result is no longer wanted. Always False here."""
        return False

    def begin(self) -> bool:
        """Prepare the job for the worker that gets it. Return False if it need not run any more."""
        return True

    def finish(self, message: call_messages.Message) -> None:
        """Deliver the answer. Each kind of job implements this."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Deliver an error in place of an answer. Each kind of job implements this."""
        raise NotImplementedError

    def release(self) -> None:
        """Release the encoded call."""
        body, self.body = self.body, b""
        if isinstance(body, Message):
            body.close()


def plain(message: call_messages.Message) -> bool:
    """Return whether the message is a result that is a plain pickle of a value, unless there is a serializer."""
    return message[KIND] == RESULT and not (message[DETAIL] & 1 or message[FDS])


def value_of(message: call_messages.Message, pool: Decoding) -> Any:
    """Decode the result in an answer. Raises the function's exception, ResultError, and CallCancelledError."""
    serializer = pool.serializer
    if serializer is None and plain(message):
        return load_plain(message[BODY])
    kind, number, detail, flags, body, fds = message
    if kind == RESULT:
        return decode_value(serializer, (kind, number, detail & 1, flags, body, fds))
    if kind == CANCELLED:
        raise CallCancelledError("the call was cancelled")
    raise error_of(detail, flags, body, fds, serializer is None, pool.raised)


class BatchJob(Job):
    """A job of several small items of a map. A worker processes them one by one, and answers each separately."""

    __slots__ = ("_first", "_indexes", "function", "left", "on_event", "took", "work")

    def __init__(self, work: MapOfJobs, indexes: list[int]) -> None:
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

    def begin(self) -> bool:
        """Drop the items that have answers already, if another worker had the job and died. Return False for no items.

        An interrupt may have left ``left`` as it was before an answer.
        """
        indexes = self.open()
        if len(indexes) != len(self._indexes):
            self._indexes = indexes
            self.left = self.size = len(indexes)
        return bool(indexes)

    def open(self) -> list[int]:
        """Return the indexes of the items that have no answer."""
        items = self.work.items
        return [index for index in self._indexes if index in items]

    @property
    def answers(self) -> int:
        """The number of items that have an answer."""
        return self.size - self.left

    def record_answer(self, message: call_messages.Message, found: list[tuple[int, call_messages.Message]]) -> None:
        """Append the index of the answered item, and the answer, to ``found``; record then that it is there."""
        index = self._indexes[message[NUMBER] - self._first]
        found.append((index, message))
        self.took += message[DETAIL] >> TIME
        self.work.items.pop(index, None)
        self.left -= 1

    unwanted = False  # the job is never deferred: its map is
    failing = None  # a handler that raises fails no item

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
            self.work.settle(index, Raised(error))
            self.work.items.pop(index, None)

    def cancel(self) -> None:
        """Deliver CancelledError for all items that have no answer: the job will not run."""
        self.fail(CancelledError())

    def release(self) -> None:
        """Do nothing: items are encoded only when they are written."""


class ItemJob(EncodedJob):
    """A job of a single item of a map, which is not small."""

    __slots__ = ("index", "work")

    def __init__(self, work: MapOfJobs, index: int, encoded: Encoded) -> None:
        super().__init__(encoded, on_event=work.on_event, **work.options)
        self.label = work.label
        self.work = work
        self.index = index

    def open(self) -> tuple[int]:
        """Return the index of the item, as a tuple."""
        return (self.index,)

    def record_answer(self, message: call_messages.Message, found: list[tuple[int, call_messages.Message]]) -> None:
        """Append the index of the item and its answer to ``found``; record then that it is there."""
        found.append((self.index, message))
        self.work.items.pop(self.index, None)

    def fail(self, error: BaseException) -> None:
        """Deliver an error in place of the item's result."""
        self.release()
        self.work.settle(self.index, Raised(error))
        self.work.items.pop(self.index, None)

    def cancel(self) -> None:
        """Deliver CancelledError: the job will not run."""
        self.fail(CancelledError())


class UnsentItem:
    """An item of a map that is in no job and will not run."""

    __slots__ = ("_index", "_work")

    def __init__(self, work: MapOfJobs, index: int) -> None:
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


def write_files(encoded: Encoded) -> None:
    """Write the files of an encoded call. Raises OSError."""
    message = encoded[2]
    if isinstance(message, Message) and message.fills:
        message.write_files()


def deliver(finished: deque[tuple[Any, Any]], handle_event: Callable[[Event], object] = Event.handle) -> None:
    """Deliver each pair: a job or map with its answers, its error, or None if cancelled; or an event with None.

    Each pair is removed once it is delivered: after an interrupt it is delivered again. No lock is held, because this
    runs arbitrary user code. What that appends is delivered, too, and it may deliver pairs itself. Any other exception
    is raised when all pairs are delivered.
    """
    failure = None
    while finished:
        who, what = pair = finished[0]
        try:
            if type(what) is tuple or type(what) is list:
                who.finish(what)
            elif type(who) is Event:
                handle_event(who)
            elif what is None:
                who.cancel()
            else:
                who.fail(what)
        except Exception as error:
            if may_be_interrupt(error):
                raise
            failure = failure or error
        if finished and finished[0] is pair:
            finished.popleft()
    if failure is not None:
        raise failure
