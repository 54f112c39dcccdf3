"""Functions that the processes of test_processes.py run. They import little: each process imports them anew."""

from __future__ import annotations

import os


def write_when_closed(channel, fd):
    while channel.recv(100):
        pass
    os.write(fd.fileno(), b"went on")
