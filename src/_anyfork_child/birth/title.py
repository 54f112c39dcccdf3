"""The title of this process as ``ps`` shows it.

Linux shows the memory between two addresses of the process as its command line, and the process may write there:
through /proc/self/mem, which needs no C. Without /proc, or with another layout of it, titles stay as they are.
"""

from __future__ import annotations

import os
from os import O_CLOEXEC, O_RDWR, close, open, pwrite, read, write  # noqa: A004  # the builtin is not used here

_FLAGS = O_RDWR | O_CLOEXEC
_COMM = 15  # bytes: the kernel's TASK_COMM_LEN without the final zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Title:
    """The location of the command line in memory, looked up once and valid in every process forked from this one."""

    __slots__ = ("_owner", "_room", "_shown", "_start")

    def __init__(self, owner: int) -> None:
        self._owner = b"%d " % owner  # the owner's pid precedes the title, so that ps output can be searched for it
        self._start, self._room = _command_line()
        self._shown = self._room - 1  # bytes that are not zero

    def place(self) -> tuple[bytes, int, int, int]:
        """Return what precedes a name, the place in memory, its bytes, and how many of them are shown."""
        return self._owner, self._start, self._room, self._shown

    def set(self, text: str) -> None:
        """Show this text as the title, and its beginning as the short name of the process. Raises OSError."""
        if self._room:
            self._write(text.encode("utf-8", "replace"), short=True)

    def restore(self, text: str) -> None:
        """Show this text again, if possible."""
        try:
            self.set(text)
        except OSError:  # as in show
            pass

    def show(self, name: bytes, short: bool = False) -> None:
        """Show ``<pid of the owner> name`` in the command line, if possible, and with ``short`` as the short name, too.

        Every start calls this, so it does little.
        """
        if self._room:
            try:
                self._write(self._owner + name, short)
            except OSError:  # no descriptor left, or not our own memory any more (after setuid)
                pass

    def show_command(self, line: Sequence[str]) -> None:
        """Show a command line, as the system does for a program that was executed, if possible."""
        if self._room:
            try:
                self._write(b"\0".join(map(os.fsencode, line)) + b"\0", short=False)
                self._name(os.fsencode(os.path.basename(line[0])))
            except OSError:  # as in show
                pass

    def _write(self, data: bytes, short: bool) -> None:
        if len(data) >= self._room:
            data = data[: self._room - 1]
        fd = open(b"/proc/self/mem", _FLAGS)
        pwrite(fd, data.ljust(self._shown, b"\0"), self._start)
        close(fd)
        self._shown = len(data)
        if short:
            self._name(b"-".join(data.split()))  # CPython counts the words of /proc/self/stat

    def _name(self, name: bytes) -> None:
        fd = open(b"/proc/self/comm", _FLAGS)
        write(fd, name[:_COMM])
        close(fd)


def _command_line() -> tuple[int, int]:
    try:
        fd = open("/proc/self/stat", O_CLOEXEC)
        fields = read(fd, 4096).rpartition(b")")[2].split()
        close(fd)
        start, end = int(fields[45]), int(fields[46])
        for path in ("/proc/self/mem", "/proc/self/comm"):
            close(open(path, _FLAGS))
    except (OSError, IndexError):  # no /proc, or no permission to write there
        return 0, 0
    return start, end - start
