"""The calls of a worker that draw a timeline: when the worker ran which call."""

from __future__ import annotations

from collections import deque
from math import inf
from time import monotonic

from _anyfork_child.wire.call_messages import CALL, NUMBER

from .calls import Calls
from .known_functions import KnownFunction, label_of
from .track import GAP, Track

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._errors import AnyforkError
    from .call import Answer, Call, Handler
    from .events import Event
    from .trace_file import TraceFile


class TracedCalls(Calls):
    """The calls of a worker with a timeline, which ``file`` writes.

    A worker that runs one call after the other answers in the order of the calls: so the names of those that were sent
    wait in a queue, each with how many calls have it. Calls that run at the same time are known by their numbers.
    """

    # Beside the attributes of the base class, because more than 30 make each access to any of them slower.
    __slots__ = ("_file", "_labels", "_names", "_open", "_told")
    _track: Track

    def __init__(
        self,
        file: TraceFile,
        serializer: Serializer | None,
        concurrency: int | None,
        on_event: Handler | None,
        receiver: Receiver,
    ) -> None:
        super().__init__(serializer, concurrency, on_event, receiver)
        self._file = file
        self._track = Track(file, self.kind, concurrency is not None, monotonic())
        self._told = False  # the timeline knows that the worker is ready
        self._labels: dict[int, str] = {}  # of calls that were made and not sent
        self._names: deque[tuple[str, int]] = deque()  # of calls that were sent
        self._open: dict[int, tuple[str, float]] = {}  # of calls that run at the same time, and of streams

    # --- Its life ---

    def entered(self, pid: int | None) -> None:
        """Draw how long the start has taken."""
        super().entered(pid)
        self._track.entered(pid, monotonic())

    def ended(self, how: str) -> None:
        """Draw the end of the worker, and of the call that it was running."""
        now = monotonic()
        if self._sent and self._names:
            self._track.job(self._names[0][0], self._track.began, now, 1, "died")
        for label, began in self._open.values():
            self._track.job_in_lane(label, began, now, "died")
        self._track.instant("died" if self._sent else "ended", now, status=how)
        self._names.clear()
        self._open.clear()
        self._track.close(now)

    # --- Calls that begin ---

    def make(
        self,
        name: str,
        kind: int,
        function: Callable[..., object] | str | KnownFunction,
        args: Sequence[object],
        on_event: Handler | None,
        ahead: int = 0,
    ) -> Call:
        """Make a call, and note its name."""
        call = super().make(name, kind, function, args, on_event, ahead)
        self._labels[call.number] = _label(function)
        return call

    def _send(self, call: Call) -> None:
        super()._send(call)
        self._begin(self._labels.pop(call.number, "call"), call.number, stream=call.kind != CALL)

    def expect(self, number: int, on_event: Handler | None = None) -> Call:
        """Make the call object for a small call, and note its name."""
        self._names.append((_label(self._track.function), 1))
        return super().expect(number, on_event)

    def add_small(
        self, name: str, function: Callable[..., object] | str | KnownFunction, items: list[Any], ahead: int
    ) -> list[Answer]:
        """Send several calls, and draw them when they have their answers."""
        answers = super().add_small(name, function, items, ahead)
        if answers and self._concurrency is None:
            self._note(_label(function), len(answers))
        else:
            for answer in answers:
                self._begin(_label(function), answer.number, stream=False)
        return answers

    def _begin(self, label: str, number: int, *, stream: bool) -> None:
        if stream or self._concurrency is not None:
            self._open[number] = label, monotonic()
        else:
            self._note(label, 1)

    def _note(self, label: str, count: int) -> None:
        if not self._names:
            self._track.began = monotonic()
        self._names.append((label, count))

    # --- Calls that end ---

    def _draw_small(self, track: Track, now: float) -> None:
        if track.until == -inf or not track.extend(now, 1):
            self._names.appendleft((_label(track.function), 1))
            self._draw(1, now)
        track.until = now + GAP

    def take_results(self, messages: deque[call_messages.Message]) -> None:
        """Process results, and draw their calls."""
        if self._concurrency is not None:
            numbers = [message[NUMBER] for message in messages]
            super().take_results(messages)
            for number in numbers[: len(numbers) - len(messages)]:
                self._done(number)
            return
        before = len(messages)
        super().take_results(messages)
        if before > len(messages):
            self._draw(before - len(messages), monotonic())

    def _answered(self, call: Answer, message: call_messages.Message) -> None:
        number = call.number
        super()._answered(call, message)
        self._done(number)

    def _done(self, number: int) -> None:
        """Draw the end of the call of this number."""
        found = self._open.pop(number, None)
        if found is not None:
            now = monotonic()
            self._track.job_in_lane(*found, now)
            self._file.flush(now)
        elif self._concurrency is None:
            self._draw(1, monotonic())

    def _draw(self, count: int, now: float) -> None:
        """Draw so many calls, the first of those that were sent and have not ended."""
        track, names = self._track, self._names
        if not self._told:
            self._told = True
            track.ready(track.began)
        while count and names:
            label, there = names.popleft()
            done = min(count, there)
            if done < there:
                names.appendleft((label, there - done))
            track.job(label, track.began, now, done)
            track.began = now
            count -= done
        self._file.flush(now)

    def take(self, message: call_messages.Message) -> Event | None:
        """Process a message; draw the start when the worker is ready."""
        event = super().take(message)
        if self.ready and not self._told:
            self._told = True
            self._track.ready(monotonic())
        return event

    def fail(self, make: Callable[[bool], AnyforkError]) -> None:
        """Fail all calls, and end the track of the worker."""
        super().fail(make)
        self._track.close(monotonic())


def _label(function: Callable[..., object] | str | KnownFunction) -> str:
    return function.label if isinstance(function, KnownFunction) else label_of(function)
