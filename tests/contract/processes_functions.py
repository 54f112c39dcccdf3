"""Functions that the processes of test_processes.py run. They import little: each process imports them anew."""

from __future__ import annotations

import gc
import os

KEPT = []


def write_when_closed(channel, fd):
    while channel.recv(100):
        pass
    os.write(fd.fileno(), b"went on")


def fill(count):
    """Make objects that the collector looks at, in a template."""
    KEPT.extend([index] for index in range(count))


def private_around_a_collection():
    """Return how many bytes this process shares with none, before and after a full collection."""
    before = _private()
    gc.collect()
    return before, _private()


def _private():
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
