"""The batch of a map's next calls: made one by one, and sent together."""

from __future__ import annotations

from _anyfork_child.values.encode import is_plain
from _anyfork_child.values.scalars import SCALARS
from _anyfork_child.wire.call_messages import CALL

from .calls import MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from typing import Any

    from _anyfork_child.values.message import Message

    from .call import Answer, Call
    from .calls import Calls
    from .known_functions import KnownFunction

OF_ITS_OWN = 1 << 10  # bytes: longer strings and bytes are sent in a message of their own
LONG = 8 * OF_ITS_OWN  # bits: and so are longer integers
FIXED = SCALARS - {int}  # types whose values are all short


def is_short(value: object) -> bool:
    """Return whether an item of a map may share a message with others."""
    if type(value) in FIXED:
        return True
    if type(value) is int:
        return value.bit_length() <= LONG
    return is_plain(value) and len(value) <= OF_ITS_OWN  # type: ignore[arg-type]  # it has a size


class Batch:
    """The next calls of a map. ``ahead`` holds the calls that are under way, ``window`` is how many may be."""

    __slots__ = ("_ahead", "_calls", "_function", "_made", "_room", "_size", "_small", "_window", "exhausted")

    def __init__(
        self, calls: Calls, function: Callable[..., Any] | str | KnownFunction, window: int, ahead: deque[Answer]
    ) -> None:
        self._calls = calls
        self._function = function
        self._window = window
        self._ahead = ahead
        self._small: list[Any] = []  # the items of small calls
        self._made: list[list[Any] | Call] = []  # the small calls before them, and other calls, in their order
        self._room = window - len(ahead)
        self._size = sum(call.size for call in ahead)
        self.exhausted: bool = False

    @property
    def full(self) -> bool:
        """True when the batch has enough calls for now, in number or in bytes."""
        return self._room <= 0 or self._size >= MAX_BYTES

    def fill(self, items: Iterator[object]) -> Iterator[Message]:
        """Make calls for items until the batch is full; yield each message that has files to be written.

        Set ``exhausted`` when there are no more items. Raises ArgumentError, and whatever the iterator raises.
        """
        small, room, shares = self._small, self._room, self._calls.shares_messages
        for item in items:
            room -= 1
            if shares and (
                type(item) in FIXED or (type(item) is int and item.bit_length() <= LONG)
            ):  # as in is_short, without its call
                small.append(item)
            else:
                message = self.add(item)
                small = self._small
                if message is not None:
                    yield message
            self._room = room
            if room <= 0 or self._size >= MAX_BYTES:
                return
        self.exhausted = True

    def add(self, item: object) -> Message | None:
        """Make the call for an item; return its message if it has files to be written. Raises ArgumentError."""
        self._room -= 1
        if self._calls.shares_messages and is_short(item):
            self._small.append(item)
            return None
        self._close_small()
        call = self._make(item)
        self._made.append(call)
        message = call.message
        assert message is not None
        self._size += message.size
        return message if message.fills else None

    def _make(self, item: object) -> Call:
        return self._calls.make("map", CALL, self._function, (item,), None, self._window)

    def _close_small(self) -> None:
        if self._small:
            self._made.append(self._small)
            self._small = []

    def drop_unwritten(self) -> None:
        """Remove the last call, because its files could not be written."""
        last = self._made[-1] if self._made and not self._small else None
        if last is not None and not isinstance(last, list) and last.message is not None and last.message.fills:
            self._made.pop()
            last.message.close()

    def send(self) -> None:
        """Hand the calls of the batch over to ``Calls``, and append them to ``ahead``."""
        self._close_small()
        for part in self._made:
            if isinstance(part, list):
                self._send_small(part)
            else:
                self._calls.add(part)
                self._ahead.append(part)
        self._made.clear()

    def _send_small(self, items: list[Any]) -> None:
        answers = self._calls.add_small("map", self._function, items, self._window)
        self._ahead.extend(answers)
        if not answers:
            for item in items:
                call = self._make(item)
                self._calls.add(call)
                self._ahead.append(call)
