"""What the workers of these tests run. They import this module by its name, so it imports only what they need."""

from __future__ import annotations

import os

from _anyfork_child.wire import emitter
from _anyfork_child.wire.call_messages import HEADER, READY, RESULT, VERSION
from _anyfork_child.wire.emitter import emit
from _anyfork_child.worker import loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from io import FileIO
    from typing import Any, BinaryIO

    import anyio

kept: tuple[Any, ...] = ()  # what the initializer was given
running = 0  # calls, at this moment
most = 0  # calls that have run at the same time
replies = 0  # that have been made
turns: dict[int, anyio.Event] = {}


# --- Calls ----------------------------------------------------------------------------------------------------------


def echo(value: object) -> object:
    """Return the value itself."""
    return value


def several(*values: object) -> tuple[object, ...]:
    """Return all values, after an event with each."""
    for value in values:
        emit(value)
    return values


def announce(value: Any) -> Any:
    """Emit an event, then return the result."""
    emit(value)
    return value


async def announce_in_steps(text: str) -> str:
    """Emit an event at once and three by timers, and return a result."""
    import anyio

    emit(f"{text} begins")
    for number in range(1, 4):
        await anyio.sleep(0.001)
        emit(f"{text} {number}")
    return f"{text} is done"


def fail(text: str) -> None:
    """Raise."""
    raise KeyError(text)


async def fail_later(text: str) -> None:
    """Raise, when other calls have had their turn."""
    import anyio

    await anyio.sleep(0)
    raise KeyError(text)


def pid() -> int:
    """Return which process this is."""
    return os.getpid()


def modules() -> list[str]:
    """Return what is loaded."""
    import sys

    return sorted(sys.modules)


class Ring:
    """Points to itself."""

    def __init__(self) -> None:
        self.next = self


# --- Waiting --------------------------------------------------------------------------------------------------------


def say_and_wait(gate: BinaryIO) -> str:
    """Say that it runs, and wait for the gate."""
    emit("running")
    gate.read(1)
    return "done"


def turn(number: int) -> anyio.Event:
    """Return what comes when it is the turn of that number."""
    import anyio

    return turns.setdefault(number, anyio.Event())


async def wait_for_turn(number: int) -> int:
    """Say that it runs, and wait for its turn."""
    emit(number)
    await turn(number).wait()
    return number


async def give_turn(number: int) -> None:
    """Let the call with that number go on."""
    turn(number).set()


async def meet(number: int) -> int:
    """Wait until so many calls run at the same time; return the most that ever did."""
    global running, most
    running += 1
    most = max(most, running)
    if running == number:
        turn(0).set()
    await turn(0).wait()
    running -= 1
    return most


def overlap() -> int:
    """Return the most calls that ever ran at the same time."""
    global running, most
    running += 1
    most = max(most, running)
    os.sched_yield()
    running -= 1
    return most


