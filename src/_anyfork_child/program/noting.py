"""What a template notes while it loads modules: variables that are read, source files as they are read, and output.

Byte code of a source file is trusted by whole seconds and size. So byte code of a file that has just changed is not
used, and that of files that the owner has seen change isn't either.
"""

from __future__ import annotations

import os
import sys
import time
from _frozen_importlib_external import SourceFileLoader

from ..wire.memfd import new_file
from ..wire.program_reports import UNSETTLED_NS, VOLATILE, file_state, margin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ..wire.program_reports import State

OUTPUTS = (1, 2)
ACCESSORS = {"os", "collections.abc", "_collections_abc"}  # the modules of os.environ's own methods
# Functions of the standard library, with their modules, that copy all variables only to start another program, and the
# variables that they and that program read. (LD_* and locales count in any case, see ``cold``.)
COPIES_FOR_PROGRAMS: dict[tuple[str, str], tuple[bytes, ...]] = {
    ("platform", "_syscmd_file"): (b"PATH", b"MAGIC"),
    ("ctypes.util", "_findLib_gcc"): (b"PATH", b"TMPDIR", b"LIBRARY_PATH", b"COMPILER_PATH", b"GCC_EXEC_PREFIX"),
    ("uuid", "_get_command_stdout"): (b"PATH",),
    ("subprocess", "_posix_spawn"): (),  # as _execute_child, which copies nothing
}


class NotingDict(dict[bytes, bytes]):
    """The data of os.environ that notes which variables were read."""

    def __init__(self, data: dict[bytes, bytes]) -> None:
        super().__init__(data)
        self.at_first = dict(data)
        self.readers: dict[bytes, str] = {}  # the first module that has read each variable
        self.whole = ""  # the first module that has read all of them

    def __getitem__(self, name: bytes) -> bytes:
        if name not in self.readers:
            reader = _reader()
            if name in COPIES_FOR_PROGRAMS.get(reader, (name,)):
                self.readers[name] = reader[0]
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[bytes]:
        reader = _reader()
        read = COPIES_FOR_PROGRAMS.get(reader)
        if read is None:
            self.whole = self.whole or reader[0]
        for name in read or ():
            self.readers.setdefault(name, reader[0])
        return super().__iter__()

    def plain(self) -> dict[bytes, bytes]:
        """Return the data as a plain dictionary; this reads nothing. (dict() and copy() would call __getitem__.)"""
        return {name: dict.__getitem__(self, name) for name in dict.__iter__(self)}

    def read(self) -> set[bytes]:
        """Return the names of the variables that were read."""
        return {*self.readers, *self.at_first} - VOLATILE if self.whole else {*self.readers}


def _reader() -> tuple[str, str]:
    """Return the names of the module and the function that read the environment now."""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") in ACCESSORS and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "?")), frame.f_code.co_name


class Noting:
    """The notes of a template, from ``begin`` to ``end``."""

    def __init__(self, distrusted: Sequence[str]) -> None:
        self.variables = NotingDict(os.environ._data)  # type: ignore[attr-defined]  # its own data, of both its views
        self.states: dict[str, State] = {}
        self.wrote = False
        self.seconds = 0.0  # how long loading has taken, without pauses; negative while it goes on
        self._distrusted = frozenset(distrusted)
        self._path_stats = SourceFileLoader.path_stats
        self._output = new_file()
        self._streams = [os.dup(fd) for fd in OUTPUTS]

    def begin(self) -> None:
        """Note from now on."""
        self.seconds = -time.monotonic()
        set_data(self.variables)
        SourceFileLoader.path_stats = self.path_stats_of()  # type: ignore[method-assign]  # until ``end``
        for fd in OUTPUTS:
            os.dup2(self._output.fd, fd)

    def path_stats_of(self) -> Any:
        """Return the method by which a loader asks for the times of a source file before it looks for byte code."""

        def path_stats(loader: Any, path: str) -> Any:
            if self._may_use_byte_code(path):
                return self._path_stats(loader, path)
            raise OSError("the byte code may be older than its source")  # the loader goes on without it

        return path_stats

    def _may_use_byte_code(self, path: str) -> bool:
        state = file_state(path)
        if state is not None:
            late = state[-1] + margin(state) - time.time_ns()
            if 0 < late <= margin(state):  # then a change after this moment shows in the times of the file
                time.sleep(late / 1e9)
                self.seconds -= late / 1e9
                state = file_state(path)
        self.states[path] = state
        return state is not None and time.time_ns() - max(state[-2:]) > UNSETTLED_NS and path not in self._distrusted

    def end(self) -> None:
        """Stop noting, and pass on to the standard error what was written meanwhile."""
        self.seconds += time.monotonic()
        SourceFileLoader.path_stats = self._path_stats  # type: ignore[method-assign]
        set_data(self.variables.plain())
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        for fd, own in zip(OUTPUTS, self._streams, strict=True):
            os.dup2(own, fd)
            os.close(own)
        written = os.pread(self._output.fd, os.fstat(self._output.fd).st_size, 0)
        self._output.close()
        self.wrote = bool(written)
        with open(2, "wb", 0, closefd=False) as stderr:
            stderr.write(written)


noted: list[Noting] = []  # of this template


def begin(distrusted: Sequence[str]) -> None:
    """Note from now on what is loaded. Byte code of these files is not used. Runs in the template."""
    noted[:] = [Noting(distrusted)]
    noted[0].begin()


def end() -> None:
    """Stop noting. Runs in the template."""
    noted[0].end()


def set_data(data: dict[bytes, bytes]) -> None:
    """Let both views of the environment have this data."""
    os.environ._data = os.environb._data = data  # type: ignore[attr-defined]  # as above
