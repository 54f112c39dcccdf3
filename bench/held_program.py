"""Runs a program as the command line does, and holds it at its end until its memory was measured.

    python held_program.py END RELEASE KIND TARGET ARGUMENTS...

The first two are descriptors. A byte on the one says that the program is at its end, and it ends when the other one
comes to its end.
"""

import atexit
import os
import runpy
import sys


def _hold(end: int, release: int) -> None:
    os.write(end, b".")
    os.read(release, 1)


def main() -> None:
    """Run the program that the arguments name."""
    end, release, kind, target, *argv = sys.argv[1:]
    atexit.register(_hold, int(end), int(release))
    sys.argv[:] = [target, *argv]
    sys.path[0] = os.getcwd()
    if kind == "-m":
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(target, "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(target, run_name="__main__")


if __name__ == "__main__":
    main()
