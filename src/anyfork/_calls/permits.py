"""The pipe that says which of the jobs that were sent to a worker may still begin: see
_anyfork_child.worker.job_loop."""

from __future__ import annotations

import os
from array import array

from _anyfork_child.wire.descriptors import lift

from .._system.once import in_one_go

NUMBER = "I"  # of the array module: what the kernel moves in one piece is a multiple of its size
SIZE = array(NUMBER).itemsize
MOST = 512  # permits that any pipe has room for: of two pages, where the user has many, of which one may be half read


class Permits:
    """Both ends of the pipe. A permit is given to whoever reads it first: the worker, or its owner."""

    __slots__ = ("_writing", "reading")

    def __init__(self) -> None:
        self.reading, self._writing = map(lift, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))

    def give(self, numbers: list[int]) -> None:
        """Let these begin, and forget them, in one go. Fewer are under way than the pipe has room for."""
        data = array(NUMBER, numbers).tobytes()
        in_one_go(map(os.write, (self._writing,), (data,)), map(list.clear, (numbers,)))

    def take_back(self, most: int) -> list[int]:
        """The numbers of those that have not begun, and will not now, the oldest first."""
        if self.reading < 0:
            return []
        try:
            data = os.read(self.reading, most * SIZE)
        except BlockingIOError:
            return []
        return array(NUMBER, data).tolist()

    def close(self) -> None:
        """Close both ends. Closing twice is harmless."""
        fds, self.reading, self._writing = (self.reading, self._writing), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
