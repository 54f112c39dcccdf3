"""The processes of a template, watched by pidfd: one epoll for all of them, and a pidfd of each for the owner.

Runs in templates, on Linux. Every start runs ``add`` and ``wait``, and they are written for that (see
template.fork_loop).
"""

from __future__ import annotations

import _socket
from _struct import Struct
from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import O_CLOEXEC, O_RDONLY, close, dup2, kill, open, pidfd_open, wait4  # noqa: A004  # the builtin is not used here
from select import EPOLLIN, epoll
from time import monotonic

from ..wire.channel import NOWAIT
from ..wire.frames import BORN, HEADER, SIGNAL, VERSION
from ..wire.platform import NOSIGNAL
from .children import Children, retry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from ._fast import ChildTable

    Child: TypeAlias = tuple[int, int, int, int, float]  # pid, status socket, pipe for reports, flags, time of birth
    Table: TypeAlias = dict[int, Child] | ChildTable

pack, pack_int = HEADER.pack, Struct("i").pack
SOL_SOCKET, SCM_RIGHTS = _socket.SOL_SOCKET, _socket.SCM_RIGHTS
SEND_FLAGS = NOSIGNAL | NOWAIT
EVENTS = 32  # most events per call: epoll allocates memory for all of them at each call


class PidfdChildren(Children):
    """The processes of a template, watched with one epoll, together with the template's own descriptors."""

    def __init__(self, *own: int, table: Table | None = None) -> None:
        super().__init__()
        self.by_pidfd: Table = {} if table is None else table
        self._status_socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._status_fd = self._status_socket.fileno()
        self.epoll = epoll()
        self._watched: set[int] = set()
        for fd in own:
            self.watch(fd)
        self.own += (self._status_fd, self.epoll.fileno())
        self.first = min(self.own)
        self.prepare()  # last: an error after it would leave its descriptor open

    def close(self) -> None:
        self._status_socket.close()
        self.epoll.close()
        if self.reserve >= 0:
            close(self.reserve)

    def forget_numbers(self) -> None:
        self._status_socket.detach()
        number = self.epoll.fileno() if not self.epoll.closed else -1
        try:
            other = fcntl(number, F_DUPFD_CLOEXEC, 0)
        except OSError:  # the number is not in use
            other = -1
        try:
            self.epoll.close()  # now: later the object would close the number when it belongs to another file
        except OSError:  # the descriptor is closed
            pass
        if other >= 0:  # another file has the number
            dup2(other, number, False)
            close(other)

    def __len__(self) -> int:
        return len(self.by_pidfd)

    def watch(self, fd: int) -> None:
        self._watched.add(fd)
        self.epoll.register(fd, EPOLLIN)

    def forget(self, fd: int) -> None:
        self._watched.discard(fd)
        self.epoll.unregister(fd)

    def forget_own(self) -> None:
        for fd in [*self._watched]:
            self.forget(fd)

    def prepare(self) -> None:
        self.reserve = open("/dev/null", O_RDONLY | O_CLOEXEC)
        self.own.append(self.reserve)

    def add(self, pid: int, status: int, reports: int, flags: int, birth: int = BORN) -> bool:
        try:
            pidfd = pidfd_open(pid)
        except OSError:
            pidfd = self._open_with_reserve(pid)
        if pidfd > self.high:
            self.high = pidfd
        try:
            try:
                self.epoll.register(pidfd, EPOLLIN)
            except OSError as error:  # the process runs already, perhaps its function, too
                retry(error, self.epoll.register, pidfd, EPOLLIN)
        except OSError as error:  # the limit of /proc/sys/fs/epoll/max_user_watches
            close(pidfd)
            return self.give_up(pid, error)
        self.by_pidfd[pidfd] = (pid, status, reports, flags, monotonic())
        # One socket object serves all status sockets, one after the other, under its own number.
        dup2(status, self._status_fd, False)
        frame, rights = (pack(VERSION, birth, 1, 0, pid),), ((SOL_SOCKET, SCM_RIGHTS, pack_int(pidfd)),)
        try:
            try:
                self._status_socket.sendmsg(frame, rights, SEND_FLAGS)
            except OSError as error:
                retry(error, self._status_socket.sendmsg, frame, rights, SEND_FLAGS)
        except ConnectionError:  # the owner has dropped its handle, or is gone: no report is needed
            self.obey_owner(pid)
        except OSError as error:  # no memory, or too many descriptors in flight
            self._status_socket.shutdown(_socket.SHUT_RDWR)  # to close the other copy would not show the end
            del self.by_pidfd[pidfd]
            self.epoll.unregister(pidfd)
            close(pidfd)
            return self.give_up(pid, error)
        return True

    def obey_owner(self, pid: int) -> None:
        try:
            while len(header := self._status_socket.recv(HEADER.size, NOWAIT)) == HEADER.size:
                _, kind, _, _, number = HEADER.unpack(header)
                if kind == SIGNAL:
                    kill(pid, number)  # not reaped yet, so the pid is not reused
        except OSError:  # nothing is left there
            pass

    def _open_with_reserve(self, pid: int) -> int:
        """Open a pidfd with the descriptor that is kept in reserve, because no other one is left (EMFILE)."""
        close(self.reserve)
        self.own.remove(self.reserve)
        self.reserve = -1
        return pidfd_open(pid)

    def wait(self, timeout: float = -1) -> Sequence[int]:
        own: tuple[int, ...] = ()
        for pidfd, _ in self.epoll.poll(timeout, EVENTS):
            child = self.by_pidfd.pop(pidfd, None)
            if child is None:
                own += (pidfd,)
                continue
            # The owner holds a copy of the pidfd, so epoll would go on reporting it after close.
            self.epoll.unregister(pidfd)
            close(pidfd)
            pid, status_socket, reports, _, _ = child
            try:
                _, status, usage = wait4(pid, 0)
            except ChildProcessError:  # code in this template has waited for it, or ignores SIGCHLD
                self._tell_nothing(status_socket)
                close(reports)
            else:
                self.tell_end(pid, status_socket, reports, status, usage)
        return own

    def _tell_nothing(self, status_socket: int) -> None:
        """Shut the status socket down without a status, because the exit status of the process is unknown."""
        dup2(status_socket, self._status_fd, False)
        self._status_socket.shutdown(_socket.SHUT_RDWR)  # closing is not enough: that object has a copy
        close(status_socket)

    def living(self) -> Iterable[tuple[int, int, float]]:
        return [(pid, flags, born) for pid, _, _, flags, born in self.by_pidfd.values()]

    def speakers(self) -> Iterable[tuple[int, int]]:
        return [(pid, reports) for pid, _, reports, _, _ in self.by_pidfd.values()]

    def descriptors(self) -> list[int]:
        return [fd for pidfd, (_, status, reports, _, _) in self.by_pidfd.items() for fd in (pidfd, status, reports)]
