"""Text of other programs, as a terminal may show it."""

from __future__ import annotations

import sys


def printable(text: str) -> str:
    """Return a line without characters that could control the terminal, as titles, names and arguments may have."""
    return "".join(one if one.isprintable() else "?" for one in text)


def accept_all_text() -> None:
    """Let the standard output show a question mark for each character that its encoding has not."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a stream of a program's start
