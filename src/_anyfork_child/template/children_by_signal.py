"""The processes of a template, watched by SIGCHLD: on systems without pidfds, and for a template that is pid 1.

Runs in templates. The owner has no pidfd of a process then and cannot signal it itself: it requests a signal by a frame
on the process's status socket. As pid 1 a template inherits orphans of other processes, and reaps them, too.
"""

from __future__ import annotations

import _signal
import _socket
import os
from os import WNOHANG
from select import POLLIN, poll
from time import monotonic

from ..birth.container import end_contained, is_container
from ..wire.channel import NOWAIT, Channel, close_all
from ..wire.frames import BORN, HEADER, SIGNAL, VERSION, ProtocolError
from .children import Children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SignalChildren(Children):
    """The processes of a template, watched by SIGCHLD, which writes to a pipe.

    It polls the pipe, the template's own descriptors, and the status sockets of the processes.
    """

    signals = (_signal.SIGCHLD,)

    def __init__(self, *own: int) -> None:
        super().__init__()
        self._by_pid: dict[int, tuple[Channel, int, int, float]] = {}  # status socket, reports, flags, birth
        self._pid_of: dict[int, int] = {}  # by the number of the status socket, while the owner listens
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self.own += (self._read, self._write)
        self.first = min(self.own)
        self._watched: set[int] = set()
        for fd in own:
            self.watch(fd)
        self.take_signals()

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)
        self._reset_signals()

    def forget_numbers(self) -> None:
        self._reset_signals()

    @staticmethod
    def _reset_signals() -> None:
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)

    def __len__(self) -> int:
        return len(self._by_pid)

    def watch(self, fd: int) -> None:
        self._watched.add(fd)

    def forget(self, fd: int) -> None:
        self._watched.discard(fd)

    def forget_own(self) -> None:
        self._watched.clear()

    def prepare(self) -> None:
        self.take_signals()

    def take_signals(self) -> None:
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, _no_action)

    def add(self, pid: int, status: int, reports: int, flags: int, birth: int = BORN) -> bool:
        channel = Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, status))
        self._by_pid[pid] = (channel, reports, flags, monotonic())
        self._pid_of[status] = pid
        try:
            channel.sock.send(HEADER.pack(VERSION, birth, 0, 0, pid), NOWAIT)
        except ConnectionError:
            pass  # the owner has dropped its handle, or is gone: no report is needed
        except OSError as error:  # no memory
            self._remove(pid)
            return self.give_up(pid, error)
        return True

    def wait(self, timeout: float = -1) -> Sequence[int]:
        own = []
        self._reap()  # user code may have suppressed SIGCHLD
        poller = poll()  # a new one for each call: the handler of SIGTERM waits, too, possibly in the middle of this
        for fd in (*self._watched, self._read, *self._pid_of):
            poller.register(fd, POLLIN)
        for fd, _ in poller.poll(timeout * 1000 if timeout >= 0 else None):
            if fd in self._watched:
                own.append(fd)
            elif fd == self._read:
                self._empty()
            elif fd in self._pid_of:
                self._hear(fd)
        self._reap()
        return own

    def _empty(self) -> None:
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            pass

    def _hear(self, fd: int) -> None:
        """Read a status socket: send the signal that the owner requests, or note that it has dropped its handle."""
        pid = self._pid_of[fd]
        try:
            frame = self._by_pid[pid][0].receive(NOWAIT)
        except BlockingIOError:
            return
        except (OSError, EOFError, ProtocolError):
            frame = None
        if frame is not None and frame.kind == SIGNAL:
            os.kill(pid, frame.value)  # not reaped yet, so the pid is not reused
        else:
            del self._pid_of[fd]

    def _reap(self) -> None:
        for pid in [*self._by_pid]:
            try:
                ended, status, usage = os.wait4(pid, WNOHANG)
            except ChildProcessError:  # code in this template has waited for it: its exit status is unknown
                close_all(self._remove(pid))
                continue
            if ended:
                end_contained()
                self.tell_end(pid, *self._remove(pid), status, usage)
        if os.getpid() == 1 or is_container():
            _reap_orphans({*self._by_pid})

    def _remove(self, pid: int) -> tuple[int, int]:
        """Forget a process that has ended; return its status socket and its pipe for reports."""
        channel, reports, *_ = self._by_pid.pop(pid)
        fd = channel.sock.detach()
        self._pid_of.pop(fd, None)
        return fd, reports

    def living(self) -> Iterable[tuple[int, int, float]]:
        return [(pid, flags, born) for pid, (_, _, flags, born) in self._by_pid.items()]

    def speakers(self) -> Iterable[tuple[int, int]]:
        return [(pid, reports) for pid, (_, reports, _, _) in self._by_pid.items()]

    def descriptors(self) -> list[int]:
        return [fd for channel, reports, *_ in self._by_pid.values() for fd in (channel.fd, reports)]


def _reap_orphans(ours: set[int]) -> None:
    """Reap orphans that pid 1 or a container has inherited, but none of our own processes, which ``_reap`` handles."""
    try:
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in ours:
                return
            os.waitpid(ended.si_pid, WNOHANG)
    except ChildProcessError:
        return


def _no_action(number: int, frame: object) -> None:
    """Do nothing: Python writes a signal to the wakeup descriptor only if the signal has a handler."""
