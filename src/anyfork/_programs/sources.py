"""The files that a template was made from, and whether one of them has changed since."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    State: TypeAlias = tuple[int, ...] | None

UNSETTLED = 2 * 10**9  # nanoseconds: byte code is trusted by whole seconds, and the clock of files is a coarse one
IGNORED = "__pycache__"  # the interpreter makes it, and it hides nothing


def _state(path: str) -> State:
    """Return what is compared of a file; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _names(directory: str) -> frozenset[str]:
    try:
        return frozenset(name for name in os.listdir(directory) if name != IGNORED)
    except OSError:
        return frozenset()


class Sources:
    """A snapshot of files and directories, for a template whose making began at ``began`` (nanoseconds since 1970).

    Files are judged by inode, size and times, directories by the names in them.
    """

    def __init__(self, files: Iterable[str], directories: Iterable[str], began: int) -> None:
        self._files = {path: _state(path) for path in files}
        self._directories = {path: (_state(path), _names(path)) for path in directories}
        self._began = began

    def unsettled(self) -> str:
        """Return a file that has changed so late that the template may have read it before; empty if there is none."""
        states = [*self._files.items(), *((path, state) for path, (state, _) in self._directories.items())]
        limit = self._began - UNSETTLED
        return next((path for path, state in states if state is not None and state[-1] >= limit), "")

    def changed(self) -> str:
        """Return a file or directory that has changed since; empty if there is none."""
        for path, state in self._files.items():
            if _state(path) != state:
                return path
        return next((path for path in self._directories if self._has_changed(path)), "")

    def _has_changed(self, directory: str) -> bool:
        state, names = self._directories[directory]
        now = _state(directory)
        if now == state:
            return False
        if _names(directory) != names:
            return True
        self._directories[directory] = (now, names)
        return False


def expand(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files and directories that paths stand for: a directory stands for all below it, too."""
    files, directories = [], []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
        for place, _, names in os.walk(path):
            if os.path.basename(place) != IGNORED:
                directories.append(place)
                files += [os.path.join(place, name) for name in names]
    return files, directories
