"""Imports that anyfork makes for itself in a process: a file of the program must not replace the intended module.

The path of a process is the path of its program, where a file beside the script may have the name of a standard module.
While anyfork imports a module for itself, and everything that this module imports, the interpreter's own modules come
first. The path itself is not changed, because other threads and signal handlers import at the same time.
"""

from __future__ import annotations

import os
import sys
from _imp import is_frozen
from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from _thread import get_ident

from .signals import handled_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, ClassVar


def is_standard_library(entry: str) -> bool:
    """Return whether this entry of sys.path is a place of this interpreter's own modules alone."""
    home = os.path.dirname(os.__file__)
    above = os.path.dirname(home)
    archive = os.path.join(above, "python{}{}.zip".format(*sys.version_info))
    return entry in (home, os.path.join(home, "lib-dynload"), archive)


class OwnFirst:
    """A finder that finds modules of the standard library before any other finder, in threads that import for anyfork.

    It stays among the finders: if it were removed, a thread that iterates over them at that moment would skip one.
    """

    path: tuple[str, ...] = ()
    threads: ClassVar[list[int]] = []  # the threads that import for anyfork now, once for each nested import

    @classmethod
    def install(cls) -> None:
        """Insert this class before all other finders, unless it is among them."""
        if cls not in sys.meta_path:
            cls.path = tuple(entry for entry in sys.path if is_standard_library(entry))
            sys.meta_path.insert(0, cls)

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module, as every finder does; only for threads that import for anyfork."""
        if path is not None or get_ident() not in cls.threads or is_frozen(name):  # which no file can replace
            return None
        from _frozen_importlib_external import PathFinder

        found = PathFinder.find_spec(name, cls.path, target)
        return found if found is not None and found.loader is not None else None  # not a folder without code


def import_own(name: str) -> Any:
    """Import a module of the standard library, or one that must find the standard library itself; return it.

    Signals that have handlers are blocked meanwhile: a handler that uses the same module would find half of it.
    """
    if name in sys.modules:
        return __import__(name, None, None, ("__name__",))  # waits for another thread that is importing it
    mask = pthread_sigmask(SIG_BLOCK, handled_signals())
    OwnFirst.install()
    OwnFirst.threads.append(get_ident())
    try:
        return __import__(name, None, None, ("__name__",))
    finally:
        OwnFirst.threads.remove(get_ident())
        pthread_sigmask(SIG_SETMASK, mask)


def warm(module: str) -> None:
    """Import a module that forks will need, if it is available."""
    try:
        import_own(module)
    except Exception:  # a fork that needs the module will report the error
        pass
