"""Anonymous files in memory for data too large for a socket: the sender writes and seals, the receiver maps them."""

from __future__ import annotations

import os
import sys
from errno import EMFILE
from os import fstat

from .descriptors import Owned, duplicates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed import ReadableBuffer

F_ADD_SEALS = 1033  # Linux, <linux/fcntl.h>
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # SEAL, SHRINK, GROW, WRITE

FULL = (
    "no descriptor is left for a file in memory, which each large argument or result needs: "
    "raise the limit of open files (RLIMIT_NOFILE), or have fewer calls in progress (buffersize of map)"
)

# Before Python 3.13 a map keeps a descriptor open, without an option to change that: small files are read instead.
TRACKS_DESCRIPTORS = sys.version_info < (3, 13)
WORTH_A_MAP = 1 << 20 if TRACKS_DESCRIPTORS else 0  # bytes


def new_file() -> Owned:
    """Make an anonymous file in memory that can be sealed, or an unlinked file on disk if the system has no such files.

    Return the owner of its descriptor. Raises OSError.
    """
    try:
        return _new_file()
    except OSError as error:
        if error.errno != EMFILE:
            raise
        raise OSError(EMFILE, FULL) from error


def _new_file() -> Owned:
    if hasattr(os, "memfd_create"):
        return Owned(map(os.memfd_create, ("anyfork",), (os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING,))).lifted()
    import tempfile

    with tempfile.TemporaryFile() as file:
        return Owned(duplicates((file.fileno(),)))


def write_stepwise(fd: int, parts: Sequence[ReadableBuffer], size: int) -> Iterator[None]:
    """Write all parts to a file, at most ``size`` bytes in each step of the iterator. Raises OSError."""
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(fd, rest[:size]) :]
            yield


def seal(fd: int) -> None:
    """Seal a file against all changes; do nothing for a file that cannot be sealed."""
    from fcntl import fcntl

    try:
        fcntl(fd, F_ADD_SEALS, SEALS)
    except OSError:  # a file on a disk
        pass


def take(fd: int) -> object:
    """Return the content of a file as a writable buffer of our own, and close the descriptor.

    A large file is mapped copy on write: only pages that are written to are copied, and the memory is freed with the
    last reference to the buffer.
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
    """Return the content of a file of at most ``limit`` bytes, and close the descriptor.

    Raises ValueError for a larger file, and for one with holes.
    """
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
