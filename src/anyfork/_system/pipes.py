"""Pipes, each end with an owner of its own, and the ends of a process's standard streams in this program."""

from __future__ import annotations

import os
from itertools import chain, starmap

from _anyfork_child.wire.owned_descriptors import Owned

from .._errors import ArgumentError, HandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from .exchange import Exchange

    Stream = TypeVar("Stream")


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
