"""Imports that anyfork does on its own behalf in a process: a file of the program must not stand in for what is meant.

The path of a process is that of its program, where a file beside the script may have the name of a standard module. The
interpreter's own modules go first while something of anyfork's is imported, and all that this imports. The path itself
stays as it is: other threads, and signal handlers, import at the same time.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from _thread import get_ident

from .signals import handled_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, ClassVar


def is_standard_library(entry: str) -> bool:
    """Whether this entry of sys.path is where this interpreter's own modules are, which are no other's."""
    home = os.path.dirname(os.__file__)
    above = os.path.dirname(home)
    archive = os.path.join(above, "python{}{}.zip".format(*sys.version_info))
    return entry in (home, os.path.join(home, "lib-dynload"), archive)


class OwnFirst:
    """Finds modules of the standard library before any other finder, in threads that import for anyfork.

    It stays among the finders: a thread that looks through them would miss one if it were removed meanwhile.
    """

    path: tuple[str, ...] = ()
    threads: ClassVar[list[int]] = []  # that import for anyfork now, as often as they do

    @classmethod
    def install(cls) -> None:
        """Put it among the finders, unless it is there."""
        if cls not in sys.meta_path:
            cls.path = tuple(entry for entry in sys.path if is_standard_library(entry))
            sys.meta_path.insert(0, cls)

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As of every finder."""
        if path is not None or get_ident() not in cls.threads:
            return None
        from _frozen_importlib_external import PathFinder

        found = PathFinder.find_spec(name, cls.path, target)
        return found if found is not None and found.loader is not None else None  # not a folder without code


def import_own(name: str) -> Any:
    """Import a module of the standard library, or one that is to find the standard library itself; return it.

    Signals that have handlers wait meanwhile: a handler that uses the same module would find half of it.
    """
    if name in sys.modules:
        return __import__(name, None, None, ("__name__",))  # waits for another thread that is in the middle of it
    mask = pthread_sigmask(SIG_BLOCK, handled_signals())
    OwnFirst.install()
    OwnFirst.threads.append(get_ident())
    try:
        return __import__(name, None, None, ("__name__",))
    finally:
        OwnFirst.threads.remove(get_ident())
        pthread_sigmask(SIG_SETMASK, mask)


def warm(module: str) -> None:
    """Import a module that forks will want, if it is there."""
    try:
        import_own(module)
    except Exception:  # a fork that cannot do without says so
        pass
