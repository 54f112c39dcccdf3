"""The standard error of a process, if it is a file of ours; the end of it goes into errors."""

from __future__ import annotations

import os
from _locale import getencoding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _anyfork_child.wire.descriptors import Owned

TAIL = 4096  # bytes that a person still reads
CONTINUATION = bytes(range(0x80, 0xC0))  # bytes in UTF-8 that follow another one, which may lie before the tail


class StderrTail:
    """A file with the output of a process."""

    __slots__ = ("_file",)

    def __init__(self, file: Owned) -> None:
        self._file = file

    def tail(self) -> str:
        """Return the end of the output; empty once closed."""
        try:
            size = os.fstat(self._file.fd).st_size
            return _text(os.pread(self._file.fd, TAIL, max(0, size - TAIL))).strip()
        except (OSError, ValueError):  # not readable for this user, or closed
            return ""

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._file.close()


def _text(data: bytes) -> str:
    """Decode output: from UTF-8 or, if it is something else, by the locale, as an older Python encodes it."""
    data = data.lstrip(CONTINUATION)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(getencoding(), "replace")
