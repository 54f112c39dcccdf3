"""What programs tell at their end: which installed modules they have imported.

They write it to a pipe of this process, which they open by its place below /proc. So no program has a further
descriptor while it runs, and nothing is left behind when this process is killed.
"""

from __future__ import annotations

import os
from _thread import RLock
from fcntl import F_SETPIPE_SZ, fcntl
from itertools import count

from .._system.locks import do_locked
from .._system.pipes import open_pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _anyfork_child.wire.descriptors import Owned

ROOM = 1 << 20  # bytes: what some hundred programs tell, between two looks
PIECE = 1 << 16  # bytes to read at once


class ToldImports:
    """The pipe, which is made for the first program, and what was read from it and not asked for yet."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._numbers = count(1)
        self._pipe: tuple[Owned, Owned] | None = None
        self._place = ""
        self._rest = b""  # the beginning of a line
        self._told: dict[str, list[str]] = {}

    def new_address(self) -> str:
        """Return the address where a program may tell its imports; empty if no pipe can be had."""
        try:
            return f"{self._place or do_locked(self._lock, self._open)}/{next(self._numbers)}"
        except OSError:  # no descriptor is left, for example
            return ""

    def _open(self) -> str:
        reading, writing = open_pipe()
        os.set_blocking(reading.fd, False)
        try:
            fcntl(writing.fd, F_SETPIPE_SZ, ROOM)
        except OSError:  # the user has too many pipes of that size
            pass
        found = os.fstat(writing.fd)
        self._pipe = reading, writing
        self._place = f"{os.getpid()}/{writing.fd}/{found.st_dev}/{found.st_ino}"
        return self._place

    def take(self, address: str) -> list[str] | None:
        """Return what the program with this address has told; None if it has told nothing by now."""
        do_locked(self._lock, self._read)
        return self._told.pop(address, None)

    def take_all(self) -> dict[str, list[str]]:
        """Return what programs have told since the last call, by their addresses."""
        do_locked(self._lock, self._read)
        told, self._told = self._told, {}
        return told

    def _read(self) -> None:
        if self._pipe is None:
            return
        try:
            while data := os.read(self._pipe[0].fd, PIECE):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    number, *names = line.decode("utf-8", "replace").split(" ")
                    self._told.setdefault(f"{self._place}/{number}", []).extend(names)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Listen no longer; programs go on, and tell nothing any more."""
        for end in self._pipe or ():
            end.close()
        self._pipe, self._place = None, ""
