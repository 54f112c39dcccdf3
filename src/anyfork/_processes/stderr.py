"""The standard error of a process, if it is a file of ours; the end of it goes into errors."""

from __future__ import annotations

import os
from _locale import getencoding

TAIL = 4096  # bytes that a person still reads
CONTINUATION = bytes(range(0x80, 0xC0))  # bytes in UTF-8 that follow another one, which may lie before the tail


class StderrTail:
    """A file with the output of a process. The descriptor belongs to this object."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tail(self) -> str:
        """Return the end of the output; empty once closed."""
        try:
            size = os.fstat(self._fd).st_size
            return _text(os.pread(self._fd, TAIL, max(0, size - TAIL))).strip()
        except OSError:  # closed, or not readable for this user
            return ""

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _text(data: bytes) -> str:
    """Decode output: from UTF-8 or, if it is something else, by the locale, as an older Python encodes it."""
    data = data.lstrip(CONTINUATION)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(getencoding(), "replace")
