"""Claims of this process on descriptors: they tell whether a number still is what it was, and is this process's.

User code may close our descriptors, open others under their numbers, and fork copies of itself. The kernel keeps the
claim with the open file (as its F_SETOWN owner, which sends no signal unless O_ASYNC or out-of-band data ask for it).
So one system call tells our file from any other, and the process from its copies, and a start costs no page more.
"""

from __future__ import annotations

from fcntl import F_GETOWN, F_SETOWN, fcntl
from os import getpid


def claim(fd: int) -> None:
    """Make this process the one that may use the descriptor."""
    fcntl(fd, F_SETOWN, getpid())


def is_claimed(fd: int) -> bool:
    """Tell whether this number still is the file that this process, and no copy of it, has claimed."""
    try:
        return fcntl(fd, F_GETOWN) == getpid()
    except OSError:  # it is closed
        return False
