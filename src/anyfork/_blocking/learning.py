"""Learning: what the programs of a Warm import, so that its next template has it loaded."""

from __future__ import annotations

import os
import weakref
from itertools import count

from .._system import this_process
from .learned_imports import Imports, LearnedImports, read_told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._processes.arguments import Kind
    from .learned_imports import Program


class Learning:
    """The file of what programs have imported, and the programs that have not told it yet."""

    def __init__(self, path: str) -> None:
        self.imports = LearnedImports(path)
        self._numbers = count(1)
        self._directory = ""  # where programs tell what they have imported
        self._awaited: dict[str, Program] = {}

    def new_file(self, kind: Kind, target: str) -> str:
        """Return the path of a file where a program may write what it has imported; empty if there can be none."""
        try:
            path = os.path.join(self._directory or self._make_directory(), str(next(self._numbers)))
        except OSError:  # no space left, for example
            return ""
        self._awaited[path] = (kind, "" if kind == "-c" else target)
        return path

    def take_news(self) -> bool:
        """Read what programs have told since the last look; return whether that is new."""
        news = False
        for path, program in [*self._awaited.items()]:
            told = read_told(path)
            if told is not None:
                self._awaited.pop(path, None)
                news = self._note(program, told) or news
        return news

    def close(self) -> None:
        """Read what programs have told, and remove the directory; programs that go on tell nothing any more."""
        self.take_news()
        _remove(self._directory, os.getpid())
        self._directory = ""
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

    def _make_directory(self) -> str:
        from tempfile import mkdtemp

        self._directory = mkdtemp(prefix="anyfork-")  # a new name beside the file may lie on the module path
        weakref.finalize(self, _remove, self._directory, os.getpid())
        return self._directory


def _remove(directory: str, owner: int) -> None:
    if directory and this_process.pid == owner:
        from shutil import rmtree

        rmtree(directory, ignore_errors=True)
