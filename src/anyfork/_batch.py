"""Calls of a map that are made and sent together: the usual ones in one go."""

from __future__ import annotations

from _anyfork_child._call_wire import CALL
from _anyfork_child._message import Message

from ._calls import MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any

    from ._calls import Calls
    from ._pending import Call

JOINED = 64 << 10  # bytes sent at once


class Batch:
    """The next calls of a map. ``ahead`` are those that are under way; ``window`` is how many may be."""

    __slots__ = ("_ahead", "_calls", "_function", "_made", "_room", "_size", "_window")

    def __init__(self, calls: Calls, function: Callable[..., Any] | str, window: int, ahead: deque[Call]) -> None:
        self._calls = calls
        self._function = function
        self._window = window
        self._ahead = ahead
        self._made: list[tuple[Call, Message]] = []
        self._room = window - len(ahead)
        self._size = sum(call.size for call in ahead)

    @property
    def full(self) -> bool:
        """Whether these are enough for now, in number or in bytes."""
        return len(self._made) >= self._room or self._size >= MAX_BYTES

    def add(self, item: object) -> Message:
        """Make the call for an item; its files are to be written. Raises ArgumentError."""
        call = self._calls.make("map", CALL, self._function, (item,), None, self._window)
        message = call.message
        assert message is not None
        self._made.append((call, message))
        self._size += message.size
        return message

    def send(self) -> None:
        """Hand them over, small ones joined."""
        made, self._made = self._made, []
        calls = self._calls
        out = calls.out
        before = len(out)
        for call, _ in made:
            calls.add(call)
            self._ahead.append(call)
        small: list[bytes | memoryview] = []
        size = 0
        while len(out) > before and not out[-1].fds and size <= JOINED:
            data = out.pop().data
            small.append(data)
            size += len(data)
        if small:
            out.append(Message(b"".join(reversed(small))))
