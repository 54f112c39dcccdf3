"""What a benchmark is told, and what it gives back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of the command line. ``only`` is empty when everything is wanted; ``count`` is for ``soak``."""

    quick: bool = False
    pinned: bool = False
    only: Collection[str] = ()
    count: int = 0

    def wants(self, name: str) -> bool:
        """Whether this part was asked for."""
        return not self.only or name in self.only


@dataclass(frozen=True, slots=True)
class Report:
    """Tables to print, data for JSON, and whether the benchmark found something that must fail the command."""

    tables: list[str]
    data: dict[str, object] = field(default_factory=dict)
    failed: bool = False


def progress(text: str) -> None:
    """Tell whoever waits what is going on."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
