"""The processes that a template has forked, until they are reaped.

Runs in templates. The template is the operating system's parent of what it forks, so it alone can reap; the owner
learns of a birth and of a death by one frame each on the process's status socket, whose far end the owner holds.

How a death is noticed differs: by pidfd where there are some (template.children_by_pidfd), else by SIGCHLD
(template.children_by_signal).
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL
from _struct import Struct
from abc import ABC, abstractmethod
from os import close, closerange, write

from ..birth.last_words import ENDING, PARENT, UNTOLD, Reports
from ..wire.channel import wait_for_memory
from ..wire.frames import DEATH, DETACHED, DIED, FOLLOWED, HEADER, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from resource import struct_rusage

SIZE = DEATH.size
ATTEMPTS = 100  # to tell of an end: a second
pack_died = Struct(HEADER.format + DEATH.format.removeprefix("<")).pack


def tell_again(socket: int, frame: bytes, error: OSError) -> None:
    """Tell of an end although the kernel had no memory for it. If that stays so, the owner sees the end of the socket.

    Nobody wants to know when the owner is gone, or has dropped its handle.
    """
    for _ in range(ATTEMPTS):
        try:
            wait_for_memory(error)
            write(socket, frame)
        except OSError as another:
            error = another
        else:
            return
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, socket)
    try:
        end.shutdown(_socket.SHUT_RDWR)  # not only closed: there may be a copy
    except OSError:  # it has no other end any more
        pass
    end.detach()


class Children(ABC):
    """What is the same however deaths are noticed.

    A new process has no business with the descriptors that this holds, nor with those of its siblings. They are closed
    by number there: all at once where nothing else is open from ``first`` upwards (``dense``), as is usual.
    """

    reserve = -1  # a descriptor to close when there is no other for a process just forked

    def __init__(self) -> None:
        self.reports = Reports()
        self.own: list[int] = []
        self.first = 0  # the lowest of its own descriptors
        self.high = 0  # the highest number that the template has had of those to close
        self.dense = False
        self.lost = OSError()  # why the last process could not be kept

    # --- Watching ---

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
    def add(self, pid: int, status: int, reports: int, flags: int) -> bool:
        """Take charge of a process just forked, and tell its owner on the socket ``status``.

        The process speaks in the pipe ``reports``; ``flags`` are those of the FORK frame.

        Return False when that cannot be done, for the reason in ``lost``: it is killed then.
        """

    @abstractmethod
    def wait(self, timeout: float = -1) -> Sequence[int]:
        """Wait for something to happen, in seconds; reap what has ended; return which own descriptors are readable."""

    def give_up(self, pid: int, error: OSError) -> bool:
        """Kill and reap a process that has just been forked and cannot be kept."""
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        self.lost = error
        return False

    def tell_end(self, pid: int, socket: int, reports: int, status: int, usage: struct_rusage) -> None:
        """Tell the owner how a process has ended, on its status socket, and close what belongs to it."""
        words = self.reports.take_words(pid, reports) if status else b""
        frame = pack_died(VERSION, DIED, 0, SIZE + len(words), pid, status, *usage) + words
        try:
            write(socket, frame)  # never blocks: it is the second frame of its life
        except OSError as error:
            tell_again(socket, frame, error)
        close(socket)
        close(reports)

    # --- Ending them ---

    @abstractmethod
    def living(self) -> Iterable[tuple[int, int, float]]:
        """Pid, flags, and the time of birth (monotonic, seconds), of every process."""

    def followers(self, since: float) -> set[int]:
        """The processes that the kernel tells of the owner's end."""
        told = {pid for pid, flags, born in self.living() if flags & FOLLOWED and born < since}
        return told - self._who_said(UNTOLD)

    def parents(self) -> set[int]:
        """The processes that have processes of their own to end."""
        return self._who_said(PARENT)

    def ending(self) -> set[int]:
        """The processes that are ending their own."""
        return self._who_said(ENDING)

    def _who_said(self, mark: int) -> set[int]:
        return self.reports.who_said(mark, self.speakers())

    @abstractmethod
    def speakers(self) -> Iterable[tuple[int, int]]:
        """Pid, and where it speaks, of every process."""

    def any_attached(self) -> bool:
        """True while a process that is not detached is alive."""
        return any(not flags & DETACHED for _, flags, _ in self.living())

    def kill_attached(self, number: int, spare: Container[int] = ()) -> None:
        """Send a signal to all processes that are not detached."""
        for pid, flags, _ in self.living():
            if not flags & DETACHED and pid not in spare:
                os.kill(pid, number)  # not reaped yet, so the pid is theirs

    # --- Descriptors ---

    @abstractmethod
    def descriptors(self) -> list[int]:
        """Return the descriptors that are held for the processes."""

    def gather(self, others: Sequence[int]) -> bool:
        """Find out whether, beside ``others``, nothing but these is open from ``first`` upwards, and all below."""
        lowest_free = os.dup(self.first)
        os.close(lowest_free)
        try:
            opened = {int(name) for name in os.listdir("/proc/self/fd")}
        except OSError:  # no /proc: nobody knows
            opened = set()
        opened -= {lowest_free, *others, *self.own, *self.descriptors()}  # the listing itself has had the lowest
        self.dense = opened == {*range(self.first)} and min(others) > self.first
        return self.dense

    def close_in_copy(self, others: Sequence[int]) -> None:
        """Runs in a new process: close what is not its own, ``others`` too, one by one."""
        close_runs([*self.own, *self.descriptors(), *others])

    @abstractmethod
    def close(self) -> None:
        """Close everything: the template has no processes, and becomes something else or begins anew."""

    @abstractmethod
    def forsake(self) -> None:
        """Give up objects whose descriptors have been closed by number."""


def close_runs(fds: list[int]) -> None:
    """Close many descriptors with few system calls: numbers in a row go together."""
    fds.sort()
    start = previous = fds[0]
    for fd in fds[1:]:
        if fd != previous + 1:
            closerange(start, previous + 1)
            start = fd
        previous = fd
    closerange(start, previous + 1)
