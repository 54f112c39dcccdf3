"""Print what dependency groups of pyproject.toml need, a line each: pip reads them itself only from 25.1 on."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

GROUPS = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())["dependency-groups"]


def requirements(group: str) -> list[str]:
    """Return the requirements of a group and of those that it includes."""
    return [
        each
        for entry in GROUPS[group]
        for each in ([entry] if isinstance(entry, str) else requirements(entry["include-group"]))
    ]


if __name__ == "__main__":
    print(*(each for group in sys.argv[1:] for each in requirements(group)), sep="\n")
