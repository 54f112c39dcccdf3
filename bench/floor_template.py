"""The smallest possible template, as a script: one byte and one descriptor a start, ``os.fork``, ``os._exit``.

Nothing is encoded, nothing is reported, nothing can be asked; the owner learns the end of a process from the end of
its socket. What is faster than this is not a template in Python.
"""

from __future__ import annotations

import _socket
import gc
import os
import sys

NOTHING, SEND_BYTE = b"n", b"b"


def nothing(_fd: int) -> None:
    """Return at once."""


def send_byte(fd: int) -> None:
    """Send one byte at once."""
    os.write(fd, b"x")


FUNCTIONS = {NOTHING: nothing, SEND_BYTE: send_byte}


def serve(control: _socket.socket) -> None:
    """Fork for every byte that comes, until the owner closes the socket."""
    fork, close, waitpid, without_waiting = os.fork, os.close, os.waitpid, os.WNOHANG
    receive, room = control.recvmsg, _socket.CMSG_SPACE(4)
    alive = 0
    while True:
        byte, ancillary, _, _ = receive(1, room)
        if not byte:
            return
        fd = int.from_bytes(ancillary[0][2], sys.byteorder)
        if fork() == 0:
            FUNCTIONS[byte](fd)
            os._exit(0)
        close(fd)
        alive += 1
        while alive and waitpid(-1, without_waiting)[0]:
            alive -= 1


if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    gc.disable()
    serve(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, int(sys.argv[1])))
