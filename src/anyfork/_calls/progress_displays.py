"""What shows the progress of a map: tqdm or rich where they are installed, a line on a terminal, or lines in a log."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Protocol, TextIO

    class Display(Protocol):
        """What shows the progress. Both methods get the count of items that are done, and the seconds so far."""

        pause: float

        def show(self, done: int, seconds: float) -> None: ...
        def end(self, done: int, seconds: float) -> None: ...


PAUSE = 0.1  # seconds between two drawings
LOG_PAUSE = 10.0  # seconds between two lines where no line can be drawn again
BAR = 24  # characters


def display_on(stream: TextIO, label: str, total: int | None) -> Display:
    """Return the best display that there is for a stream."""
    if not (in_notebook() or (stream.isatty() and os.environ.get("TERM") != "dumb")):
        return Lines(label, total, stream)
    if find_spec("tqdm") is not None:
        return Tqdm(label, total, stream)
    if find_spec("rich") is not None:
        return Rich(label, total, stream)
    return TerminalLine(label, total, stream) if stream.isatty() else Lines(label, total, stream)


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def columns_of(stream: TextIO) -> int:
    """Return how wide a terminal is; 0 if that is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


class TerminalLine:
    """A line on a terminal that is drawn again from time to time."""

    pause = PAUSE

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._open = True

    def show(self, done: int, seconds: float) -> None:
        """Draw the line."""
        self._write("\r" + self.line(done, seconds, columns_of(self._stream) or 80) + "\033[K")

    def end(self, done: int, seconds: float) -> None:
        """Draw the line for the last time, and end it."""
        self._write("\r" + self.line(done, seconds, columns_of(self._stream) or 80) + "\033[K\n")

    def _write(self, text: str) -> None:
        if self._open:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # the terminal is gone, or stderr was closed: that is not the map's problem
                self._open = False

    def line(self, done: int, seconds: float, columns: int) -> str:
        """Return the text to show after this many seconds."""
        per_second = done / seconds if seconds > 0 else 0.0
        parts = [self._label]
        if self._total is None:
            parts.append(f"{done}")
        else:
            share = min(1.0, done / self._total) if self._total else 1.0
            full = int(share * BAR)
            parts += [f"{share:4.0%}", f"[{'#' * full}{'.' * (BAR - full)}]", f"{done}/{self._total}"]
        parts += [f"{_short(per_second)}/s", _clock(seconds)]
        if self._total and 0 < done < self._total:
            parts.append(f"{_clock((self._total - done) / per_second)} left")
        return " ".join(parts)[: max(0, columns - 1)]


class Lines(TerminalLine):
    """Lines in a log, for a map that takes long enough."""

    pause = LOG_PAUSE

    def show(self, done: int, seconds: float) -> None:
        """Write a line."""
        share = "" if not self._total else f"{done / self._total:.0%}, "
        total = "" if self._total is None else f" of {self._total}"
        self._write(f"{self._label}: {share}{done}{total} done after {_clock(seconds)}\n")

    def end(self, done: int, seconds: float) -> None:
        """Write the last line, if there were any."""
        if seconds >= LOG_PAUSE:
            self.show(done, seconds)


class Tqdm:
    """A bar of tqdm, in a terminal or a notebook."""

    pause = PAUSE

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        tqdm = import_module("tqdm.auto").tqdm
        # Without tqdm's thread, and without its lock, which would start a process.
        bar: Any = type("Bar", (tqdm,), {"monitor_interval": 0})
        bar.set_lock(RLock())
        # A terminal of unknown size would hide the bar.
        size = {"ncols": 80, "nrows": 24} if stream.isatty() and not columns_of(stream) else {}
        self._bar = bar(total=total, desc=label, file=stream, mininterval=0, **size)

    def show(self, done: int, _: float) -> None:
        """Draw the bar."""
        self._bar.update(done - self._bar.n)

    def end(self, done: int, seconds: float) -> None:
        """Draw the bar for the last time."""
        self.show(done, seconds)
        self._bar.close()


class Rich:
    """A bar of rich, without its thread."""

    pause = PAUSE

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        console = import_module("rich.console").Console(file=stream)
        self._progress: Any = import_module("rich.progress").Progress(console=console, auto_refresh=False)
        self._progress.start()
        self._task = self._progress.add_task(label.replace("[", r"\["), total=total)

    def show(self, done: int, _: float) -> None:
        """Draw the bar."""
        self._progress.update(self._task, completed=done, refresh=True)

    def end(self, done: int, seconds: float) -> None:
        """Draw the bar for the last time."""
        self.show(done, seconds)
        self._progress.stop()


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:.0f}" if number < 10_000 else f"{number / 1000:.0f}k"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
