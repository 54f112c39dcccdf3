"""The default template: one for the program, started at its first need and replaced when it is gone."""

from __future__ import annotations

import atexit
import os
from _thread import allocate_lock

from ._launch import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._link import Link


class DefaultTemplate:
    """Holds the link to it. Belongs to one process and one set of credentials; in any other it starts anew."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._ending: list[int] = []  # pids of former ones, children of this process, not reaped yet
        self._link: Link | None = None
        self._identity: tuple[object, ...] = ()

    def get(self) -> Link:
        """The template, started if there is none. Raises LaunchError."""
        identity = (os.getpid(), os.getuid(), os.geteuid(), os.getgid(), os.getegid())
        with self._lock:
            if self._ending:
                self._reap()
            if self._link is not None and identity != self._identity:
                self._let_go()
            if self._link is None:
                self._link = launch()
                self._identity = identity
            return self._link

    def discard(self, link: Link) -> None:
        """This one is known to be gone."""
        with self._lock:
            if self._link is link:
                self._let_go()

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        if link.foreign:
            return  # its sockets and its process are another process's business
        link.close_template()
        self._ending.append(link.session.pid or 0)
        self._reap()

    def _reap(self) -> None:
        """Wait for former default templates, the only children that this library leaves to its owner, and no others."""
        self._ending = [pid for pid in self._ending if not _has_ended(pid)]

    def renew(self) -> None:
        """Runs in a forked copy of the owner: whatever thread held the lock is not there."""
        self._lock = allocate_lock()
        self._ending.clear()


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the program waits for all its children, or ignores SIGCHLD
        return True


default_template = DefaultTemplate()
atexit.register(default_template._let_go)  # or its socket would be reported as never closed
os.register_at_fork(after_in_child=default_template.renew)
