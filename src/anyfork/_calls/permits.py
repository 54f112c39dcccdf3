"""The permits of a worker's jobs: a pipe that says which of the jobs sent to a worker may still begin.

See _anyfork_child.worker.job_loop.
"""

from __future__ import annotations

import os
from array import array
from functools import partial

from _anyfork_child.wire.descriptors import lift

from .._system.locks import call_all

NUMBER = "I"  # type code of the array module: the kernel moves a multiple of its size in one piece
SIZE = array(NUMBER).itemsize
MOST_PERMITS = 512  # they fit into any pipe: two pages if the user has many pipes, and one of them may be half read


class Permits:
    """A pipe of permits, both ends. A permit belongs to the process that reads it first: the worker, or its owner."""

    __slots__ = ("_taken", "_writing", "reading")

    def __init__(self) -> None:
        self._taken: list[bytes] = []  # the permits that were read back last, until ``forget``
        self.reading, self._writing = map(lift, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))

    def give(self, numbers: list[int]) -> None:
        """Write permits for these jobs and clear the list, in one go. The pipe has room for all jobs under way."""
        data = array(NUMBER, numbers).tobytes()
        call_all((partial(os.write, self._writing), list.clear), (data, numbers))

    def take_back(self, most: int) -> list[int]:
        """Read up to ``most`` permits back; return the numbers of jobs that have not begun, and will not now, the
        oldest first.

        ``forget`` must follow once the jobs are recorded as taken back. If an interrupt comes before, the next call
        returns the same numbers, also with 0.
        """
        taken = self._taken
        if most > 0 and not taken and self.reading >= 0:
            try:
                taken.extend(map(os.read, (self.reading,), (most * SIZE,)))  # in one step, see _system.locks
            except BlockingIOError:
                return []
        return array(NUMBER, b"".join(taken)).tolist()

    def forget(self) -> None:
        """Note that the jobs of the last ``take_back`` are recorded as taken back."""
        self._taken.clear()

    def close(self) -> None:
        """Close both ends. Closing twice is harmless."""
        fds, self.reading, self._writing = (self.reading, self._writing), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
