"""The screen of ``anyfork top``: what programs, their pools and their processes do, as a tree of lines.

A terminal shows the lines, drawn again and again, and is then as it was. Text of other programs cannot control it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import FrameType
    from typing import Any, NoReturn, Protocol, TypeAlias

    from rich.tree import Tree

    class Screen(Protocol):
        """What the lines are drawn on."""

        def show(self, lines: Sequence[Line]) -> None: ...

    # The workers of pools by their process ids, each with the name of its pool.
    Workers: TypeAlias = Mapping[int, tuple[str, dict[str, Any]]]


NONE = "no program offers its state: call anyfork.observe() in it, or set ANYFORK_STATUS=1"
INDENT = "  "
TEMPLATES = ("anyfork", "anyfork/exec")  # titles behind the pid of the owner; spares are templates, too
BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen without a cursor, and back
CLEAR = "\x1b[H\x1b[J"
STYLES = {"program": "bold", "pool": "cyan", "job": "green", "idle": "dim", "error": "red"}
EACH_SECOND = 4  # drawings, so that a window of another size is filled soon


def printable(text: str) -> str:
    """Return a line without characters that could control the terminal, as titles, names and arguments may have."""
    return "".join(one if one.isprintable() else "?" for one in text)


def accept_all_text() -> None:
    """Let the standard output show a question mark for each character that its encoding has not."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a stream of a program's start


@dataclass(slots=True)
class Line:
    """A line with those below it.

    ``kind`` is what it is about: program, pool, template, process, worker, job, idle or error.
    """

    kind: str
    text: str
    below: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text = printable(self.text)


def lines_of(answers: Iterable[dict[str, Any]], wanted: int | None) -> list[Line]:
    """Return the lines of programs, or one that says that there is none."""
    missing = NONE if wanted is None else f"program {wanted} does not offer its state: {NONE.partition(': ')[2]}"
    return [_program(answer) for answer in answers] or [Line("error", missing)]


def as_text(lines: Iterable[Line]) -> str:
    """Return lines as plain text."""
    return "\n".join(_indented(lines, ""))


def _indented(lines: Iterable[Line], indent: str) -> Iterator[str]:
    for line in lines:
        yield indent + line.text
        yield from _indented(line.below, indent + INDENT)


def _program(answer: dict[str, Any]) -> Line:
    process, workers, pools = answer["process"], {}, []
    for pool in answer["pools"]:
        name = f"{pool['kind']} {pool['name']}".rstrip()
        pools.append(_pool(name, pool))
        workers.update({worker["pid"]: (name, worker) for worker in pool["workers"]})
    children = process["children"] if process else ()
    text = f"program {_process(process)}" if process else f"program {answer['pid']}"
    return Line("program", text, pools + [_below(child, workers) for child in children])


def _pool(name: str, pool: dict[str, Any]) -> Line:
    stats = pool["stats"]
    text = (
        f"{name}: workers {stats['workers']} ({stats['idle']} idle), starting {stats['starting']}, "
        f"queued {stats['queued']}, running {stats['running']}, "
        f"submitted {stats['submitted']}, died {stats['died']}, spares {stats['spares']}"
    )
    errors = [Line("error", f"last error: {pool['error'].splitlines()[0]}")] if pool["error"] else []
    return Line("pool", text, errors)


def _below(process: dict[str, Any], workers: Workers) -> Line:
    """Return the line of a process, with its descendants."""
    children = [_below(child, workers) for child in process["children"]]
    if process["pid"] not in workers:
        kind = "template" if process["title"].partition(" ")[2] in TEMPLATES else "process"
        return Line(kind, f"{kind} {_process(process)}", children)
    name, worker = workers[process["pid"]]
    return Line("worker", f"worker of {name} {_process(process)}", [_work(worker), *children])


def _work(worker: dict[str, Any]) -> Line:
    running = f"runs {', '.join(worker['running'])}" if worker["running"] else "idle"
    since = "" if worker["seconds"] is None else f" for {worker['seconds']:.1f} s"
    text = f"{worker['state']}, {running}{since}, calls {worker['calls']}, generation {worker['generation']}"
    return Line("job" if worker["running"] else "idle", text)


def _process(process: dict[str, Any]) -> str:
    mebibytes = [process[name] / (1 << 20) for name in ("private", "pss") if process[name] is not None]
    memory = ", private {:.1f} MiB, PSS {:.1f} MiB".format(*mebibytes) if mebibytes else ""
    share = f" ({process['share']:.0%})" if "share" in process else ""
    cpu = f"CPU {process['cpu']:.1f} s{share}"
    return f"{process['pid']} [{process['title'][:60]}]: age {process['age']:.1f} s, {cpu}{memory}"


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
