"""Claims of this process on descriptors: they show whether a number is still the same file, and this process's own.

User code may close our descriptors, open others under their numbers, and fork copies of the process. The kernel keeps
the claim with the open file (as its F_SETOWN owner, which causes no signal without O_ASYNC or out-of-band data). So one
system call distinguishes our file from any other, and the process from its copies, and a start costs no further page.
"""

from __future__ import annotations

from fcntl import F_GETOWN, F_SETOWN, fcntl
from os import getpid


def claim(fd: int) -> None:
    """Claim a descriptor for this process."""
    fcntl(fd, F_SETOWN, getpid())


def is_claimed(fd: int) -> bool:
    """Return whether this number is still the file that this process has claimed; False in a copy of the process."""
    try:
        return fcntl(fd, F_GETOWN) == getpid()
    except OSError:  # the number is closed
        return False
