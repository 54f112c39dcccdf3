"""The line of progress."""

from __future__ import annotations

import shutil
import sys


def progress(text: str) -> None:
    """Show a line that the next one replaces, if standard output is a terminal."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
