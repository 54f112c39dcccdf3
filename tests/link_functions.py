"""Functions that the processes of test_link.py run. They import little: each process imports them anew."""

from __future__ import annotations


def say_at_once(channel, size):
    channel.sendall(b"\x01" * size)
