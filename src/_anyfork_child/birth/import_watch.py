"""The imports of processes, noted with their time and memory: for anyfork.advise().

Runs in an observed template and in what is forked from it. It takes the place of the one function by which the
interpreter loads a module, whichever statement or function asks for it.
"""

from __future__ import annotations

import os
import sys
from importlib import _bootstrap
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OWN = "_anyfork_child"
IMPORT = "import"
_importlib: Any = _bootstrap  # its functions are not in the stubs
MOST = 16 << 20  # bytes of notes; further imports are not noted
PAGE = os.sysconf("SC_PAGE_SIZE")


class ImportWatch:
    """The function that loads modules, which notes each load that is not part of another one."""

    def __init__(self, file: int) -> None:
        self._file, self._template = file, os.getpid()
        found = os.fstat(file)
        self._identity = found.st_dev, found.st_ino
        self._load: Callable[..., Any] = _importlib._find_and_load
        self._inside = False
        _importlib._find_and_load = self

    def __call__(self, name: str, import_: Callable[..., Any]) -> Any:
        if self._inside or name in sys.modules or os.getpid() == self._template:
            return self._load(name, import_)
        self._inside = True
        began, before = monotonic_ns(), resident()
        try:
            module = self._load(name, import_)
        finally:
            self._inside = False
        if not name.startswith(OWN):
            time, after = monotonic_ns() - began, resident()
            grown = (after - before) * PAGE if before and after else 0
            self.note(IMPORT, time, grown, name)
        return module

    @property
    def is_idle(self) -> bool:
        """True outside of the load of a module."""
        return not self._inside

    def note(self, kind: str, time: int, size: int, name: str) -> None:
        """Write down something that this process has done, with its nanoseconds and its size, of which kind it is."""
        try:
            found = os.fstat(self._file)
            if (found.st_dev, found.st_ino) == self._identity and found.st_size < MOST:
                line = f"{kind} {os.getpid()} {time} {size} {' '.join(name.splitlines())}\n"
                os.write(self._file, line.encode("utf-8", "backslashreplace"))
        except OSError:  # the program has closed it
            pass


def resident() -> int:
    """Return how many pages of this process are in memory; 0 if it cannot learn that, for want of descriptors."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1])
    except OSError:  # the import that is measured must go on
        return 0
