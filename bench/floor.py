"""The floor: the owner's side of the smallest possible template."""

from __future__ import annotations

import _socket
import os
import sys
from struct import Struct

from .floor_template import NOTHING, SEND_BYTE

_ONE = Struct("i")
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor_template.py")


class Floor:
    """Starts processes with one socketpair, one byte and one descriptor each; a handle is the owner's end."""

    def __init__(self, _preload: tuple[str, ...]) -> None:
        self._control, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        os.set_inheritable(far.fileno(), True)
        # The interpreter's flags are those of anyfork's default template, so that both are of the same size.
        command = [sys.executable, SCRIPT, str(far.fileno())]
        self._pid = os.posix_spawn(sys.executable, command, os.environ)
        far.close()

    def _start(self, byte: bytes) -> _socket.socket:
        mine, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._control.sendmsg([byte], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _ONE.pack(far.fileno()))])
        far.close()
        return mine

    def one(self) -> None:
        """Start a process and wait for its end."""
        self.end(self._start(NOTHING))

    def start(self) -> _socket.socket:
        """Start a process."""
        return self._start(NOTHING)

    def first_byte(self) -> _socket.socket:
        """Start a process and wait for its byte."""
        mine = self._start(SEND_BYTE)
        mine.recv(1)
        return mine

    def end(self, mine: _socket.socket) -> None:
        """Wait for the end of a process: the end of its socket, of which no other copy is open by then."""
        if mine.recv(1):
            raise RuntimeError("the floor's process sent more than it should")
        mine.close()

    def close(self) -> None:
        """End the template."""
        self._control.close()
        os.waitpid(self._pid, 0)
