"""The files that a template was made from, and whether one of them has changed since."""

from __future__ import annotations

import os
import time

from _anyfork_child.wire.program_reports import UNSETTLED_NS, file_state, margin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from _anyfork_child.wire.program_reports import State

IGNORED = "__pycache__"  # the interpreter makes it, and it hides nothing
# The ends of files that can be imported, or say what is installed (.pth, .dist-info, .egg-info, .egg-link, .egg).
ENDS = (".py", ".pyc", ".so", ".pth", "-info", ".egg-link", ".egg")


def _names(directory: str, whole: bool) -> frozenset[str]:
    """Return the names in a directory: those that may be modules, or the whole of them."""
    try:
        names = os.listdir(directory)
    except OSError:
        return frozenset()
    return frozenset(name for name in names if name != IGNORED and (whole or "." not in name or name.endswith(ENDS)))


class Sources:
    """A snapshot of files and directories, for a template whose making began at ``began`` (nanoseconds since 1970).

    Files are judged by inode, size and times, directories by the names in them: all of them in ``watched`` directories,
    and those that may be modules in others. ``noted`` are the states of source files from just before they were read.
    ``base`` is the snapshot for the template that this one is a fork of.
    """

    def __init__(
        self,
        files: Iterable[str],
        directories: Iterable[str],
        began: int,
        noted: Mapping[str, State] | None = None,
        base: Sources | None = None,
        watched: Iterable[str] = (),
    ) -> None:
        self._watched = frozenset(watched)
        self._noted: dict[str, State] = {}
        self._files: dict[str, State] = {}
        self._directories: dict[str, tuple[State, frozenset[str]]] = {}
        if base is not None:
            self._noted, self._files, self._directories = {**base._noted}, {**base._files}, {**base._directories}
            self._watched |= base._watched
        self._noted |= noted or {}
        self._files |= {path: file_state(path) for path in files if path not in self._files}
        for path in (*self._watched, *directories):
            if path not in self._directories:
                self._directories[path] = file_state(path), self._names_in(path)
        self._began = began

    def unsettled(self) -> tuple[str, float] | None:
        """Return a file that has changed so late that the template may have read it before; None if there is none.

        With it comes the number of seconds after which the same will not be true of a template that is made then.
        """
        for path, state in self._noted.items():
            if self._files.get(path, state) != state:
                return path, 0.0
        now = time.time_ns()
        for path, since in self._late():
            if self._began < since <= now + UNSETTLED_NS:  # otherwise another machine's clock is ahead
                return path, max(0, since - now) / 1e9
        return None

    def _late(self) -> Iterator[tuple[str, int]]:
        """Yield files with the time from which on the making of a template sees their last change."""
        for path, state in self._files.items():
            if state is not None and path not in self._noted:
                yield path, state[-1] + (UNSETTLED_NS if path.endswith(".py") else margin(state))
        for directory, (state, names) in self._directories.items():
            if state is not None and state[-1] + margin(state) > self._began:
                yield from self._new(directory, names)

    def _new(self, directory: str, names: Iterable[str]) -> Iterator[tuple[str, int]]:
        for name in names:
            state = file_state(os.path.join(directory, name))
            if state is not None:
                yield os.path.join(directory, name), state[-1] + margin(state)

    def changed(self) -> str:
        """Return a file or directory that has changed since; empty if there is none."""
        return next(self.changes(), "")

    def changes(self) -> Iterator[str]:
        """Yield the files and directories that have changed since."""
        for path, state in self._files.items():
            if file_state(path) != state:
                yield path
        for path in self._directories:
            if self._has_changed(path):
                yield path

    def _has_changed(self, directory: str) -> bool:
        state, names = self._directories[directory]
        now = file_state(directory)
        if now == state:
            return False
        if self._names_in(directory) != names:
            return True
        self._directories[directory] = (now, names)
        return False

    def _names_in(self, directory: str) -> frozenset[str]:
        return _names(directory, directory in self._watched)

    def again(self) -> Sources:
        """Return a snapshot of the same files and directories as they are now."""
        return Sources(self._files, self._directories, time.time_ns(), watched=self._watched)


def snapshot_after(error: BaseException, base: Sources | None = None) -> Sources:
    """Return a snapshot of the files that the remote traceback of an error names, with their directories.

    It has those of ``base``, too. A change of one of them may have removed the reason for the error.
    """
    files = [*_paths(getattr(error, "remote_traceback", ""))]
    return Sources(files, map(os.path.dirname, files), time.time_ns(), base=base)


def _paths(text: str) -> Iterator[str]:
    """Yield the paths in a traceback: those of its frames, and of a module that lacks a name."""
    for line in text.splitlines():
        quoted = line.lstrip().startswith('File "')
        path = line.split('"')[1] if quoted else line.rpartition("(")[2].partition(")")[0]
        if os.path.isabs(path):
            yield path


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
