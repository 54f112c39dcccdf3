"""Functions that the processes of test_arguments.py run. They import little: each process imports them anew."""

from __future__ import annotations

import os
import socket


def closed_socket():
    sock = socket.socket()
    sock.close()
    return sock


def closed_file():
    with open(os.devnull) as file:
        return file
