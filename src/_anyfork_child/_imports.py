"""Imports that anyfork does on its own behalf in a process: a file of the program must not stand in for what is meant.

The path of a process is that of its program, where a file beside the script may have the name of a standard module. The
interpreter's own modules go first while something of anyfork's is imported, and all that this imports.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_standard_library(entry: str) -> bool:
    """Whether this entry of sys.path is where this interpreter's own modules are, which are no other's."""
    home = os.path.dirname(os.__file__)
    above = os.path.dirname(home)
    archive = os.path.join(above, "python{}{}.zip".format(*sys.version_info))
    return entry in (home, os.path.join(home, "lib-dynload"), archive)


def import_own(name: str) -> Any:
    """Import a module of the standard library, or one that is to find the standard library itself; return it."""
    if name in sys.modules:
        return __import__(name, None, None, ("__name__",))  # waits for another thread that is in the middle of it
    before = [*sys.path]
    sys.path.sort(key=lambda entry: not is_standard_library(entry))
    try:
        return __import__(name, None, None, ("__name__",))
    finally:
        sys.path[:] = [*before, *(entry for entry in sys.path if entry not in before)]


def warm(module: str) -> None:
    """Import a module that forks will want, if it is there."""
    try:
        import_own(module)
    except Exception:  # a fork that cannot do without says so
        pass
