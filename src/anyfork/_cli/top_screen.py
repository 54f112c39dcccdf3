"""The screen of ``anyfork top``: its lines in a terminal, drawn again and again. The terminal is then as it was."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from importlib.util import find_spec

from .top_lines import as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import FrameType
    from typing import NoReturn, Protocol

    from rich.tree import Tree

    from .top_lines import Line

    class Screen(Protocol):
        """What the lines are drawn on."""

        def show(self, lines: Sequence[Line]) -> None: ...


BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen without a cursor, and back
CLEAR = "\x1b[H\x1b[J"
STYLES = {"program": "bold", "pool": "cyan", "job": "green", "idle": "dim", "error": "red"}
EACH_SECOND = 4  # drawings, so that a window of another size is filled soon


def open_screen() -> AbstractContextManager[Screen]:
    """Return the screen of this terminal, with colours where rich is installed."""
    return _plain_screen() if find_spec("rich") is None else _rich_screen()


class _PlainScreen:
    def show(self, lines: Sequence[Line]) -> None:
        """Draw as much as fits."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        text = as_text(lines).splitlines()[: max(1, rows - 1)] if rows else as_text(lines).splitlines()
        sys.stdout.write(CLEAR + "\n".join(line[:columns] if columns else line for line in text))
        sys.stdout.flush()


@contextmanager
def _plain_screen() -> Iterator[Screen]:
    with _left_by_signals():
        try:
            sys.stdout.write(BEGIN)
            yield _PlainScreen()
        finally:
            sys.stdout.write(END)
            sys.stdout.flush()


@contextmanager
def _rich_screen() -> Iterator[Screen]:
    from rich.console import Group
    from rich.live import Live

    class RichScreen:
        def show(self, lines: Sequence[Line]) -> None:
            """Draw as much as fits."""
            live.update(Group(*map(_tree, lines)), refresh=True)

    with _left_by_signals(), Live(screen=True, refresh_per_second=EACH_SECOND) as live:
        yield RichScreen()


def _tree(line: Line) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(line.text, STYLES.get(line.kind, ""), no_wrap=True, overflow="ellipsis"), guide_style="dim")
    tree.children += [_tree(below) for below in line.below]
    return tree


@contextmanager
def _left_by_signals() -> Iterator[None]:
    """Leave the terminal as it was for the signals that end this program, by SystemExit, or stop it, which Ctrl-Z does.

    Signals that are ignored stay so: nohup and shells without job control have seen to that.
    """
    handlers = {signal.SIGTERM: _end, signal.SIGHUP: _end, signal.SIGQUIT: _end, signal.SIGTSTP: _stop}
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            if before[number] != signal.SIG_IGN:
                signal.signal(number, handler)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _stop(number: int, _: FrameType | None) -> None:
    os.write(sys.stdout.fileno(), END.encode())
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)  # returns when the program goes on
    signal.signal(number, _stop)
    os.write(sys.stdout.fileno(), BEGIN.encode())
