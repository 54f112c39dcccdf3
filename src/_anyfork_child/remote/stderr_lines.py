"""The standard error of the other side, forwarded to the owner's: whole lines, each with the host's name before it."""

from __future__ import annotations

import os
from select import POLLOUT, poll

TAIL = 4096  # bytes that are kept for the text of an error
LONGEST = 64 << 10  # bytes of a line that has no end
ROOM = 1 << 20  # bytes that are queued while the owner's standard error takes nothing; more are dropped
ATOM = 4096  # PIPE_BUF: a write of this size is atomic, and does not block if poll reports room

# Control characters could act on the terminal: they are shown as escapes. Tabs are harmless.
HARMLESS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}


class StderrLines:
    """A forwarder that takes bytes and writes lines to ``fd``, once ``begin`` has set their prefix.

    Before ``begin`` it writes nothing unless ROOM bytes are collected.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._prefix: str | None = None
        self._part = b""  # an incomplete line; before ``begin``, everything
        self._tail = b""
        self._waiting = b""
        self._dropped = 0

    @property
    def tail(self) -> str:
        """The last TAIL bytes, as text."""
        return self._tail.decode("utf-8", "replace").strip()

    @property
    def waits(self) -> bool:
        """True while lines are queued that could not be written yet."""
        return bool(self._waiting)

    def begin(self, host: str) -> None:
        """Write lines from now on, with the host's name before each; those collected so far come first."""
        self._prefix = f"{host}: "
        self.take(b"")

    def take(self, data: bytes) -> None:
        """Take bytes; write the lines that are complete."""
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
        """Write the last line, even without an end of line, because no more bytes follow."""
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
            except OSError:  # nobody reads the descriptor any more: discard the lines
                sent = len(self._waiting)
            self._waiting = self._waiting[sent:]
