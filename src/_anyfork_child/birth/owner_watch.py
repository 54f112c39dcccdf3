"""How a process learns of its owner's end: the lifeline, a pipe of which the owner alone holds the writing end.

Templates watch it. That is not enough for what runs user code: a template may be busy, stopped or dead when its owner
ends, and then could not tell the processes that it has forked. So on Linux every process that is not detached has the
kernel send it SIGTERM when the last writing end is closed. The kernel notes whom to signal with the open file, so the
owner opens the pipe anew for each process, and the process has but to name itself (FOLLOWED in a FORK frame's value).
"""

from __future__ import annotations

from _struct import Struct
from fcntl import fcntl
from os import read

F_SETOWN_EX = 15  # Linux. It takes bytes, for which fcntl() need not fail at first, as it does for an int
F_OWNER_PID = 1
pack_owner = Struct("2i").pack


def follow(lifeline: int, pid: int) -> None:
    """Have the kernel send SIGTERM to this process, ``pid``, at the owner's end, if it has not come yet."""
    fcntl(lifeline, F_SETOWN_EX, pack_owner(F_OWNER_PID, pid))


def has_ended(lifeline: int) -> bool:
    """True when the owner has ended."""
    try:
        return not read(lifeline, 1)
    except BlockingIOError:
        return False
