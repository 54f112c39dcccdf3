"""The audit of a program's imports: what each costs, what it leaves behind, and which a template should load."""

from __future__ import annotations

import marshal
import os
import sys
from dataclasses import asdict, dataclass, field
from time import monotonic

from _anyfork_child.wire.memfd import new_file

from .._blocking.template import Template
from .._errors import AnyforkError, PreloadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from .._blocking.process import Process
    from .._processes.arguments import Kind

MEASURE = "_anyfork_child.program.imports:measure"
USE_PATH = "_anyfork_child.program.loaded:use_path_of_start"
WORTH = 0.001  # seconds that a module must take, to be worth a place in a template


class UnreadableError(Exception):
    """Raised for a program that is not there or does not compile; the text says why."""


@dataclass(slots=True)
class ImportedModule:
    """A module that the program imports, or that one of these imports.

    ``seconds`` and ``memory`` (bytes) include all that it imports. ``unsafe`` says what it has left behind that a
    template must not have, ``notes`` what must not be used in a template. ``installed`` modules are those that
    ``anyfork run`` may learn; others belong to the project.
    """

    name: str
    depth: int
    seconds: float
    memory: int
    unsafe: list[str]
    notes: list[str]
    installed: bool
    loaded: bool
    imports: list[ImportedModule] = field(default_factory=list, repr=False)

    @property
    def is_safe(self) -> bool:
        """True if neither it nor a module that it imports has left something behind."""
        return not self.unsafe and all(one.is_safe for one in self.imports)

    def walk(self) -> Iterator[ImportedModule]:
        """Yield this module and all that it imports."""
        yield self
        for one in self.imports:
            yield from one.walk()

    def sum_up(self) -> None:
        """Add the costs of what it imports to its own, and drop what could not be imported."""
        for one in self.imports:
            one.sum_up()
            self.seconds += one.seconds
            self.memory += one.memory
        self.imports = [one for one in self.imports if one.is_there]

    @property
    def is_there(self) -> bool:
        """True if it is loaded, or if something has remained of the attempt."""
        return self.loaded or bool(self.unsafe or self.imports)


@dataclass(slots=True)
class ImportAudit:
    """What is known of a program's imports. ``failed`` maps import statements to what they have raised.

    ``preload`` are the modules that a template should load. ``template`` says how long it took to make one with
    them, None if it cannot be made; ``refused`` maps modules that it could not load to the reasons.
    """

    modules: list[ImportedModule]
    failed: dict[str, str]
    preload: list[str]
    template: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def all_modules(self) -> list[ImportedModule]:
        """Return all modules, each before those that it imports."""
        return [one for root in self.modules for one in root.walk()]

    def plain(self) -> dict[str, Any]:
        """Return the audit as JSON has it: each module with the name of the one that has imported it."""
        rows = [dict(row, imported_by=above) for row, above in _rows(self.modules, None)]
        facts = {"failed": self.failed, "preload": self.preload, "refused": self.refused, "template": self.template}
        return {"modules": rows, **facts}


def _rows(modules: Sequence[ImportedModule], above: str | None) -> Iterator[tuple[dict[str, Any], str | None]]:
    for one in modules:
        row = asdict(one)
        del row["imports"], row["depth"], row["loaded"]
        yield row, above
        yield from _rows(one.imports, one.name)


def audit_imports(kind: Kind, target: str, options: Sequence[str]) -> ImportAudit:
    """Import what a program imports, in processes of their own, and say what a template should load of it.

    ``options`` are those of the interpreter. Raises UnreadableError, AnyforkError and OSError.
    """
    failed: dict[str, str] = {}
    loads = None
    while loads is None:  # once more for each import that ends the process
        loads = _measure(kind, target, options, failed)
    roots = _tree(loads)
    worth = {*_worth_loading(roots)}
    implied = {name for name in worth for other in worth if other.startswith(f"{name}.")}
    audit = ImportAudit(
        roots, failed, [one.name for root in roots for one in root.walk() if one.name in worth - implied]
    )
    _try_template(audit, options)
    return audit


def _measure(kind: Kind, target: str, options: Sequence[str], failed: dict[str, str]) -> list[Any] | None:
    """Return the facts on all loads; None, with a further failed statement, if the process has ended meanwhile."""
    output = new_file()
    try:
        with (
            Template.new_exec(
                python=sys.executable, flags=options, stdout=output.fd, stderr=output.fd, cwd=os.getcwd()
            ) as template,
            template.fork(contain=True).run(MEASURE, kind, target, [*failed]) as process,
        ):
            try:
                return _listen(process, failed)
            finally:
                process.kill()
    finally:
        output.close()


def _listen(process: Process, failed: dict[str, str]) -> list[Any] | None:
    """Read the messages of the process that imports. Raises UnreadableError."""
    statement = ""
    with process.channel.makefile("rb") as file:
        while True:
            try:
                what, *values = marshal.load(file)
            except EOFError:  # it has ended in the middle of an import
                if statement in failed or not statement:
                    raise UnreadableError("its imports end the process") from None
                failed[statement] = f"ends the process ({process.wait()})"
                return None
            if what == "loads":
                loads: list[Any] = values[0]
                return loads
            if what == "refused":
                raise UnreadableError(values[0])
            if what == "failed":
                failed[values[0]] = values[1]
            statement = values[0]


def _tree(loads: Sequence[Any]) -> list[ImportedModule]:
    """Return the modules that are not imported by others, with all below them."""
    modules: list[ImportedModule] = []
    for name, above, time, memory, unsafe, notes, installed, loaded in loads:
        depth = modules[above].depth + 1 if above >= 0 else 0
        modules.append(ImportedModule(name, depth, time / 1e9, memory, unsafe, notes, installed, loaded))
        if above >= 0:
            modules[above].imports.append(modules[-1])
    roots = [one for one in modules if not one.depth]
    for one in roots:
        one.sum_up()
    return [one for one in roots if one.is_there]


def _worth_loading(modules: Sequence[ImportedModule]) -> Iterator[str]:
    """Yield the names of modules to load: each with all below it, if nothing there is unsafe or the project's own."""
    for one in modules:
        if one.is_safe and one.installed and one.loaded:
            if one.seconds >= WORTH:
                yield one.name
        else:
            unsafe = {other.name for other in one.walk() if other.unsafe}
            yield from (name for name in _worth_loading(one.imports) if not _is_below(name, unsafe))


def _is_below(name: str, packages: set[str]) -> bool:
    """Return whether the import of a module imports one of some packages, too."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in packages for count in range(1, len(parts)))


def _try_template(audit: ImportAudit, options: Sequence[str]) -> None:
    """Make a template with the modules that are worth it; leave out what it cannot load."""
    while audit.preload:
        began = monotonic()
        try:
            template = Template.new_exec(python=sys.executable, flags=options)
            with template.prepare(USE_PATH).preload(*audit.preload).ready():
                audit.template = monotonic() - began
                return
        except PreloadError as error:
            audit.preload.remove(error.module)
            audit.refused[error.module] = str(error)
        except AnyforkError as error:
            audit.refused[", ".join(audit.preload)] = str(error)
            audit.preload.clear()
