"""A program that imports anyfork.early first, as its tests have it: it gives away its templates.

The tests' own program has threads long before it could, so a template of this kind is one of another owner, which is
handed over with ``detach`` and ``from_socket``.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
from functools import cache

import anyfork

PROGRAM = """
import sys
sys.path[:], sys.argv[:] = {path}, {argv}
import anyfork.early
import anyfork, socket

with socket.socket(fileno=0) as tests:
    while tests.recv(1):
        with anyfork.Template().detach() as template:
            socket.send_fds(tests, [b"."], [template.fileno()])
"""


class EarlyProgram:
    """The program, while it runs."""

    def __init__(self) -> None:
        self._socket, far = socket.socketpair()
        path = [part or os.getcwd() for part in sys.path]
        program = PROGRAM.format(path=path, argv=sys.argv)
        with far:
            self._process = subprocess.Popen([sys.executable, "-c", program], stdin=far)
        self.pid = self._process.pid
        atexit.register(self.close)

    def template(self) -> anyfork.Template:
        """Return a template that was forked from the program as it was at its first import, and is ours now."""
        self._socket.sendall(b".")
        _, (fd,), _, _ = socket.recv_fds(self._socket, 1, 1)
        os.set_inheritable(fd, False)
        return anyfork.Template.from_socket(socket.socket(fileno=fd))

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait()


@cache
def early_program() -> EarlyProgram:
    """Return one program for all tests."""
    return EarlyProgram()
