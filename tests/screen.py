"""A terminal with a program in it, as a person uses it: what it shows, and what is typed."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Self

from deadlines import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Screen:
    """A pseudo-terminal with a program that leads its session."""

    def __init__(
        self, command: Sequence[str], rows: int = 24, columns: int = 80, extra: Sequence[int] = (), **keywords: Any
    ) -> None:
        self.master, slave = os.openpty()
        self.shown = b""
        self.resize(rows, columns)
        self.attributes_before = self.attributes()
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **keywords}
        self.process = subprocess.Popen(
            command,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
            pass_fds=[slave, *extra],
            **streams,
        )
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Wait until the terminal shows a text, after what was expected before."""
        while text.encode() not in self.shown:
            data = self._read()
            assert data, self.shown
            self.shown += data
        self.shown = self.shown.partition(text.encode())[2]

    def _read(self) -> bytes:
        assert select.select([self.master], [], [], DEADLINE)[0], self.shown
        try:
            return os.read(self.master, 1 << 12)
        except OSError:  # nobody has the terminal open any longer
            return b""

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self.master)

    def end(self) -> int:
        """Wait for the end of the program; return its exit status."""
        while data := self._read():
            self.shown += data
        return self.process.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.master)
        self.process.kill()
        self.process.wait()
