"""The processes of a template, watched by pidfd: one epoll for all of them, and a pidfd for the owner.

Runs in templates, on Linux.
"""

from __future__ import annotations

import _socket
from os import O_CLOEXEC, O_RDONLY, close, dup2, open, pidfd_open, wait4  # noqa: A004  # the builtin is not used here
from select import EPOLLIN, epoll
from sys import byteorder
from time import monotonic

from ._channel import NOSIGNAL, NOWAIT
from ._children import Children, close_runs
from ._wire import BORN, HEADER, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Bound here, because looking through modules costs page faults at every birth.
pack = HEADER.pack
SOL_SOCKET, SCM_RIGHTS = _socket.SOL_SOCKET, _socket.SCM_RIGHTS
SEND_FLAGS = NOSIGNAL | NOWAIT
EVENTS = 32  # at most so many events at once: epoll makes room for all of them at each call


class PidfdChildren(Children):
    """Watches over the template's own descriptors and its processes with one epoll."""

    def __init__(self, *own: int) -> None:
        super().__init__()
        self._epoll = epoll()
        self._by_pidfd: dict[int, tuple[int, int, int, float]] = {}  # pid, status socket, detached, birth
        self._courier = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._courier_fd = self._courier.fileno()
        self._watched: set[int] = set()
        for fd in own:
            self.watch(fd)
        self._reserve = open("/dev/null", O_RDONLY | O_CLOEXEC)  # last: nothing else would close it again
        self.own += (self._courier_fd, self._epoll.fileno(), self._reserve)

    def forsake(self) -> None:
        self.reports.outside.close()
        self.reports.forsake()
        self._courier.detach()

    def __len__(self) -> int:
        return len(self._by_pidfd)

    def forget_own(self) -> None:
        for fd in self._watched:
            self._epoll.unregister(fd)
        self._watched.clear()

    def forget(self, fd: int) -> None:
        self._watched.discard(fd)
        self._epoll.unregister(fd)

    def watch(self, fd: int) -> None:
        self._watched.add(fd)
        self._epoll.register(fd, EPOLLIN)

    def prepare(self) -> None:
        """Make sure that the next process can be watched. Raises OSError when descriptors have run out."""
        if self._reserve < 0:
            self._reserve = open("/dev/null", O_RDONLY | O_CLOEXEC)
            self.own.append(self._reserve)

    def add(self, pid: int, status: int, detached: int) -> None:
        try:
            pidfd = pidfd_open(pid)
        except OSError:  # EMFILE: that is what the reserve is for
            close(self._reserve)
            self.own.remove(self._reserve)
            self._reserve = -1
            pidfd = pidfd_open(pid)
        self._by_pidfd[pidfd] = (pid, status, detached, monotonic())
        self._epoll.register(pidfd, EPOLLIN)
        # One socket object serves all status sockets, one after the other, under its own number.
        dup2(status, self._courier_fd, False)
        try:
            rights = (SOL_SOCKET, SCM_RIGHTS, pidfd.to_bytes(4, byteorder))
            self._courier.sendmsg([pack(VERSION, BORN, 1, 0, pid)], [rights], SEND_FLAGS)
        except OSError:
            pass  # the owner has dropped its handle, or is gone: nobody wants to know

    def wait(self, timeout: float = -1) -> list[int]:
        own = []
        by_pidfd = self._by_pidfd
        for fd, _ in self._epoll.poll(timeout, EVENTS):
            child = by_pidfd.pop(fd, None)
            if child is None:
                own.append(fd)
            else:
                # The owner holds a copy of the pidfd, so epoll would go on reporting it after close.
                self._epoll.unregister(fd)
                close(fd)
                self._reap(*child)
        return own

    def _reap(self, pid: int, socket: int, _detached: int, _born: float) -> None:
        try:
            _, status, usage = wait4(pid, 0)
        except ChildProcessError:  # code in this template has waited for it, or ignores SIGCHLD: nobody knows
            dup2(socket, self._courier_fd, False)
            self._courier.shutdown(_socket.SHUT_RDWR)  # not only closed: the courier may have a copy
            close(socket)
            return
        self.tell_end(pid, socket, status, usage)

    def living(self) -> Iterable[tuple[int, int, float]]:
        return [(pid, detached, born) for pid, _, detached, born in self._by_pidfd.values()]

    def close_siblings(self) -> None:
        close_runs([fd for pidfd, (_, status, _, _) in self._by_pidfd.items() for fd in (pidfd, status)])
