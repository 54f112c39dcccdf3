"""The processes that a template has forked, until they are reaped.

Runs in templates. To the operating system the template is the parent of the processes that it forks, so it alone can
reap them. The owner gets one frame for the birth and one for the death of a process on its status socket, whose far end
the owner holds.

A template notices a death by pidfd if the system has pidfds (template.children_by_pidfd), else by SIGCHLD
(template.children_by_signal).
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL
from _struct import Struct
from abc import ABC, abstractmethod
from os import close, write

from ..birth.inherited_descriptors import close_each
from ..birth.last_words import ENDING, PARENT, UNTOLD, Reports
from ..wire.channel import wait_for_memory
from ..wire.frames import BORN, DEATH, DETACHED, DIED, FOLLOWED, HEADER, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from resource import struct_rusage

SIZE = DEATH.size
ATTEMPTS = 100  # to do what the kernel has no memory for: they take a second
pack_died = Struct(HEADER.format + DEATH.format.removeprefix("<")).pack


def retry(error: OSError, call: Callable[..., object], *args: object) -> None:
    """Retry a call that failed because the kernel had no memory. Raises other errors, and the last one."""
    for _ in range(ATTEMPTS):
        wait_for_memory(error)
        try:
            call(*args)
        except OSError as another:
            error = another
        else:
            return
    raise error


def tell_again(socket: int, frame: bytes, error: OSError) -> None:
    """Retry the report of an end, for which the kernel had no memory. If all retries fail, shut the socket down.

    The owner sees the end of the socket then. If the owner is gone or has dropped its handle, the report is not needed.
    """
    try:
        retry(error, write, socket, frame)
    except OSError:
        _shut_down(socket)


def _shut_down(socket: int) -> None:
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, socket)
    try:
        end.shutdown(_socket.SHUT_RDWR)  # closing is not enough: there may be a copy
    except OSError:  # the other end is closed
        pass
    end.detach()


class Children(ABC):
    """The processes of a template: the part that does not depend on how deaths are noticed.

    A new process must not keep the descriptors of this object, nor those of its siblings. It closes them by number: all
    at once if nothing else is open from ``first`` upwards (``dense``), as is usual.
    """

    reserve = -1  # a descriptor to close if none is left for a process just forked
    signals: Container[int] = ()  # those with a handler of this object

    def __init__(self) -> None:
        self.reports = Reports()
        self.own: list[int] = []
        self.first = 0  # the lowest of its own descriptors
        self.high = 0  # the highest number that a descriptor to close has had
        self.dense = False
        self.lost = OSError()  # the reason why the last process could not be kept

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
        """Stop watching all of the template's own descriptors; watch only the processes."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that the next process can be watched. Raises OSError if descriptors have run out."""

    def take_signals(self) -> None:  # noqa: B027  # needed only without pidfds
        """Set the signal handlers that this object needs again, because user code may have changed them."""

    @abstractmethod
    def add(self, pid: int, status: int, reports: int, flags: int, birth: int = BORN) -> bool:
        """Add a process just forked, and report its birth to the owner on the socket ``status``, by this kind of frame.

        The process writes its reports into the pipe ``reports``; ``flags`` are those of the FORK frame.

        Return False if the process cannot be added: it is killed then, and ``lost`` has the reason.
        """

    def obey_owner(self, pid: int) -> None:  # noqa: B027  # needed only with pidfds
        """Send the process just added the signals that its owner has left on the status socket."""

    @abstractmethod
    def wait(self, timeout: float = -1) -> Sequence[int]:
        """Wait up to ``timeout`` seconds for an event, reap ended processes, return the own descriptors with input."""

    def give_up(self, pid: int, error: OSError) -> bool:
        """Kill and reap a process that has just been forked and cannot be kept; return False."""
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        self.lost = error
        return False

    def tell_end(self, pid: int, socket: int, reports: int, status: int, usage: struct_rusage) -> None:
        """Report the end of a process to the owner, on its status socket, and close its descriptors."""
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
        """Return the pid, the flags, and the time of birth (monotonic, seconds) of every process."""

    def followers(self, since: float) -> set[int]:
        """Return the processes born before ``since`` that the kernel tells of the owner's end."""
        told = {pid for pid, flags, born in self.living() if flags & FOLLOWED and born < since}
        return told - self._who_said(UNTOLD)

    def parents(self) -> set[int]:
        """Return the processes that have processes of their own to end."""
        return self._who_said(PARENT)

    def ending(self) -> set[int]:
        """Return the processes that are ending their own processes."""
        return self._who_said(ENDING)

    def _who_said(self, mark: int) -> set[int]:
        return self.reports.who_said(mark, self.speakers())

    @abstractmethod
    def speakers(self) -> Iterable[tuple[int, int]]:
        """Return the pid and the pipe for reports of every process."""

    def any_attached(self) -> bool:
        """Return whether a process that is not detached is alive."""
        return any(not flags & DETACHED for _, flags, _ in self.living())

    def in_other_groups(self) -> set[int]:
        """Return the processes that are in another process group than this template."""
        group, found = os.getpgrp(), set[int]()
        for pid, _, _ in self.living():
            try:
                if os.getpgid(pid) != group:
                    found.add(pid)
            except ProcessLookupError:  # it has just been reaped: the handler of SIGTERM runs in the middle of that
                continue
        return found

    def kill_attached(self, number: int, spare: Container[int] = ()) -> None:
        """Send a signal to all processes that are not detached, except those in ``spare``."""
        for pid, flags, _ in self.living():
            if not flags & DETACHED and pid not in spare:
                try:
                    os.kill(pid, number)  # not reaped yet, so the pid is not reused
                except ProcessLookupError:  # as above
                    continue

    # --- Descriptors ---

    @abstractmethod
    def descriptors(self) -> list[int]:
        """Return the descriptors that are held for the processes."""

    def gather(self, others: Sequence[int]) -> bool:
        """Update and return ``dense``: whether only these descriptors and ``others`` are open from ``first`` upwards.

        All numbers below must be in use, too.
        """
        lowest_free = os.dup(self.first)
        os.close(lowest_free)
        try:
            opened = {int(name) for name in os.listdir("/proc/self/fd")}
        except OSError:  # no /proc: the open descriptors are unknown
            opened = set()
        opened -= {lowest_free, *others, *self.own, *self.descriptors()}  # the listing itself used the lowest number
        self.dense = opened == {*range(self.first)} and min(others) > self.first
        return self.dense

    def close_in_copy(self, others: Sequence[int]) -> None:
        """Close the descriptors that a new process must not keep, and ``others``. Runs in the new process."""
        close_each([*self.own, *self.descriptors(), *others])

    @abstractmethod
    def close(self) -> None:
        """Close all own descriptors: the template has no processes, and is taken over or makes a new object."""

    @abstractmethod
    def forget_numbers(self) -> None:
        """Detach the objects whose descriptors have been closed by number, so that they close no number again."""
