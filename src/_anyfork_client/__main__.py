"""The command ``anyfork``: ``run`` begins at once, all other commands are those of the package anyfork."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the program's arguments name."""
    if sys.argv[1:2] == ["run"]:
        from .run import main as run

        run(sys.argv[2:])
    from anyfork._cli.command_line import main as others

    others()


if __name__ == "__main__":
    main()
