"""The progress of a map: how many of its items are done, for a display (_calls.progress_displays) or a callback."""

from __future__ import annotations

import sys
from math import inf
from time import monotonic

from .._errors import ArgumentError
from .._system.log import WARNING, may_be_interrupt, write_record
from .known_functions import label_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from .progress_displays import Display

    # How many items are done, and how many there are, if that is known.
    ProgressCallback: TypeAlias = Callable[[int, int | None], object]


PAUSE = 0.1  # seconds between two calls of a callback
LOOK = 0.01  # seconds at most between two looks at the clock; items come faster


class Progress:
    """A counter of items that are done, which is shown from time to time."""

    def __init__(self, display: Display, total: int | None = None) -> None:
        self._display = display
        self._total = total
        self._done = 0
        self._begin = self._shown = monotonic()
        self._next: float = 1  # the count at which the clock is looked at; infinity at the end

    def advance(self, count: int = 1) -> None:
        """Count items that are done, and show the progress if it is time. The last item closes it."""
        self._done += count
        if self._done == self._total:
            self.close()
        elif self._done >= self._next:
            self._look()

    def _look(self) -> None:
        now = monotonic()
        per_second = self._done / max(now - self._begin, 1e-6)
        self._next = self._done + max(1, int(per_second * LOOK))
        if now - self._shown >= self._display.pause:
            self._shown = now
            self._call(self._display.show, now)

    def close(self) -> None:
        """Show the progress for the last time. Closing twice is harmless."""
        if self._next < inf:
            self._next = inf
            self._call(self._display.end, monotonic())

    def _call(self, method: Callable[[int, float], None], now: float) -> None:
        """Show the progress. An error of the display, or of a callback, is not the map's problem."""
        try:
            method(self._done, now - self._begin)
        except BaseException as error:  # SystemExit too: it must not end the thread of an Executor
            if may_be_interrupt(error):
                raise
            self._next = inf
            write_record(WARNING, "the progress of a map is not shown any more", error=error)


class UnlessStarted:
    """A context manager for the start of a map: if it fails, the display of the progress is closed."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __enter__(self) -> Progress | None:
        return self._progress

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._progress is not None:
            self._progress.close()


class Callback:
    """A callback of the user's as a display."""

    pause = PAUSE

    def __init__(self, callback: ProgressCallback, total: int | None) -> None:
        self._callback = callback
        self._total = total

    def show(self, done: int, _: float) -> None:
        """Call it."""
        self._callback(done, self._total)

    end = show


def progress_of(
    call: str, wanted: bool | ProgressCallback, function: Callable[..., Any] | str, items: Sequence[object]
) -> Progress | None:
    """Return what shows the progress of a map over iterables, or None. Raises ArgumentError."""
    if wanted is False:
        return None
    total = min((len(one) if hasattr(one, "__len__") else inf for one in items), default=0)
    known = None if total == inf else int(total)
    if wanted is not True:
        if not callable(wanted):
            raise ArgumentError(f"{call}(): progress must be True, False, or a function of two numbers, not {wanted!r}")
        return Progress(Callback(wanted, known), known)
    if sys.stderr is None:
        return None
    from .progress_displays import display_on  # only now: most maps show nothing

    return Progress(display_on(sys.stderr, label_of(function), known), known)
