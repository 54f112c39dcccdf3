"""What processes run: the same functions for every contender, in a module that loads nothing heavy."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeVar

    Value = TypeVar("Value")

    class Channel(Protocol):
        """A socket, a pipe end or a Connection."""

        def fileno(self) -> int: ...


# What a memory contender's owner asks of its processes, one byte each; the answer is the same byte.
PING, COLLECT, WORK = b"p", b"g", b"w"


def nothing(_channel: Channel | None = None) -> None:
    """Return at once."""


def echo(value: Value) -> Value:
    """Send back what came."""
    return value


def send_byte(channel: Channel) -> None:
    """Send one byte at once."""
    os.write(channel.fileno(), b"x")


def die_saying_when() -> None:
    """Tell the owner of this worker the time, and die."""
    from signal import SIGKILL
    from time import perf_counter

    import anyfork

    anyfork.emit(perf_counter())
    os.kill(os.getpid(), SIGKILL)


def work_and_note(path: str, number: int, seconds: float) -> int:
    """Work for so long, and note in a file that this was done."""
    from time import perf_counter

    end = perf_counter() + seconds
    while perf_counter() < end:
        pass
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return number


def serve(channel: Channel, module: str) -> None:
    """Load a module, unless it came with the fork, and obey the owner until it closes the channel."""
    import gc
    from importlib import import_module

    import_module(module)
    fd = channel.fileno()
    while command := os.read(fd, 1):
        if command == COLLECT:
            gc.collect()
        elif command == WORK:
            import_module("bench.frames").work()
        os.write(fd, command)
