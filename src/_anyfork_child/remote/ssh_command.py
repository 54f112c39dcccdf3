"""The command that connects to another machine, as a child process of the local relay, and its standard error.

Whole lines of the standard error are forwarded to the owner's, each with the name of the host before it.
"""

from __future__ import annotations

import _signal
import _socket
import os
from _signal import SIGKILL
from select import POLLIN, POLLOUT, poll
from time import monotonic

from ..wire.process_tree import children

POLL_INTERVAL = 0.01  # seconds between looks at a process that should end now


class Command:
    """A running command.

    ``fd`` is connected to its standard input and output, ``errors`` to its standard error; neither blocks.
    Raises OSError if the command cannot be executed.
    """

    def __init__(self, command: list[str]) -> None:
        near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.errors, errors = os.pipe()
        self.fd = near.detach()
        os.set_blocking(self.fd, False)
        os.set_blocking(self.errors, False)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((far.fileno(), far.fileno(), errors))]
        try:
            self._pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=actions,
                setsigmask=(),
                setsigdef=(_signal.SIGPIPE, _signal.SIGTERM),  # but not SIGINT: Ctrl-C is for the owner
            )
        except ValueError as error:  # the command contains a zero byte
            raise OSError(0, str(error)) from None
        finally:
            far.close()
            os.close(errors)
        self.status: int | None = None  # the status from waitpid, once it is known

    def ended(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the command to end. Return whether it has ended."""
        deadline = monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.status = status
            elif monotonic() > deadline:
                return False
            else:
                poll().poll(POLL_INTERVAL * 1000)
        return True

    def kill(self) -> None:
        """Kill the command and its descendants, unless the command was reaped before."""
        if self.status is None:
            for pid in (*_below(self._pid), self._pid):
                try:
                    os.kill(pid, SIGKILL)
                except OSError:  # the process has ended, or belongs to another user and will see its connection end
                    pass

    def drain_errors(self, seconds: float) -> bytes:
        """Return what the command and its descendants still write to standard error within ``seconds``."""
        said = b""
        deadline = monotonic() + seconds
        poller = poll()
        poller.register(self.errors, POLLIN)
        while (left := deadline - monotonic()) > 0 and poller.poll(left * 1000):
            part = os.read(self.errors, 1 << 16)
            if not part:
                break
            said += part
        return said


def _below(pid: int) -> list[int]:
    """Return the descendants of a process, each after its own descendants, as far as /proc lists them."""
    return [one for child in children(pid) for one in (*_below(child), child)]


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
