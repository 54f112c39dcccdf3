"""The standard streams of a program, as the interpreter makes them for the descriptors at its start.

The text streams of the template stay the same objects, because modules that it has loaded may hold them.
"""

from __future__ import annotations

import io
import os
import sys

from ..wire.frames import STDIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def renew() -> None:
    """Make the standard streams anew; the template has made them for its own descriptors."""
    for fd, name in enumerate(STDIO):
        old = getattr(sys, f"__{name}__")
        stream = _opened(fd, name, old)
        setattr(sys, f"__{name}__", stream)
        if getattr(sys, name) in (old, None) or stream is None:  # otherwise a loaded module has replaced it
            setattr(sys, name, stream)


def _opened(fd: int, name: str, old: Any) -> Any:
    """Return a standard stream, None if its descriptor is closed. Follows create_stdio() of CPython."""
    try:
        os.fstat(fd)
    except OSError:
        return None
    encoding, errors, unbuffered = _kind(name)
    write = fd > 0
    raw: Any
    buffer: Any = open(fd, "wb" if write else "rb", 0 if write and unbuffered else -1, closefd=False)
    raw = buffer if write and unbuffered else buffer.raw
    raw.name = f"<{name}>"
    by_line = not unbuffered and (fd == 2 or raw.isatty())
    stream: Any = old if type(old) is io.TextIOWrapper else io.TextIOWrapper.__new__(io.TextIOWrapper)
    stream.__init__(buffer, encoding, errors, "\n", by_line, unbuffered)
    stream.mode = "w" if write else "r"
    return stream


def _kind(name: str) -> tuple[str, str, bool]:
    """Return the encoding and the error handler that the interpreter has chosen, and whether output is unbuffered."""
    known = getattr(sys, f"__{name}__")
    if known is not None:
        return known.encoding, known.errors, known.write_through
    other = sys.__stderr__ or sys.__stdout__ or sys.__stdin__
    errors = "backslashreplace" if name == "stderr" else "strict"
    return ("utf-8", errors, False) if other is None else (other.encoding, errors, other.write_through)
