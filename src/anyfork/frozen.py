"""Let a program that was built to need no interpreter have templates: make this the first import of its main program.

    import anyfork.frozen

A frozen program is its own interpreter, so its templates are the same executable, started again. There this import
recognises what it is started for, becomes the template, and never returns: nothing of the program below that line runs
a second time. Everywhere else it does nothing.

What builds the program has to take along the packages anyfork, _anyfork_child and cloudpickle as a whole. PyInstaller
does, and puts in the line above too, by the hook that comes with anyfork.
"""

from __future__ import annotations

import sys

from ._processes.launch import REENTRY
from ._system.interpreter import frozen_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _become_template() -> NoReturn:
    """Runs in the template, in the middle of the first line of the program, to which it does not go back."""
    from types import ModuleType

    from _anyfork_child.__main__ import main

    arguments = sys.argv[2:]
    del sys.argv[1:]
    sys.modules["_anyfork_program"] = sys.modules["__main__"]  # it is not taken apart, and not in anybody's way
    sys.modules["__main__"] = ModuleType("__main__")
    main(*arguments)


if sys.argv[1:2] == [REENTRY] and frozen_program():
    _become_template()
