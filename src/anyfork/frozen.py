"""Templates of a frozen program, which needs no interpreter: make this the first import of its main program.

    import anyfork.frozen

A frozen program is its own interpreter, so its templates are the same executable, started again. In a template this
import recognises what the executable was started for, becomes the template, and never returns: nothing of the program
below that line runs a second time. Contexts of anyfork, as all of multiprocessing, start the executable for
multiprocessing's resource tracker, too, and the import becomes that. Everywhere else it does nothing.

The tool that builds the program has to include the packages anyfork, _anyfork_child and cloudpickle as a whole.
PyInstaller does so, and inserts the line above too, by the hook that comes with anyfork.
"""

from __future__ import annotations

import sys

from ._processes.launch import REENTRY
from ._system.interpreter import frozen_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How multiprocessing starts its resource tracker, by -c, which the executable of a frozen program does not know.
_TRACKER = "from multiprocessing.resource_tracker import main;main("


def _become_template() -> None:
    """Become the template. Runs in the template, in the first line of the program, and never returns to the program."""
    from types import ModuleType

    from _anyfork_child.wire.own_imports import import_own

    template: Any = import_own("_anyfork_child.__main__")
    import_own("_anyfork_child.birth.exit").is_copy = True  # this import, which is in the middle, never goes on

    arguments = sys.argv[2:]
    del sys.argv[1:]
    sys.modules["_anyfork_program"] = sys.modules["__main__"]  # kept from being torn down, and out of the way
    sys.modules["__main__"] = ModuleType("__main__")
    template.main(*arguments)


def _become_tracker(end: str) -> None:
    """Become multiprocessing's resource tracker, which reads from a descriptor, and never return to the program."""
    from multiprocessing.resource_tracker import main

    main(int(end))
    raise SystemExit


def _become_what_was_asked_for() -> None:
    if sys.argv[1:2] == [REENTRY]:
        _become_template()
    elif sys.argv[-2:-1] == ["-c"] and sys.argv[-1].startswith(_TRACKER):
        _become_tracker(sys.argv[-1].removeprefix(_TRACKER).removesuffix(")"))


if frozen_program():
    _become_what_was_asked_for()
