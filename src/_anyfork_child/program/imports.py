"""The imports of a program, each with its costs and with what it leaves behind: for ``anyfork audit``.

Runs in a process of its own, which is forked from an empty template and ends afterwards. It reads the import statements
of the program, and runs them and nothing else of it. The process itself imports nothing for that: a module would
cost nothing then.
"""

from __future__ import annotations

import _ast
import marshal
import sys
from _frozen_importlib import _find_spec  # type: ignore[attr-defined]  # not in the stubs
from _frozen_importlib_external import PathFinder
from importlib import _bootstrap
from time import monotonic_ns

from ..birth.advice_watch import PAGE, resident
from ..template import template as templates
from .command_line import CODE, MODULE, Command
from .loaded import comes_from, installed_places
from .remains import NATIVE, NOTE, OUTPUT, lasting_tasks, remains

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Container, Iterator, Sequence
    from typing import Any

    from .remains import Key

_importlib: Any = _bootstrap  # its functions are not in the stubs
ONLY_AST = 0x400  # the flag of compile() for a syntax tree, without the module ast


class Load:
    """The load of one module. Its costs are without those of the modules that it has imported."""

    __slots__ = ("above", "found", "memory", "name", "time")

    def __init__(self, name: str, above: int) -> None:
        self.name = name
        self.above = above  # the index of the load that this one is part of, -1 for none
        self.time = 0  # nanoseconds
        self.memory = 0  # bytes
        self.found: dict[Key, str] = {}


class Ledger:
    """The function that loads modules, which charges each with the changes while it alone was loaded."""

    def __init__(self) -> None:
        self.loads: list[Load] = []
        self._line = [-1]  # the indices of the loads that have begun, the innermost last
        self._load: Callable[..., Any] = _importlib._find_and_load
        self._there = remains()
        self._start_clock()

    def __call__(self, name: str, import_: Callable[..., Any]) -> Any:
        if name in sys.modules:  # it is loaded already, or further down in the line
            return self._load(name, import_)
        self._charge()
        self.loads.append(Load(name, self._line[-1]))
        self._line.append(len(self.loads) - 1)
        self._start_clock()
        try:
            return self._load(name, import_)
        finally:
            self._charge()
            self._line.pop()
            self._start_clock()

    def _start_clock(self) -> None:
        self._memory, self._time = resident(), monotonic_ns()

    def _charge(self) -> None:
        """Charge the innermost load with what has come since the last look."""
        time, memory = monotonic_ns() - self._time, (resident() - self._memory) * PAGE
        there = remains()
        if self._line[-1] >= 0:
            load = self.loads[self._line[-1]]
            load.time += time
            load.memory += memory
            load.found |= {key: text for key, text in there.items() if key not in self._there}
        self._there = there

    def facts(self, places: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """Return the loads as plain values: what they have left behind is judged now, at the end."""
        there, lasting = remains(), lasting_tasks()
        facts = []
        for load in self.loads:
            left = [(key, there.get(key, text)) for key, text in load.found.items() if _lasts(key, there, lasting)]
            unsafe = sorted({text for (kind, _), text in left if kind != NOTE})
            notes = sorted({text for (kind, _), text in left if kind == NOTE})
            origin = _is_installed(places, load.name), load.name in sys.modules
            facts.append((load.name, load.above, load.time, load.memory, unsafe, notes, *origin))
        return facts


def _lasts(key: Key, there: Container[Key], lasting: Container[object]) -> bool:
    kind, name = key
    return kind == OUTPUT or (key in there and (kind != NATIVE or name in lasting))


def measure(channel: _socket.socket, kind: str, target: str, skipped: Sequence[str]) -> None:
    """Import what a program imports, but for what is ``skipped``, and send what was found.

    Each message is a tuple: ("import", statement) before each statement, ("failed", statement, reason) after one that
    has raised something, ("refused", reason) if the program cannot be read, and at the end ("loads", facts).
    """

    def tell(*message: str | list[Any]) -> None:
        channel.sendall(marshal.dumps(message))

    start_path = templates.this.start_path
    try:
        command = Command(kind, target, (), start_path)
        command.set_up()
        _importlib._find_and_load = ledger = Ledger()
        tell("import", target)
        tree, package = _read(command)
    except BaseException as error:  # code of a package, which is above the program, may raise anything
        tell("refused", f"{type(error).__name__}: {error}")
        return
    for module, names, level in _statements(tree):
        statement = "." * level + (module or names[0])
        if statement in skipped:
            continue
        tell("import", statement)
        try:
            __import__(module, {"__package__": package}, None, names, level)
        except BaseException as error:  # a module may raise anything while it is imported
            tell("failed", statement, f"{type(error).__name__}: {error}")
    tell("loads", ledger.facts(installed_places(start_path)))


def _is_installed(places: tuple[str, ...], name: str) -> bool:
    module = sys.modules.get(name)
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return origin in ("built-in", "frozen") or comes_from(places, name, module)


def _read(command: Command) -> tuple[_ast.AST, str]:
    """Return the syntax tree of a program, and the package that it belongs to. Raises any exception."""
    if command.kind == CODE:
        return _parse(command.target, "<string>"), ""
    if command.kind == MODULE:
        spec = _find(command.target)
        return _parse(spec.loader.get_data(spec.origin), spec.origin), spec.parent
    spec = PathFinder.find_spec("__main__", [command.file])  # in a directory or an archive
    if spec is not None and spec.loader is not None:
        sys.path.insert(0, command.file)
        loader: Any = spec.loader
        return _parse(loader.get_data(spec.origin), str(spec.origin)), ""
    with open(command.file, "rb") as file:
        return _parse(file.read(), command.file), ""


def _parse(source: str | bytes, name: str) -> _ast.AST:
    tree: _ast.AST = compile(source, name, "exec", ONLY_AST, dont_inherit=True)
    return tree


def _find(name: str) -> Any:
    """Return the spec of the module that ``python -m`` would run; import the packages above it."""
    above = name.rpartition(".")[0]
    if above:
        __import__(above)
    spec = _find_spec(name, sys.modules[above].__path__ if above else None)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
    if spec.submodule_search_locations is None:
        return spec
    return _find(f"{name}.__main__")


def _statements(tree: _ast.AST) -> Iterator[tuple[str, Sequence[str], int]]:
    """Yield the import statements of a program, those in its functions included: module, names and level."""
    if isinstance(tree, _ast.Import):
        yield from ((alias.name, (), 0) for alias in tree.names)
    elif isinstance(tree, _ast.ImportFrom):
        yield tree.module or "", [alias.name for alias in tree.names], tree.level
    elif isinstance(tree, _ast.If) and "TYPE_CHECKING" in (
        getattr(tree.test, "id", ""),
        getattr(tree.test, "attr", ""),
    ):
        for statement in tree.orelse:
            yield from _statements(statement)
    else:
        for name in tree._fields:
            value: Any = getattr(tree, name, None)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, _ast.AST):
                    yield from _statements(part)
