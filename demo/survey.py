"""The survey of the standard library: what is counted, and how a worker process goes about it.

Runs in the workers, whichever way they were started; the loaded modules are the template's preload.
"""

from __future__ import annotations

import ast
import pickle
import sysconfig
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from multiprocessing.connection import Connection

NOT_MODULES = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
BLOCKS = (*FUNCTIONS, *LOOPS, ast.ClassDef, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match)


@dataclass
class Findings:
    """What was found in some modules. ``deepest`` and ``longest`` are (number, where)."""

    modules: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0
    deepest: tuple[int, str] = (0, "")
    longest: tuple[int, str] = (0, "")

    def add(self, other: Findings) -> None:
        """Add what another worker has found."""
        self.modules += other.modules
        self.lines += other.lines
        self.classes += other.classes
        self.functions += other.functions
        self.deepest = max(self.deepest, other.deepest)
        self.longest = max(self.longest, other.longest)


@dataclass
class Answer:
    """What a worker sends back: its findings, and the memory it has at its end, in bytes."""

    findings: Findings = field(default_factory=Findings)
    private: int = 0
    shared_fairly: int = 0  # PSS: private, and its part of each page that it shares with others


def modules() -> list[Path]:
    """Every module of the standard library that is written in Python, its own tests left out."""
    library = Path(sysconfig.get_path("stdlib"))
    found = library.rglob("*.py")
    return sorted(path for path in found if not NOT_MODULES & set(path.relative_to(library).parts))


def examine(paths: Iterable[str]) -> Findings:
    """Parse modules and count what is in them."""
    findings = Findings()
    for path in paths:
        _examine_one(path, findings)
    return findings


def _examine_one(path: str, findings: Findings) -> None:
    with tokenize.open(path) as file:
        text = file.read()
    name = str(Path(path).relative_to(sysconfig.get_path("stdlib")))
    findings.modules += 1
    findings.lines += text.count("\n")
    waiting: list[tuple[ast.AST, int]] = [(ast.parse(text), 0)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, BLOCKS):
            depth += 1
            findings.deepest = max(findings.deepest, (depth, f"{name}:{node.lineno}"))
        if isinstance(node, FUNCTIONS):
            findings.functions += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            findings.longest = max(findings.longest, (length, f"{node.name} in {name}"))
        elif isinstance(node, ast.ClassDef):
            findings.classes += 1
        waiting.extend((child, depth - _is_elif(child, node)) for child in ast.iter_child_nodes(node))


def _is_elif(child: ast.AST, parent: ast.AST) -> bool:
    """An elif is an If alone in the else of another, and no deeper than that."""
    return isinstance(child, ast.If) and isinstance(parent, ast.If) and parent.orelse == [child]


def answer(paths: Iterable[str]) -> bytes:
    """Examine modules; what a worker sends back."""
    findings = examine(paths)
    return pickle.dumps(Answer(findings, *_memory()))


def _memory() -> tuple[int, int]:
    """Private and proportional memory of this process in bytes; zeros where the system does not tell."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in text.splitlines()[1:]}
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]


def work_for_anyfork(channel: socket.socket, *paths: str) -> None:
    """A worker that anyfork has started."""
    with channel:
        channel.sendall(answer(paths))


def work_for_multiprocessing(connection: Connection, *paths: str) -> None:
    """A worker that multiprocessing has started."""
    with connection:
        connection.send_bytes(answer(paths))


def do_nothing(*channels: socket.socket) -> None:
    """The shortest worker, for the time that a start takes."""
    for channel in channels:
        channel.close()
