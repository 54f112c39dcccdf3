"""Anonymous files in memory, for what is too large for a socket: written and sealed here, mapped on the other side."""

from __future__ import annotations

import os
import sys
from os import fstat

from .descriptors import duplicate, lift

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed import ReadableBuffer

F_ADD_SEALS = 1033  # Linux, <linux/fcntl.h>
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # SEAL, SHRINK, GROW, WRITE

# A map keeps a descriptor open where Python cannot be told not to (before 3.13): small ones are read there.
TRACKS_DESCRIPTORS = sys.version_info < (3, 13)
WORTH_A_MAP = 1 << 20 if TRACKS_DESCRIPTORS else 0  # bytes


def new_file() -> int:
    """An anonymous file in memory, which can be sealed; an unlinked one where there are none. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return lift(os.memfd_create("anyfork", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    import tempfile

    with tempfile.TemporaryFile() as file:
        return duplicate(file.fileno())


def write_stepwise(fd: int, parts: Sequence[ReadableBuffer], size: int) -> Iterator[None]:
    """Write all of it, at most so many bytes in each step. Raises OSError."""
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(fd, rest[:size]) :]
            yield


def seal(fd: int) -> None:
    """Let nobody change the file any more, where it is one that can be sealed."""
    from fcntl import fcntl

    try:
        fcntl(fd, F_ADD_SEALS, SEALS)
    except OSError:  # a file on a disk
        pass


def take(fd: int) -> object:
    """The content of a file as a writable buffer of our own; the descriptor is closed.

    A large one is mapped, copy on write: nothing is copied but what is written to, and the memory goes with the last
    reference to it.
    """
    try:
        size = fstat(fd).st_size
        if size > WORTH_A_MAP:
            return _mapped(fd, size)
        content = bytearray(size)
        at = 0
        while at < size and (got := os.preadv(fd, [memoryview(content)[at:]], at)):
            at += got
        return content
    finally:
        os.close(fd)


def _mapped(fd: int, size: int) -> object:
    import mmap

    options = {} if TRACKS_DESCRIPTORS else {"trackfd": False}
    return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE, **options)


def read_all(fd: int, limit: int) -> bytes:
    """The content of a file of at most so many bytes; the descriptor is closed. Raises ValueError for a larger one."""
    try:
        found = fstat(fd)
        size = found.st_size
        if size > limit or found.st_blocks * 512 < size - 1:  # a file with holes costs its sender nothing
            raise ValueError(f"a message of {size} bytes, {found.st_blocks * 512} of them written; at most {limit}")
        parts = []
        at = 0
        while at < size and (part := os.pread(fd, size - at, at)):
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(fd)
