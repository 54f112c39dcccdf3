"""The command line of a program, and what it means for the interpreter: sys.argv, sys.orig_argv and sys.path."""

from __future__ import annotations

import os
import sys

from .options import own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE, CODE, SCRIPT = "-m", "-c", ""
_kept: list[object] = []  # the template's finders: freeing them would copy the memory of all names in its directories


class Command:
    """A command line: its kind, the module, code or path, and the arguments of the program.

    ``line`` is the whole of it, as sys.orig_argv has it, with ``options`` of the interpreter; without a line, the
    options are those of the template. ``start_path`` is sys.path as the interpreter has computed it, without the entry
    that depends on the command.
    """

    __slots__ = ("argv", "kind", "line", "options", "start_path", "target")

    def __init__(
        self,
        kind: str,
        target: str,
        argv: Sequence[str],
        start_path: Sequence[str],
        line: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.target = target
        self.argv = argv
        self.start_path = start_path
        self.options = options if line else own()
        self.line = line or [sys.executable, *self.options, *([kind] if kind else []), target, *argv]

    @property
    def file(self) -> str:
        """The absolute path of a script."""
        return self.target if os.path.isabs(self.target) else f"{os.getcwd()}/{self.target}"

    def first_place(self) -> str:
        """Return the directory that the command puts before all others in sys.path. Raises OSError."""
        if self.kind == MODULE:
            return os.getcwd()
        return "" if self.kind == CODE else os.path.dirname(os.path.realpath(self.target))

    def set_up(self) -> None:
        """Set the arguments and the module path of the interpreter. Raises OSError."""
        first = [] if sys.flags.safe_path else [self.first_place()]
        sys.orig_argv[:] = self.line
        sys.argv[:] = [self.kind or self.target, *self.argv]
        sys.path[:] = [*first, *self.start_path]
        _kept.append(sys.path_importer_cache)
        sys.path_importer_cache = {}
        zipimport = sys.modules.get("zipimport")
        if zipimport is not None:
            zipimport._zip_directory_cache.clear()
