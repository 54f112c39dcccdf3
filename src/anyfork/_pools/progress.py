"""The progress of a map on a terminal: one line on stderr, which is drawn again from time to time."""

from __future__ import annotations

import os
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, TextIO

PAUSE = 0.1  # seconds between two drawings
LOOK = 0.01  # seconds at most between two looks at the clock; items come faster
BAR = 24  # characters


class Progress:
    """A counter of items that are done, shown as a line. ``total`` is None if it is not known."""

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._done = 0
        self._begin = self._drawn = monotonic()
        self._next = 1  # the count at which the clock is looked at
        self._open = True

    @classmethod
    def on_terminal(cls, label: str, total: int | None) -> Self | None:
        """Return a progress line on stderr, or None if stderr is not a terminal that can draw it."""
        stream = sys.stderr
        if stream is None or not stream.isatty() or os.environ.get("TERM") == "dumb":
            return None
        return cls(label, total, stream)

    def advance(self) -> None:
        """Count one more item that is done, and draw the line if it is time."""
        self._done += 1
        if self._done >= self._next:
            self._look()

    def _look(self) -> None:
        now = monotonic()
        per_second = self._done / max(now - self._begin, 1e-6)
        self._next = self._done + max(1, int(per_second * LOOK))
        if now - self._drawn >= PAUSE:
            self._drawn = now
            self._write("\r" + self.line(now - self._begin, self._columns()) + "\033[K")

    def close(self) -> None:
        """Draw the line for the last time, and end it."""
        if self._open:
            self._open = False
            self._write("\r" + self.line(monotonic() - self._begin, self._columns()) + "\033[K\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, or stderr was closed: that is not the map's problem
            self._open = False

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def line(self, seconds: float, columns: int) -> str:
        """Return the text to show after this many seconds."""
        per_second = self._done / seconds if seconds > 0 else 0.0
        parts = [self._label]
        if self._total is None:
            parts.append(f"{self._done}")
        else:
            share = min(1.0, self._done / self._total) if self._total else 1.0
            full = int(share * BAR)
            parts += [f"{share:4.0%}", f"[{'#' * full}{'.' * (BAR - full)}]", f"{self._done}/{self._total}"]
        parts += [f"{_short(per_second)}/s", _clock(seconds)]
        if self._total and 0 < self._done < self._total:
            parts.append(f"{_clock((self._total - self._done) / per_second)} left")
        return " ".join(parts)[: max(0, columns - 1)]


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:.0f}" if number < 10_000 else f"{number / 1000:.0f}k"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
