"""What the other side writes to its standard error, on its way to the owner's: whole lines, with the host's name."""

from __future__ import annotations

import os
from select import POLLOUT, poll

TAIL = 4096  # bytes that are kept for the text of an error
LONGEST = 64 << 10  # bytes of a line that has no end
ROOM = 1 << 20  # bytes that wait where the owner's standard error takes nothing; more is dropped
ATOM = 4096  # PIPE_BUF: so much is written in one piece, and without waiting where poll says that there is room

# Control characters could make a terminal do things: shown, not sent. Tabs are harmless.
HARMLESS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}


class Lines:
    """Takes bytes, writes lines to ``fd``. Nothing is written before ``begin``, which says how they begin."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._prefix: str | None = None
        self._part = b""  # of a line
        self._tail = b""
        self._waiting = b""
        self._dropped = 0

    @property
    def tail(self) -> str:
        """The end of what has come."""
        return self._tail.decode("utf-8", "replace").strip()

    @property
    def waits(self) -> bool:
        """Whether there are lines that could not be written yet."""
        return bool(self._waiting)

    def begin(self, host: str) -> None:
        """From now on lines are written, those that have come already first."""
        self._prefix = f"{host}: "
        self.take(b"")

    def take(self, data: bytes) -> None:
        """Take what has come; write the lines that are complete."""
        self._tail = (self._tail + data)[-TAIL:]
        self._part += data
        if self._prefix is None and len(self._part) < ROOM:
            return
        whole, newline, part = self._part.rpartition(b"\n")
        if not newline and len(part) > LONGEST:
            whole, part = part, b""
        self._part = part
        if whole or newline:
            self._write("".join(map(self._line, whole.decode("utf-8", "backslashreplace").split("\n"))))

    def end(self) -> None:
        """Nothing more comes: write what has no end of line, too."""
        if self._prefix is not None and self._part:
            part, self._part = self._part, b""
            self._write(self._line(part.decode("utf-8", "backslashreplace")))
        self.flush()

    def _line(self, text: str) -> str:
        return f"{self._prefix or ''}{text.removesuffix(chr(13)).translate(HARMLESS)}\n"

    def _write(self, text: str) -> None:
        data = text.encode()
        if len(self._waiting) + len(data) > ROOM:
            self._dropped += len(data)
            return
        if self._dropped:
            data = f"{self._prefix}[{self._dropped} bytes are missing here]\n".encode() + data
            self._dropped = 0
        self._waiting += data
        self.flush()

    def flush(self) -> None:
        """Write what can be written without waiting."""
        poller = poll()
        poller.register(self._fd, POLLOUT)
        while self._waiting and poller.poll(0):
            try:
                sent = os.write(self._fd, self._waiting[:ATOM])
            except BlockingIOError:
                return
            except OSError:  # nobody reads it any more
                sent = len(self._waiting)
            self._waiting = self._waiting[sent:]
