"""Where the programs of a keeper for hosts come from: a template with some modules."""

from __future__ import annotations

import os
import sys

from .._blocking.generation import NotWarmError
from .kept_templates import KeptTemplates
from .owned_program import OwnedProgram, start_kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .kept_templates import Recipe


class ProgramSource:
    """A template by its recipe and the options of its interpreter; one for each environment that needs its own."""

    def __init__(self, recipe: Recipe, options: Sequence[str]) -> None:
        self._recipe = recipe
        self._options = options
        self._templates = KeptTemplates()

    def prepare(self) -> None:
        """Have the template made for programs with the environment of this process."""
        self._templates.get(self._recipe, self._options, os.environb).prepare(os.environb)

    def close(self) -> None:
        """Let the templates end."""
        self._templates.close()

    def start(
        self, program: Sequence[str], env: dict[bytes, bytes] | None, cwd: str | None, streams: dict[str, Any]
    ) -> OwnedProgram:
        """Start a program, which leads a session. If its template cannot be made, it has no modules loaded.

        Raises OSError, and AnyforkError and ValueError for what no program can be given.
        """
        command = [sys.executable, *self._options, *program]
        found = dict(os.environb) if env is None else env
        keywords = {"cwd": cwd, "start_new_session": True, "bufsize": 0, **streams}
        kept = self._templates.get(self._recipe, self._options, found)
        try:
            return start_kept(OwnedProgram, kept, command, found, **keywords)
        except NotWarmError as why:
            started = OwnedProgram(command, None, found, **keywords)
            started.cold = str(why)
            return started
