"""Reports of a process to the template that has forked it: its last words, and marks for the owner's end.

Each process has a pipe of its own for reports. So the kernel identifies the sender: no process can report for another
one, nor fill or close the pipe of another one. The template reads the pipe when it needs the information, and no
process waits for the template.

The pipe holds reports, each after a header; the template drops anything else.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, SIG_SETMASK, SIGPIPE, pthread_sigmask, sigpending, sigwait
from _struct import Struct
from errno import ENOMEM
from fcntl import fcntl
from os import O_CLOEXEC, O_WRONLY, open, read, set_blocking, write  # noqa: A004  # the builtin is not used here
from time import sleep

from ..wire.channel import SHORTAGE
from ..wire.descriptors import is_claimed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER = Struct("<6sBH")  # MAGIC, kind, and the length of the text
MAGIC = b"report"
REPORT_LIMIT = 61_000  # bytes of text
PIPE_SIZE = 1 << 16  # bytes that a pipe holds; Linux makes pipes smaller for a user with very many
RESERVED = 64  # bytes of the pipe for marks
F_GETPIPE_SZ = 1032  # of Linux

WORDS = 0  # the text is for the owner, as ``ExitStatus.error``
UNTOLD = 1  # this process becomes another program, which the kernel will not tell of the owner's end
PARENT = 2  # this template is about to fork: it will have processes to end that no other process could end
CHILDLESS = 3  # this template forks no more, because it is taken over
ENDING = 4  # this template is ending its own processes


class Reports(dict[int, tuple[set[int], bytes]]):
    """The reports of a template's processes, by pid: the marks that hold, and the last words.

    Pipes are read only by the methods, so it is empty before their first call.
    """

    __slots__ = ()

    def take_words(self, pid: int, fd: int) -> bytes:
        """Return the last words of a process that has ended, and forget the process."""
        self._listen(pid, fd)
        return self.pop(pid)[1]

    def who_said(self, mark: int, processes: Iterable[tuple[int, int]]) -> set[int]:
        """Return those of the processes, given as pid and pipe, for which this mark holds."""
        for pid, fd in processes:
            self._listen(pid, fd)
        return {pid for pid, (marks, _) in self.items() if mark in marks}

    def _listen(self, pid: int, fd: int) -> None:
        received = [*_receive(fd)]
        marks, _ = self.setdefault(pid, (set(), b""))  # afterwards: the handler of SIGTERM may listen in between
        for kind, text in received:
            if kind == WORDS:
                self[pid] = marks, text
            elif kind == CHILDLESS:
                marks.discard(PARENT)
            else:
                marks.add(kind)


def _receive(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield the reports of a process from one read, as its pipe holds little. Stop at the first malformed report."""
    set_blocking(fd, False)
    data = _read(fd)
    while len(data) >= HEADER.size:
        magic, kind, length = HEADER.unpack_from(data)
        end = HEADER.size + length
        if magic != MAGIC or end > len(data):
            return
        yield kind, data[HEADER.size : end]
        data = data[end:]


def _read(fd: int) -> bytes:
    """Return what a pipe holds; nothing if it cannot be read, which must not harm the template."""
    while True:
        try:
            return read(fd, PIPE_SIZE)
        except OSError as error:  # it is empty, as a rule
            if error.errno != ENOMEM:
                return b""
        sleep(SHORTAGE)


def to_nobody() -> int:
    """Return a descriptor in place of the pipe for a process that no template has forked; reports to it are dropped."""
    return open("/dev/null", O_WRONLY | O_CLOEXEC)


def say(reports: int, words: str) -> None:
    """Report this process's last words for its owner, if possible; only their end if they are too long."""
    data = words.encode("utf-8", "backslashreplace")
    report(reports, WORDS, data[-min(REPORT_LIMIT, _room(reports)) :])


def report(reports: int, kind: int, text: bytes = b"") -> None:
    """Send a report to the template that has forked this process, without ever waiting.

    Send nothing if the descriptor has been replaced, if this is a copy of the process, or if the template is gone.
    """
    if not is_claimed(reports):
        return
    mask = pthread_sigmask(SIG_BLOCK, (SIGPIPE,))
    try:
        set_blocking(reports, False)
        write(reports, HEADER.pack(MAGIC, kind, len(text)) + text)
    except OSError:  # nobody reads the pipe, or user code has filled it
        if SIGPIPE in sigpending():
            sigwait((SIGPIPE,))
    finally:
        pthread_sigmask(SIG_SETMASK, mask)


def _room(fd: int) -> int:
    try:
        return fcntl(fd, F_GETPIPE_SZ) - RESERVED
    except OSError:  # another system, or not a pipe
        return REPORT_LIMIT
