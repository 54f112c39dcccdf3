"""How all processes that come from a program are found, whoever their parents are: by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MARK = "ANYFORK_CAMPAIGN"
FOLDER = Path(__file__).parent.parent  # where this package is found


def descendants(mark: str) -> dict[int, str]:
    """Return the living processes with this mark: their command lines, by pid."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = command.strip()
    return found


def python_path() -> str:
    """Return the variable PYTHONPATH for a program that imports this package."""
    return os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH", "")]))
