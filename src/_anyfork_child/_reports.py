"""The way of a process's last words to its template: a datagram socket that all processes of a template inherit."""

from __future__ import annotations

import _socket
import os
from struct import Struct

from ._channel import NOSIGNAL, NOWAIT

REPORT = Struct("<i")  # before the text: the pid of the process
REPORT_LIMIT = 61_000  # bytes
UNTOLD = b"\0"  # words of a process that becomes another program, which the kernel will not tell of the owner's end
PARENT = b"\1"  # of a template that is about to fork: it has others to end, and none but it could
CHILDLESS = b"\2"  # and of one that will not any more, because it is taken over


class Reports:
    """The template's end. ``outside`` is the descriptor of the other one, which its processes take over."""

    __slots__ = ("_inside", "_words", "inside", "outside", "parents")

    def __init__(self) -> None:
        self._inside, outside = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self.inside = self._inside.fileno()
        self.outside = outside.detach()
        self._words: dict[int, bytes] = {}
        self.parents: set[int] = set()  # pids of processes that have said so, as of the last ``receive``

    def close(self) -> None:
        """Close both ends."""
        self._inside.close()
        os.close(self.outside)

    def forsake(self) -> None:
        """Give up an object whose descriptors have been closed by number."""
        self._inside.detach()

    def take(self, pid: int) -> bytes:
        """What the process of this pid has said for its owner."""
        self.receive()
        self.parents.discard(pid)
        return self._words.pop(pid, b"").removeprefix(UNTOLD)

    def who_said(self, words: bytes) -> set[int]:
        """The processes whose last words these were."""
        self.receive()
        return {pid for pid, said in self._words.items() if said == words}

    def receive(self) -> None:
        """Take what has been said, or whoever says something would wait."""
        try:
            while True:
                data = self._inside.recv(REPORT.size + REPORT_LIMIT, NOWAIT)
                pid, words = REPORT.unpack_from(data)[0], data[REPORT.size :]
                if words == PARENT:
                    self.parents.add(pid)
                elif words == CHILDLESS:
                    self.parents.discard(pid)
                else:
                    self._words[pid] = words
        except BlockingIOError:
            return


def to_nobody() -> _socket.socket:
    """The end of such a socket for a process that was not forked by a template."""
    mine, nobody = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    nobody.close()
    return mine


def say(reports: _socket.socket, words: str) -> None:
    """Send this process's last words. Waits while the template is too busy to take them; a dead one needs none."""
    data = words.encode("utf-8", "backslashreplace")[-REPORT_LIMIT:]
    try:
        reports.send(REPORT.pack(os.getpid()) + data, NOSIGNAL)
    except ConnectionError:
        pass


def answer(reports: _socket.socket, words: bytes = b"") -> None:
    """Tell the template above: nothing, which says that this one is ending its own processes, or one of the words."""
    try:
        reports.send(REPORT.pack(os.getpid()) + words, NOSIGNAL | NOWAIT)
    except OSError:  # it is gone, or so busy that it will be late itself
        pass