def stay() -> None:
    """Say that it runs, and stay until a signal comes that cannot be ignored."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    emit("running")
    while True:
        signal.pause()


async def stay_waiting() -> None:
    """Say that it runs, and stay, leaving the loop to others."""
    import anyio

    emit("running")
    await anyio.sleep_forever()


# --- Ends -----------------------------------------------------------------------------------------------------------


def wait_and_die(gate: BinaryIO, code: int) -> None:
    """Say that it runs, and end the worker at the gate."""
    emit("running")
    gate.read(1)
    os._exit(code)


async def die(code: int) -> None:
    """End the worker."""
    os._exit(code)


def last_words_and_exit(code: int) -> None:
    """Emit an event, and exit."""
    emit("last words")
    os._exit(code)


def last_words_and_leave(code: int) -> None:
    """Emit an event, and end as user code brings it about."""
    emit("last words")
    raise SystemExit(code)


def say_at_exit(pipe: BinaryIO) -> None:
    """Register an exit handler."""
    import atexit

    atexit.register(os.write, os.dup(pipe.fileno()), b"the worker ends")


def handle_signal(number: int, pipe: BinaryIO) -> None:
    """Write into the pipe whenever the signal comes."""
    import signal

    fd = os.dup(pipe.fileno())
    signal.signal(number, lambda *_: os.write(fd, b"!"))


# --- Initializers ---------------------------------------------------------------------------------------------------


def keep(*values: Any) -> None:
    """Keep what it is given."""
    global kept
    kept = values


def tell_kept() -> list[object]:
    """Return what was kept, descriptors by what they are."""
    return [os.fstat(value.fileno()).st_ino if hasattr(value, "fileno") else value for value in kept]


def define(name: str) -> None:
    """Define a function of that name, for calls that come later."""
    import __main__

    setattr(__main__, name, lambda: f"{name} is there")


# --- Descriptors ----------------------------------------------------------------------------------------------------


def write_to(file: BinaryIO | FileIO, text: bytes) -> int:
    """Write into a file that came with the call."""
    return os.write(file.fileno(), text)


def open_pipe(text: bytes) -> FileIO:
    """Return the end of a pipe with something in it."""
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    return open(read, "rb", buffering=0)


# --- Floods ---------------------------------------------------------------------------------------------------------


def reply(size: int) -> bytes:
    """Return so many bytes; write the number of replies made so far into the file that was kept."""
    global replies
    replies += 1
    os.pwrite(kept[0].fileno(), replies.to_bytes(4, "little"), 0)
    return bytes(size)


def flood(count: int, size: int) -> None:
    """Emit so many events, each counted as a reply is."""
    for _ in range(count):
        emit(reply(size))


# --- Peers that do not keep to the protocol -------------------------------------------------------------------------


def answer_twice() -> str:
    """Send two results for one call."""
    serving = emitter.current
    assert serving is not None
    serving.send_value(RESULT, serving.number, "first")
    return "second"


def show_requests(channel: socket.socket, *_: object) -> None:
    """Answer, in the place of the call loop, each call with all bytes that have come so far."""
    channel.sendall(HEADER.pack(0, 0, VERSION, READY, 0, 0))
    seen = b""
    while data := channel.recv(1 << 16):
        seen += data
        at, number, kind = 0, 0, 0
        while at < len(seen):
            length, number, _, kind, _, _ = HEADER.unpack_from(seen, at)
            at += HEADER.size + length
        body = len(seen).to_bytes(4, "little") + seen
        if at == len(seen) and kind == 1:  # a call is complete
            channel.sendall(HEADER.pack(len(body), number, 0, RESULT, 0, 0) + body)


def speak_version_99(channel: socket.socket, *_: object) -> None:
    """Run, in the place of the call loop, a loop of another version."""
    channel.sendall(HEADER.pack(0, 0, 99, READY, 0, 0))
    channel.recv(1)


def replace_loop(name: str) -> None:
    """Have workers run that function of this module instead of the call loop. Runs in a template."""
    loop.serve = globals()[name]


class Shouting:
    """A serializer of the user's: texts, in capitals."""

    name = "capitals"

    def dumps(self, values: Sequence[Any]) -> bytes:
        """Encode texts. Raises AttributeError for anything but text."""
        return "|".join(value.upper() for value in values).encode()

    def loads(self, data: bytes) -> list[str]:
        """Return the texts."""
        return data.decode().split("|")


# --- The examples of the manual -------------------------------------------------------------------------------------

handled = 0  # requests


def count_request() -> None:
    """Report progress with every third request."""
    global handled
    handled += 1
    if handled % 3 == 0:
        emit(handled)


def remove(command: str, path: str) -> str:
    """Remove a file or an empty directory; raise OSError where that cannot be done."""
    count_request()
    if command not in ("rmdir", "unlink"):
        raise ValueError(f"illegal command {command!r}")
    getattr(os, command)(path)
    return path


async def remove_async(command: str, path: str) -> str:
    """Do the same in a worker that runs many calls at once: no call waits for the disk of another."""
    import anyio

    count_request()
    if command not in ("rmdir", "unlink"):
        raise ValueError(f"illegal command {command!r}")
    await getattr(anyio.Path(path), command)()
    return path


def forward_log() -> None:
    """Have the worker's log records sent to its owner as events."""
    import logging.handlers

    handler = logging.handlers.QueueHandler(None)  # type: ignore[arg-type]  # it has no queue
    handler.enqueue = emit  # type: ignore[method-assign]  # what it does with a record, instead of queueing it
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)


def log_much(name: str) -> str:
    """Log, as work does."""
    import logging

    log = logging.getLogger(name)
    log.debug("began with %r", name)
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("%d thing went wrong", 1)
    return "done"
