"""What a process wrote to its standard error, where that is a file of ours: the end of it goes into errors."""

from __future__ import annotations

import os

TAIL = 4096  # bytes that a person still reads


class Output:
    """The file. Its descriptor is this object's."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tail(self) -> str:
        """The end of what was written; empty once closed."""
        try:
            size = os.fstat(self._fd).st_size
            return os.pread(self._fd, TAIL, max(0, size - TAIL)).decode("utf-8", "replace").strip()
        except OSError:  # closed, or not readable for us
            return ""

    def close(self) -> None:
        """Close it. Closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
