"""What a process says to the template that has forked it: its last words, and marks for the owner's end.

Each process has a pipe of its own for that. So the kernel says who speaks: no process can speak for another one, nor
fill or shut what another one needs. The template reads it when it wants to know something, and is never waited for.

What stands in the pipe are reports, each behind a header; the template drops whatever is none.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, SIG_SETMASK, SIGPIPE, pthread_sigmask, sigpending, sigwait
from _struct import Struct
from fcntl import fcntl
from os import O_CLOEXEC, O_WRONLY, open, read, set_blocking, write  # noqa: A004  # the builtin is not used here

from .claims import is_claimed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER = Struct("<6sBH")  # MAGIC, kind, and the length of the text
MAGIC = b"report"
REPORT_LIMIT = 61_000  # bytes of text
PIPE_SIZE = 1 << 16  # bytes that a pipe takes; Linux gives less to a user who has very many
RESERVED = 64  # bytes of it for marks
F_GETPIPE_SZ = 1032  # of Linux

WORDS = 0  # the text is what the owner gets as ``ExitStatus.error``
UNTOLD = 1  # this process becomes another program, which the kernel will not tell of the owner's end
PARENT = 2  # this template is about to fork: it has others to end, and none but it could
CHILDLESS = 3  # it will not any more, because it is taken over
ENDING = 4  # this template is ending its own processes


class Reports(dict[int, tuple[set[int], bytes]]):
    """What the processes of a template have said so far, by pid: the marks that hold, and the last words.

    Empty until somebody asks.
    """

    __slots__ = ()

    def take_words(self, pid: int, fd: int) -> bytes:
        """Return the last words of a process that has ended, and forget it."""
        self._listen(pid, fd)
        return self.pop(pid)[1]

    def who_said(self, mark: int, processes: Iterable[tuple[int, int]]) -> set[int]:
        """Return those of the processes, given as pid and pipe, for which this mark holds."""
        for pid, fd in processes:
            self._listen(pid, fd)
        return {pid for pid, (marks, _) in self.items() if mark in marks}

    def _listen(self, pid: int, fd: int) -> None:
        marks, words = self.get(pid) or (set(), b"")
        for kind, text in _receive(fd):
            if kind == WORDS:
                words = text
            elif kind == CHILDLESS:
                marks.discard(PARENT)
            else:
                marks.add(kind)
        self[pid] = marks, words


def _receive(fd: int) -> Iterator[tuple[int, bytes]]:
    """Read what a process has said. Its pipe holds little, and what is no report ends what is understood of it."""
    set_blocking(fd, False)
    try:
        data = read(fd, PIPE_SIZE)
    except BlockingIOError:
        return
    while len(data) >= HEADER.size:
        magic, kind, length = HEADER.unpack_from(data)
        end = HEADER.size + length
        if magic != MAGIC or end > len(data):
            return
        yield kind, data[HEADER.size : end]
        data = data[end:]


def to_nobody() -> int:
    """Return what is in the place of the pipe where no template has forked this process. Nothing is said there."""
    return open("/dev/null", O_WRONLY | O_CLOEXEC)


def say(reports: int, words: str) -> None:
    """Leave this process's last words for its owner, if they can be left."""
    data = words.encode("utf-8", "backslashreplace")
    report(reports, WORDS, data[-min(REPORT_LIMIT, _room(reports)) :])


def report(reports: int, kind: int, text: bytes = b"") -> None:
    """Tell the template above. Never waits, and says nothing where the number has become something else, where this
    is a copy of the process, and where the template is gone."""
    if not is_claimed(reports):
        return
    mask = pthread_sigmask(SIG_BLOCK, (SIGPIPE,))
    try:
        set_blocking(reports, False)
        write(reports, HEADER.pack(MAGIC, kind, len(text)) + text)
    except OSError:  # nobody reads there, or user code has filled it
        if SIGPIPE in sigpending():
            sigwait((SIGPIPE,))
    finally:
        pthread_sigmask(SIG_SETMASK, mask)


def _room(fd: int) -> int:
    try:
        return fcntl(fd, F_GETPIPE_SZ) - RESERVED
    except OSError:  # another system, or no pipe
        return REPORT_LIMIT
