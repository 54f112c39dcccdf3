"""A call on the owner's side: its state, and the messages that have arrived for it."""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.call_messages import CALL, CANCELLED, END, FDS, RESULT, STREAM
from _anyfork_child.wire.channel import close_all

from .._errors import CallCancelledError
from .results import decode_value, error_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    from _anyfork_child.values.message import Message
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    Handler = Callable[[Any], object]

    class Failed(Protocol):
        """A call, or a job of a pool, that has an error."""

        error: BaseException | None


class State(IntEnum):
    """The progress of a call."""

    NEW = 0
    QUEUED = 1
    SENT = 2
    GIVEN_UP = 3  # sent, but its caller no longer waits for it, or for the handlers of its events
    DONE = 4


SENT, GIVEN_UP, DONE = State.SENT, State.GIVEN_UP, State.DONE


def raise_taken(failed: Failed) -> NoReturn:
    """Raise the error of a call and remove it there: its traceback refers to the call, which would never be freed."""
    error, failed.error = failed.error, None
    assert error is not None
    try:
        raise error
    finally:
        del error


class Answer:
    """The state and the answer of one call. ``result`` returns the result once the state is DONE."""

    __slots__ = ("_answer", "error", "number", "state", "wake")
    kind = CALL
    ahead = 0  # how many such calls the worker may hold at the same time, though it runs one; or 0
    size = 0  # bytes of its message
    on_event: Handler | None = None
    message: Message | None = None
    items: deque[call_messages.Message] = deque()
    _serializer: Serializer | None = None

    def __init__(self, state: State = State.NEW, number: int = 0) -> None:
        self.state: State = state
        self.number: int = number
        self.error: BaseException | None = None  # instead of an answer; also the error of a handler of its events
        self.wake: Callable[[], None] | None = None
        self._answer: call_messages.Message | None = None

    def finish(self, answer: call_messages.Message | None, error: BaseException | None = None) -> None:
        """Note the answer, or an error instead, and wake the waiter. If the call was given up, close the answer."""
        abandoned = self.state is GIVEN_UP
        self._answer, self.state = answer, DONE
        if error is not None:
            self.error = self.error or error
        if abandoned:
            self.drop()
        if self.wake is not None:
            self.wake()

    def add_item(self, item: call_messages.Message) -> None:
        """Add an item to the stream and wake the waiter. Close the item if the stream was given up."""
        if self.state == State.GIVEN_UP:
            close_all(item[5])
            return
        self.items.append(item)
        if self.wake is not None:
            self.wake()

    def end_events(self) -> None:
        """Let no further event reach the call's own handler: the caller does not wait for the handlers any more."""
        self.state = GIVEN_UP

    def drop(self) -> None:
        """Close the descriptors of the answer and of the items that have arrived and will not be used."""
        answer, self._answer = self._answer, None
        for message in (*self.items, *([answer] if answer else ())):
            close_all(message[FDS])
        if self.items:
            self.items.clear()

    def result(self) -> Any:
        """Return the result, once. Raises what the function has raised, CallError, or what prevents a result."""
        if self.error is not None:
            self.drop()
            raise_taken(self)
        answer, self._answer = self._answer, None
        if answer is None:
            raise CallCancelledError("the call was given up, because its worker was closed meanwhile")
        kind, _, detail, flags, body, fds = answer
        if kind == RESULT:
            if not (detail or fds or self._serializer):
                return load_plain(body)
            return self.decode(answer)
        if kind == END:
            return None
        if kind == CANCELLED:
            raise CallCancelledError("the call was cancelled")
        raise error_of(detail, flags, body, fds, self._serializer is None)

    def decode(self, message: call_messages.Message) -> Any:
        """Return the value in a message. Raises ResultError."""
        return decode_value(self._serializer, message)


class SmallAnswer(Answer):
    """The answer of one of the many small calls of a map."""

    __slots__ = ()
    ahead = 1


class Call(Answer):
    """A call that was made by itself. ``items`` are the items of a stream that have arrived and were not read."""

    __slots__ = ("_serializer", "ahead", "consumed", "ended", "items", "kind", "message", "on_event", "size")

    def __init__(self, kind: int, serializer: Serializer | None, on_event: Handler | None, ahead: int) -> None:
        super().__init__()
        self.kind: int = kind
        self.on_event: Handler | None = on_event
        self.ahead: int = ahead
        self.size: int = 0
        self.message: Message | None = None
        self.items: deque[call_messages.Message] = deque() if kind == STREAM else Answer.items
        self.ended: bool = False  # the end of the stream has been seen
        self.consumed: int = 0  # items that the worker has not been told are consumed
        self._serializer: Serializer | None = serializer
