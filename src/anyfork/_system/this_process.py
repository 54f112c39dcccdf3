"""This process: its pid, and the reaper of its own children.

The pid is a variable that costs nothing to read: os.getpid asks the system each time.

The children are templates that this process has started, or made as copies of itself. All other processes are children
of templates, which reap them. The children here are reaped after they were told to end, only by their own pids, at the
next use of the library: no code of the library runs in this program in between.
"""

from __future__ import annotations

import os
from collections import deque


class ChildReaper:
    """The children that were told to end, and are not reaped yet.

    There is no lock, because handles may be dropped at any point, even inside another call.
    """

    def __init__(self) -> None:
        self.leaving: deque[int] = deque()

    def leave(self, pid: int) -> None:
        """Add a child that ends soon, or has ended, and reap all that have ended."""
        self.leaving.append(pid)
        self.reap()

    def reap(self) -> None:
        """Reap the children that have ended. Never block."""
        for _ in range(len(self.leaving)):
            try:
                pid = self.leaving.popleft()
            except IndexError:  # another thread reaps at the same time
                return
            if not _has_ended(pid):
                self.leaving.append(pid)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the program waits for all its children, or ignores SIGCHLD
        return True


reaper = ChildReaper()
pid = os.getpid()


def _renew() -> None:
    """Update the pid, and forget the children. Runs in a forked copy of the owner."""
    global pid
    pid = os.getpid()
    reaper.leaving.clear()


os.register_at_fork(after_in_child=_renew)
