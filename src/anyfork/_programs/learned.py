"""What programs have imported, so that the same command finds it loaded the next time."""

from __future__ import annotations

import os
from itertools import count

from _anyfork_child.wire.program_reports import REWRITTEN

from .kept_template import Recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    Command: TypeAlias = tuple[str, str, str]

MOST = 1000  # commands that are remembered


class Learned:
    """The recipes of commands: the latest one, and the one before, which serves until the latest one is ready."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._numbers = count(1)
        self._recipes: dict[Command, list[Recipe]] = {}

    def new_file(self) -> str:
        """Return the path of a file where a program may write what it has imported."""
        return f"{os.path.realpath(os.path.dirname(self._path))}/{os.path.basename(self._path)}.{next(self._numbers)}"

    def recipes(self, request: dict[str, Any]) -> Sequence[Recipe]:
        """Return the recipes for a command, the best one first."""
        plain = Recipe((), tuple(request["watch"]))
        return [*self._recipes.get(_command(request), ()), plain]

    def learn(self, request: dict[str, Any]) -> Recipe | None:
        """Read what a program has imported; return a recipe if there is something new."""
        found = _read(request.get("imports_file", ""))
        names = [name for name in found if not name.startswith(REWRITTEN)]
        refused = {name.removeprefix(REWRITTEN) for name in found if name.startswith(REWRITTEN)}
        before = self._recipes.get(_command(request), [])
        known = before[0].preload if before else ()
        own = request["target"] if request["kind"] == "-m" else ""
        if before:
            refused |= {*before[0].refused}
        wanted = tuple(dict.fromkeys(name for name in (*names, *known) if name != own and name not in refused))
        if {*wanted} <= {*known}:
            return None
        recipe = Recipe(wanted, tuple(request["watch"]), True, request["directory"], tuple(sorted(refused)))
        while len(self._recipes) >= MOST:
            self._recipes.pop(next(iter(self._recipes)), None)
        self._recipes[_command(request)] = [recipe, *before[:1]]
        return recipe


def _command(request: dict[str, Any]) -> Command:
    return request["kind"], request["target"], request["directory"]


def _read(path: str) -> list[str]:
    """Read and remove the file of a program; return the names in it."""
    try:
        with open(path, encoding="utf-8") as file:
            os.unlink(path)
            return file.read().split()
    except OSError:  # the program has ended without it
        return []
