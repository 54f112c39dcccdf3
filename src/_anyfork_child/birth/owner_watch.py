"""The watch on the owner: the lifeline, a pipe whose writing end the owner alone holds, shows the owner's end.

Templates watch the lifeline. That is not enough for processes that run user code: a template may be busy, stopped or
dead when its owner ends, and then could not end the processes that it has forked. So on Linux every process that is not
detached lets the kernel send it SIGTERM when the last writing end is closed. The kernel stores the process to signal
with the open file. Therefore the owner opens the pipe anew for each process, and the process only has to enter its pid
(FOLLOWED in a FORK frame's value).
"""

from __future__ import annotations

from _struct import Struct
from fcntl import fcntl
from os import read

F_SETOWN_EX = 15  # Linux. Its argument is bytes, which fcntl() accepts without a first failed try as an int
F_OWNER_PID = 1
pack_owner = Struct("2i").pack


def follow(lifeline: int, pid: int) -> None:
    """Have the kernel send SIGTERM to this process, ``pid``, when the owner ends, unless the owner has ended before."""
    fcntl(lifeline, F_SETOWN_EX, pack_owner(F_OWNER_PID, pid))


def has_ended(lifeline: int) -> bool:
    """Return whether the owner has ended."""
    try:
        return not read(lifeline, 1)
    except BlockingIOError:
        return False
