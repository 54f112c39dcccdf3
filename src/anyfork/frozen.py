"""Let a program that was built to need no interpreter have templates: make this the first import of its main program.

    import anyfork.frozen

A frozen program is its own interpreter, so its templates are the same executable, started again. There this import
recognises what it is started for, becomes the template, and never returns: nothing of the program below that line runs
a second time. Everywhere else it does nothing. Programs that PyInstaller builds have this line already, put there by
the hook that comes with anyfork.
"""

from __future__ import annotations

import sys

from ._interpreter import frozen_program
from ._launch import REENTRY

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


def _imported_by_name() -> None:
    """For those who build such programs: what is imported by its name only when it is needed."""
    import cloudpickle.cloudpickle  # noqa: F401

    import _anyfork_child._async
    import _anyfork_child._worker
    import _anyfork_child._worker_async  # noqa: F401
    import anyfork._call
    import anyfork._worker  # noqa: F401


if sys.argv[1:2] == [REENTRY] and frozen_program():
    _become_template()
