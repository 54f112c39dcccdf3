"""The names of files, as they travel: their bytes.

The other side may use another encoding for names, because another version of Python does so by default: from 3.15 on,
that is UTF-8 whatever the locale says.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Name = TypeVar("Name")


class FileName(str):
    """A name that is pickled as its bytes, so that it names the same file on the other side."""

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return name_of_bytes, (os.fsencode(self),)


def name_of_bytes(data: bytes) -> str:
    """Return the name, as this process has it, of the file with these bytes as its name."""
    return os.fsdecode(data)


def file_name(name: Name) -> Name:
    """Return the name in a form that travels as its bytes, if it is text and that makes a difference."""
    if not isinstance(name, str) or name.isascii():
        return name
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # no file that this process can see has that name
        return name
    return FileName(name)  # type: ignore[return-value]  # it is a str
