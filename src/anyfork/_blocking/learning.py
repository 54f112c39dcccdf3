"""Learning: what the programs of a Warm import, so that its next template has it loaded."""

from __future__ import annotations

from .learned_imports import Imports, LearnedImports
from .told_imports import ToldImports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._processes.arguments import Kind
    from .learned_imports import Program

MOST = 10000  # programs that may still tell something


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
            if len(self._awaited) > MOST:  # programs that are killed tell nothing
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
