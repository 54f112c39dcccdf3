"""What programs have imported, kept in a file by interpreter and program: what the next template loads beforehand."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass

from _anyfork_child.wire.program_reports import REWRITTEN

from .told_imports import ToldImports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    from .._processes.arguments import Kind

    Program: TypeAlias = tuple[str, ...]  # as in a command line; the keeper's has the directory as well


FORMAT = 1
MOST_PROGRAMS = 1000  # programs that are remembered
INTERPRETER = f"{sys.implementation.cache_tag} {sys.hexversion:x} {sys.prefix}"
REWRITTEN_BY = "an import hook of the program has changed it"
MOST_AWAITED = 10000  # programs that may still tell something


@dataclass(frozen=True, slots=True)
class Imports:
    """The installed modules that a program has imported, and those that a hook of the program has ``rewritten``."""

    modules: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    def with_further(self, found: Sequence[str], own: str = "") -> Imports:
        """Return these and what a program has told, without its ``own`` module; the latest ones come first."""
        rewritten = {*self.rewritten, *(name.removeprefix(REWRITTEN) for name in found if name.startswith(REWRITTEN))}
        names = dict.fromkeys([*(name for name in found if not name.startswith(REWRITTEN)), *self.modules])
        wanted = tuple(name for name in names if name != own and name not in rewritten)
        return self if {*wanted} <= {*self.modules} else Imports(wanted, tuple(sorted(rewritten)))


class LearnedImports:
    """The imports of programs, in memory and in a file. A file that cannot be read or written is passed over."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.programs: dict[Program, Imports] = _of_interpreter(_read(path))

    def note(self, program: Program, imports: Imports) -> None:
        """Remember the imports of a program, with what other processes have learned meanwhile. Raises OSError."""
        self.programs.pop(program, None)
        everything = _read(self.path)
        # The newest ones come last; what this process knows of a program is as new as the file.
        self.programs = {**self.programs, **_of_interpreter(everything), **self.programs, program: imports}
        while len(self.programs) > MOST_PROGRAMS:
            self.programs.pop(next(iter(self.programs)))
        everything[INTERPRETER] = [
            {"program": [*one], "modules": [*known.modules], "rewritten": [*known.rewritten]}
            for one, known in self.programs.items()
        ]
        _write(self.path, {"format": FORMAT, "interpreters": everything})

    def all(self) -> Imports:
        """Return the imports of all programs together."""
        known = self.programs.values()
        rewritten = {name for one in known for name in one.rewritten}
        modules = dict.fromkeys(name for one in known for name in one.modules if name not in rewritten)
        return Imports(tuple(modules), tuple(sorted(rewritten)))


def _read(path: str) -> dict[str, Any]:
    """Return what a file says of each interpreter; nothing if there is no such file, or it is none of ours."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        interpreters = found["interpreters"] if found["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return interpreters if isinstance(interpreters, dict) else {}


def _of_interpreter(everything: Mapping[str, Any]) -> dict[Program, Imports]:
    try:
        return {
            _texts(one["program"]): Imports(_texts(one["modules"]), _texts(one["rewritten"]))
            for one in everything.get(INTERPRETER, ())
        }
    except (KeyError, TypeError):  # somebody has edited the file
        return {}


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError
    return tuple(values)


def _write(path: str, values: Mapping[str, Any]) -> None:
    """Replace a file in one step, so that others read the old one or the new one. Raises OSError."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=1)
        os.replace(part, path)
    except BaseException:
        if os.path.lexists(part):
            os.unlink(part)
        raise


class Learning:
    """The file of what programs have imported, and the programs that may still tell it."""

    def __init__(self, path: str) -> None:
        self.imports = LearnedImports(path)
        self._told = ToldImports()
        self._awaited: dict[str, Program] = {}

    def new_address(self, kind: Kind, target: str) -> str:
        """Return the address where a program may tell what it has imported; empty if there can be none."""
        address = self._told.new_address()
        if address:
            self._awaited[address] = (kind, "" if kind == "-c" else target)
            if len(self._awaited) > MOST_AWAITED:  # programs that are killed tell nothing
                self._awaited.pop(next(iter(self._awaited)), None)
        return address

    def take_news(self) -> bool:
        """Read what programs have told since the last look; return whether that is new."""
        news = False
        for address, told in self._told.take_all().items():
            program = self._awaited.pop(address, None)
            if program is not None:
                news = self._note(program, told) or news
        return news

    def close(self) -> None:
        """Read what programs have told; programs that go on tell nothing any more."""
        self.take_news()
        self._told.close()
        self._awaited.clear()

    def _note(self, program: Program, told: list[str]) -> bool:
        before = self.imports.programs.get(program, Imports())
        now = before.with_further(told, program[1] if program[0] == "-m" else "")
        if now is before:
            return False
        known = {*self.imports.all().modules}
        try:
            self.imports.note(program, now)
        except OSError:  # this Warm knows it nevertheless
            pass
        return not known.issuperset(self.imports.all().modules)
