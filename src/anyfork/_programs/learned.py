"""What programs have imported, so that the same command finds it loaded the next time."""

from __future__ import annotations

import os

from .._blocking.learned_imports import MOST_PROGRAMS, Imports, LearnedImports
from .._blocking.told_imports import ToldImports
from .kept_templates import Recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .._blocking.learned_imports import Program

SUFFIX = ".learned"


class Learned:
    """The recipes of commands: the latest one, and the one before, which serves until the latest one is ready.

    What the keeper before this one has learned is in its file.
    """

    def __init__(self, path: str) -> None:
        self._told = ToldImports()
        self._imports = LearnedImports(path + SUFFIX)
        self._note_use()
        self._before: dict[Program, Imports] = {}

    def new_address(self) -> str:
        """Return the address where a program may tell what it has imported; empty if there can be none."""
        return self._told.new_address()

    def recipes(self, request: Mapping[str, Any]) -> Sequence[Recipe]:
        """Return the recipes for a command, the best one first."""
        self._note_use()
        program = _program(request)
        known = [found[program] for found in (self._imports.programs, self._before) if program in found]
        return [*(_recipe(request, one) for one in known), Recipe((), tuple(request["watch"]))]

    def latest(self, kind: str, target: str, watch: Sequence[str]) -> Recipe | None:
        """Return the recipe of a command as it was learned last, in whichever directory; None if there is none."""
        for program, imports in reversed(self._imports.programs.items()):
            if program[:2] == (kind, target):
                return _recipe({"directory": program[2], "watch": watch}, imports)
        return None

    def learn(self, request: Mapping[str, Any]) -> Recipe | None:
        """Read what a program has imported; return a recipe if there is something new."""
        program = _program(request)
        before = self._imports.programs.get(program, Imports())
        own = request["target"] if request["kind"] == "-m" else ""
        now = before.with_further(self._told.take(request.get("imports_to", "")) or (), own)
        if now is before:
            return None
        self._before.pop(program, None)
        if before.modules:
            self._before[program] = before
            if len(self._before) > MOST_PROGRAMS:
                self._before.pop(next(iter(self._before)))
        try:
            self._imports.note(program, now)
        except OSError:  # no space left, for example: this keeper knows it nevertheless
            pass
        return _recipe(request, now)

    def _note_use(self) -> None:
        """Note in the file's time that it is in use: see _programs.unused_files."""
        try:
            os.utime(self._imports.path)
        except OSError:  # there is none, or it belongs to somebody else
            pass


def _program(request: Mapping[str, Any]) -> Program:
    """Return the kind of a command, its target and its directory."""
    return request["kind"], request["target"], request["directory"]


def _recipe(request: Mapping[str, Any], imports: Imports) -> Recipe:
    watch, directory = tuple(request["watch"]), request["directory"]
    return Recipe(imports.modules, watch, learned=True, directory=directory, refused=imports.rewritten)
