"""The commands, and what ``anyfork`` says without one."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

USAGE = """\
usage: anyfork COMMAND ...

Commands:
  as-forkserver [--import-main] SCRIPT | -m MODULE [ARGUMENT ...]
        Run a program in which multiprocessing's start method "forkserver" starts
        processes from a template. With --import-main, each process imports the
        program's file or module, as under multiprocessing's own forkserver.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, those of the program by default. Raises SystemExit for wrong ones."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command == "as-forkserver":
        from .as_forkserver import run

        run(rest, fail)
    elif command in ("", "-h", "--help", "help"):
        print(USAGE, end="")
    else:
        fail(f"there is no command {command!r}")


def fail(reason: str) -> NoReturn:
    """Say what is wrong with the arguments, and how to use them. Raises SystemExit."""
    print(f"anyfork: {reason}\n\n{USAGE}", end="", file=sys.stderr)
    raise SystemExit(2)
