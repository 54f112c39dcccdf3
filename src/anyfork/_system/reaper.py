"""The processes whose parent in the operating system is this one: templates that it has started or copied itself.

All others are children of templates, which reap them. These are waited for here, by pid and never any other, when they
are on their way out: at the next use of the library, because nothing runs in this program meanwhile.
"""

from __future__ import annotations

import os
from collections import deque


class Offspring:
    """Those that were told to end, and are not reaped yet. Without a lock: handles are dropped in the middle of
    anything."""

    def __init__(self) -> None:
        self.leaving: deque[int] = deque()

    def leave(self, pid: int) -> None:
        """This one ends soon, or has ended."""
        self.leaving.append(pid)
        self.reap()

    def reap(self) -> None:
        """Wait for those that have ended; never blocks."""
        for _ in range(len(self.leaving)):
            try:
                pid = self.leaving.popleft()
            except IndexError:  # another thread does the same
                return
            if not _has_ended(pid):
                self.leaving.append(pid)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the program waits for all its children, or ignores SIGCHLD
        return True


offspring = Offspring()
os.register_at_fork(after_in_child=offspring.leaving.clear)
