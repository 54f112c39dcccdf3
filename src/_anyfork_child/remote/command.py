"""The command that connects to another machine, as a child process of the local relay."""

from __future__ import annotations

import _signal
import _socket
import os
from _signal import SIGKILL
from select import POLLIN, poll
from time import monotonic

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
    found: list[int] = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as listed:
            children = [int(child) for child in listed.read().split()]
    except OSError:  # the process has ended, or there is no /proc
        return found
    for child in children:
        found += [*_below(child), child]
    return found
