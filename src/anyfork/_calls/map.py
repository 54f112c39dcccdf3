"""The map of a worker: its calls that are under way, and the batch of the next ones, which are sent together."""

from __future__ import annotations

from collections import deque
from functools import partial

from _anyfork_child.values.encode import is_plain
from _anyfork_child.values.scalars import SCALARS
from _anyfork_child.wire.call_messages import CALL

from .call import DONE
from .calls import MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from _anyfork_child.values.message import Message

    from .call import Answer, Call
    from .calls import Calls
    from .known_functions import KnownFunction
    from .progress import Progress
    from .worker_channel import WorkerChannel

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
        self._made.append(self._make(item))
        message = self._made[-1].message  # type: ignore[union-attr]  # it is a call
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

    def drop(self) -> None:
        """Close the descriptors of calls that an exception has kept from being sent."""
        for part in self._made:
            if not isinstance(part, list) and part.message is not None:
                part.message.close()

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


class CallMap:
    """The calls of a map in a worker, in the order of their items, as far as they do not depend on a face.

    ``items`` are those that have no call yet, ``more`` says whether there are any, as far as is known. ``ahead`` are
    the calls under way, or done and not taken; ``low`` of them, or fewer, are time for others. A face takes the next
    one itself if it is done and it is not time for others, and by ``flows.next_call`` otherwise.
    """

    __slots__ = ("_function", "_window", "ahead", "channel", "items", "low", "more", "progress")

    def __init__(
        self,
        channel: WorkerChannel,
        function: Callable[..., Any] | str | KnownFunction,
        items: Iterator[object],
        window: int,
        progress: Progress | None,
    ) -> None:
        self.channel = channel
        self.items = items
        self.more = True
        self.ahead: deque[Answer] = deque()
        self._function: Callable[..., Any] | str | KnownFunction = function
        self._window = window
        self.low = window // 2
        self.progress = progress

    @property
    def wants_more(self) -> bool:
        """True when it is time for the calls of further items.

        A worker that has ended refuses them. That error waits until the calls that were made have been taken.
        """
        return self.more and len(self.ahead) <= self.low and not (self.ahead and self.channel.calls.failed)

    def first_is_done(self) -> bool:
        """Return whether the next call is done."""
        return self.ahead[0].state is DONE

    def result(self, call: Answer) -> Any:
        """Return the result of a call that was taken, and show the progress. Raises what the call has raised."""
        result = call.result()
        if self.progress is not None:
            self.progress.advance()
        return result

    def new_batch(self) -> Batch:
        """Begin the next calls. ``send`` has to follow, or ``stop``."""
        return Batch(self.channel.calls, self._function, self._window, self.ahead)

    def send(self, batch: Batch) -> None:
        """Send the calls that were made, without the last one if its files could not be written."""
        try:
            self.channel.whole(partial(self._send, batch))
        except BaseException:
            batch.drop()
            raise

    def stop(self, batch: Batch) -> None:
        """Send the calls that were made, and close the map, after an exception in the middle of a batch."""
        self.send(batch)
        self.close()

    def _send(self, batch: Batch) -> None:
        batch.drop_unwritten()
        batch.send()
        self.channel.flush()

    def close(self) -> None:
        """Collect no more items, and cancel the calls that have not begun. Closing twice is harmless."""
        self.more, self._function = False, ""
        if not self.channel.foreign:
            self.channel.when_free(partial(self.channel.give_up_all, self.ahead))
        if self.progress is not None:
            self.progress.close()
