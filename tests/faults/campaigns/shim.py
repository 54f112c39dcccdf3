"""The shim between processes and their system calls: how it is built, and how the program that it harms controls it.

``shim.c`` tells what it does. The supervisor makes the control block, a file in memory that all processes of a program map.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("shim.c")
VARIABLE = "ANYFORK_SHIM"
BLOCK = struct.Struct("=8I104s")
ACTIONS = {"SHORT": 1000, "KILL": 1001, "STOP": 1002}
ARMED, STRUCK, STOPPED = 0, 6, 7  # words of the block
WORD = 4


def missing() -> str:
    """Return why there can be no shim here; empty when there can."""
    return "" if shutil.which("gcc") else "gcc, which builds the shim, is not installed"


@cache
def library() -> Path:
    """Return the shared library, built where that has not been done yet."""
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"anyfork-campaigns-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"shim-{name}.so"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            command = ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", f"{built}.new", str(SOURCE), "-ldl"]
            subprocess.run(command, check=True)
            os.rename(f"{built}.new", built)
    return built


@contextlib.contextmanager
def control() -> Iterator[tuple[dict[str, str], Shim]]:
    """Yield a control block for one program; what its environment needs, and the supervisor's view of the block."""
    fd = os.memfd_create("anyfork-campaign")
    os.ftruncate(fd, BLOCK.size)
    path = f"/proc/{os.getpid()}/fd/{fd}"
    try:
        yield {"LD_PRELOAD": str(library()), VARIABLE: path}, Shim(path)
    finally:
        os.close(fd)


class Shim:
    """A control block."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._block = mmap.mmap(file.fileno(), BLOCK.size)

    @classmethod
    @cache
    def present(cls) -> Self:
        """Return the control block of this program."""
        return cls(os.environ[VARIABLE])

    def arm(self, role: str, pid: int, at: int, action: str) -> None:
        """Strike at the n-th call of a process, or of the children of one together."""
        number = ACTIONS.get(action) or getattr(errno, action)
        self._block[:] = BLOCK.pack(0, role == "child", pid, at, number, 0, 0, 0, b"")
        self._put(ARMED, 1)

    def disarm(self) -> str:
        """Strike no more; return which call was struck, or an empty string."""
        self._put(ARMED, 0)
        *_, place = BLOCK.unpack(self._block[:])
        return str(place.partition(b"\0")[0].decode())

    def take_stopped(self) -> int:
        """Return the pid of a process that has stopped, once; 0 if there is none."""
        pid = int(BLOCK.unpack(self._block[:])[STOPPED])
        if pid:
            self._put(STOPPED, 0)
        return pid

    def _put(self, word: int, value: int) -> None:
        self._block[word * WORD : (word + 1) * WORD] = value.to_bytes(WORD, "little")
