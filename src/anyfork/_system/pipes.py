"""Pipes, each end with an owner of its own, and the ends of a process's standard streams in this program."""

from __future__ import annotations

import os
from itertools import chain, starmap

from _anyfork_child.wire.descriptors import Owned

from .._errors import ArgumentError, HandleError, OutputLimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    Stream = TypeVar("Stream")


PART = 1 << 16  # bytes to read at most at once: what a pipe holds


def check_limit(limit: object) -> None:
    """Raise ArgumentError for a limit of communicate() that is neither None nor a number of bytes."""
    if limit is not None and not (isinstance(limit, int) and limit >= 0):
        raise ArgumentError(f"communicate() takes a number of bytes, 0 or more, or None as limit, not {limit!r}")


class Exchange:
    """The input of a process that is still to be written, and its output so far. It may go on after an interruption.

    ``written`` is the number of bytes of the input that the process has taken, ``output`` what it has written so far.
    """

    def __init__(self, streams: Iterable[str], data: bytes | None) -> None:
        names = {*streams}
        if data is not None and "stdin" not in names:
            raise ArgumentError(
                "communicate() has input for a process whose stdin is no pipe: fork(stdin=anyfork.PIPE)"
            )
        try:
            self._input = memoryview(b"" if data is None else data).cast("B")
        except TypeError as error:
            raise ArgumentError(
                f"communicate() takes bytes as input, not {type(data).__name__}: encode text"
            ) from error
        self.written = 0
        self.unread = names - {"stdin"}
        self.output: dict[str, bytearray] = {name: bytearray() for name in self.unread}

    @property
    def unwritten(self) -> memoryview:
        """The input that is left."""
        return self._input[self.written :]

    @property
    def goes_on(self) -> bool:
        """True while there is something to write or to read."""
        return bool(self.unread or self.unwritten)

    def drop_input(self) -> None:
        """Note that the process takes nothing more."""
        self.written = len(self._input)

    def room(self, name: str, limit: int | None) -> int:
        """Return how many bytes to read at once from a stream: at most one more than the limit."""
        return PART if limit is None else max(1, min(PART, limit + 1 - len(self.output[name])))

    def is_over(self, limit: int | None) -> bool:
        """Return whether the process has written more than the limit."""
        return limit is not None and any(len(data) > limit for data in self.output.values())

    def check(self, limit: int | None) -> None:
        """Raise OutputLimitError if the process has written more than the limit."""
        for name, data in self.output.items():
            if limit is not None and len(data) > limit:
                text = f"communicate() has read more than {limit} bytes of {name}; the process goes on: kill it, or "
                raise OutputLimitError(f"{text}call communicate() again with a higher limit", stream=name)

    def result(self) -> tuple[bytes | None, bytes | None]:
        """Return the output: that of stdout and that of stderr, None for a stream that is no pipe."""
        stdout, stderr = (self.output.get(name) for name in ("stdout", "stderr"))
        return None if stdout is None else bytes(stdout), None if stderr is None else bytes(stderr)


def open_pipe() -> tuple[Owned, Owned]:
    """Open a pipe; return its reading and its writing end. Raises OSError when descriptors have run out."""
    ends = Owned(chain.from_iterable(starmap(os.pipe, [()])))  # in one step for interrupts
    read, write = ends.lifted().split()
    return read, write


class Streams:
    """This program's ends of a process's standard streams, by name, and the streams that a face has made of them."""

    __slots__ = ("_users", "exchange", "opened", "pipes")

    def __init__(self, pipes: Mapping[str, Owned]) -> None:
        self.pipes = pipes
        self.opened: dict[str, Any] = {}
        self.exchange: Exchange | None = None  # the one that communicate() has begun
        self._users: dict[str, object] = {}  # the communicate() that is under way, if there is one

    def open(self, name: str, make: Callable[[Owned], Stream]) -> Stream | None:
        """Return the stream of this name, made at the first call; None if it is not a pipe.

        Threads that make it at the same time get the same one. Dropping any other one must not close the pipe.
        """
        if name not in self.pipes:
            return None
        if name not in self.opened:
            self.opened.setdefault(name, make(self.pipes[name]))
        stream: Stream = self.opened[name]
        return stream

    def claim(self, user: object) -> None:
        """Note that a communicate() is under way. Raises HandleError if another one is."""
        if self._users.setdefault("communicate", user) is not user:
            raise HandleError(
                "communicate() while another communicate() with the same process is under way, in a thread, a task or "
                "the code that a signal handler has interrupted: call it once"
            )

    def release(self, user: object) -> None:
        """Note the end of a communicate(). Releasing twice is harmless."""
        if self._users.get("communicate") is user:
            self._users.clear()

    def begun(self, data: bytes | None) -> Exchange | None:
        """Return the exchange that an interrupted communicate() has begun. Raises ArgumentError for further input."""
        if self.exchange is not None and data is not None:
            raise ArgumentError("communicate() has got its input already: call it without input to go on")
        return self.exchange


def streams_of(pipes: Mapping[str, Owned]) -> Streams | None:
    """Return the streams of a process that has pipes, None for other processes."""
    return Streams(pipes) if pipes else None
