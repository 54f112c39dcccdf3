"""The processes that a template has forked, until they are reaped.

Runs in templates. The template is the operating system's parent of what it forks, so it alone can reap; the owner
learns of a birth and of a death by one frame each on the process's status socket, whose far end the owner holds.

How a death is noticed differs: by pidfd where there are some (_children_by_pidfd), else by SIGCHLD
(_children_by_signal).
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL
from abc import ABC, abstractmethod
from os import close, write
from struct import Struct

from ._channel import NOSIGNAL, NOWAIT
from ._wire import DIED, HEADER, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from resource import struct_rusage

# The status of waitpid and the sixteen fields of struct rusage in their order; behind them the text of an error, UTF-8.
DEATH = Struct("<idd14q")
REPORT = Struct("<i")  # in a process's last words to its template: its pid, before the text
REPORT_LIMIT = 61_000  # bytes
UNTOLD = b"\0"  # words of a process that becomes another program, which the kernel will not tell of the owner's end
# Bound here, because looking through modules costs page faults at every birth.
pack = HEADER.pack
pack_death = DEATH.pack


class Reports:
    """The way of a process's last words to its template: a datagram socket that all its processes inherit."""

    __slots__ = ("_inside", "_words", "fd", "outside")

    def __init__(self) -> None:
        self._inside, self.outside = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self.fd = self._inside.fileno()
        self._words: dict[int, bytes] = {}

    def forsake(self) -> None:
        """As of Children."""
        self._inside.detach()

    def take(self, pid: int) -> bytes:
        """What the process of this pid has said for its owner."""
        self._receive()
        return self._words.pop(pid, b"").removeprefix(UNTOLD)

    def who_said(self, words: bytes) -> set[int]:
        """The processes whose last words these were."""
        self._receive()
        return {pid for pid, said in self._words.items() if said == words}

    def _receive(self) -> None:
        try:
            while True:
                data = self._inside.recv(REPORT.size + REPORT_LIMIT, NOWAIT)
                self._words[REPORT.unpack_from(data)[0]] = data[REPORT.size :]
        except BlockingIOError:
            return


def say(reports: _socket.socket | None, words: str) -> None:
    """Send this process's last words. Waits while the template is too busy to take them; a dead one needs none."""
    if reports is None:
        return
    data = words.encode("utf-8", "backslashreplace")[-REPORT_LIMIT:]
    try:
        reports.send(REPORT.pack(os.getpid()) + data, NOSIGNAL)
    except ConnectionError:
        pass


def answer(reports: _socket.socket | None, words: bytes = b"") -> None:
    """Tell the template above: nothing, which says that this one is ending its own processes, or UNTOLD."""
    if reports is not None:
        try:
            reports.send(REPORT.pack(os.getpid()) + words, NOSIGNAL | NOWAIT)
        except OSError:  # it is gone, or so busy that it will be late itself
            pass


class Children(ABC):
    """What is the same however deaths are noticed."""

    def __init__(self) -> None:
        self.reports = Reports()
        self.own = [self.reports.fd]  # descriptors that are no business of what is forked from here

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def watch(self, fd: int) -> None:
        """Watch one of the template's own descriptors."""

    @abstractmethod
    def forget(self, fd: int) -> None:
        """Stop watching one of the template's own descriptors."""

    @abstractmethod
    def forget_own(self) -> None:
        """Watch nothing but the processes any more."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that the next process can be watched. Raises OSError when descriptors have run out."""

    def take_signals(self) -> None:  # noqa: B027  # most need none
        """Take back from user code the signals that this needs."""

    @abstractmethod
    def add(self, pid: int, status: int, detached: int) -> None:
        """Take charge of a process just forked, and tell its owner."""

    @abstractmethod
    def wait(self, timeout: float = -1) -> list[int]:
        """Wait for something to happen, in seconds; reap what has ended; return which own descriptors are readable."""

    @abstractmethod
    def living(self) -> Iterable[tuple[int, int, float]]:
        """Pid, whether it is detached, and the time of birth (monotonic, seconds), of every process."""

    def followers(self, since: float) -> set[int]:
        """The processes that the kernel tells of the owner's end."""
        return {pid for pid, _, born in self.living() if born < since} - self.reports.who_said(UNTOLD)

    @abstractmethod
    def close_siblings(self) -> None:
        """Runs in a new process: close what belongs to the others."""

    @abstractmethod
    def forsake(self) -> None:
        """Give up objects whose descriptors have been closed by number, as ``own`` was; close the one that was not."""

    def any_attached(self) -> bool:
        """True while a process that is not detached is alive."""
        return any(not detached for _, detached, _ in self.living())

    def kill_attached(self, number: int, spare: Container[int] = ()) -> bool:
        """Send a signal to all processes that are not detached; return whether there are any."""
        attached = [pid for pid, detached, _ in self.living() if not detached and pid not in spare]
        for pid in attached:
            os.kill(pid, number)  # not reaped yet, so the pid is theirs
        return bool(attached)

    def tell_end(self, pid: int, socket: int, status: int, usage: struct_rusage) -> None:
        """Tell the owner how a process has ended, on its status socket, and close that."""
        body = pack_death(status, *usage)
        if status:
            body += self.reports.take(pid)
        try:
            write(socket, pack(VERSION, DIED, 0, len(body), pid) + body)  # never blocks: the second frame of its life
        except OSError:
            pass  # the owner has dropped its handle, or is gone: nobody wants to know
        close(socket)


def close_runs(fds: list[int]) -> None:
    """Close many descriptors with few system calls: numbers in a row go together."""
    fds.sort()
    start = previous = fds[0]
    for fd in fds[1:]:
        if fd != previous + 1:
            os.closerange(start, previous + 1)
            start = fd
        previous = fd
    os.closerange(start, previous + 1)


def kill_now(pid: int) -> None:
    """Kill and reap a process that has just been forked and cannot be kept."""
    os.kill(pid, SIGKILL)
    os.waitpid(pid, 0)
