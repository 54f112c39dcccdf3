"""The standard streams of a process that are pipes, as binary files, and the exchange over them."""

from __future__ import annotations

import os
from io import BufferedReader, BufferedWriter, RawIOBase
from operator import add
from select import PIPE_BUF, POLLIN, POLLOUT

from .._errors import HandleError
from .._system.pipes import Exchange, check_limit
from .._system.polling import new_poll
from .._system.timeouts import one_wait, remaining

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from _typeshed import ReadableBuffer, WriteableBuffer

    from _anyfork_child.wire.descriptors import Owned

    from .._system.pipes import Streams

    File = TypeVar("File", bound=BufferedReader | BufferedWriter | None)


class PipeEnd(RawIOBase):
    """One end of a pipe. Dropping it closes it, once it is in use."""

    in_use = False  # still so in one that another thread or an interrupt has made superfluous
    paused = False  # whether a read returns at once, without data

    def __init__(self, end: Owned, *, writes: bool) -> None:
        self._end, self._writes = end, writes

    def fileno(self) -> int:
        """Return the descriptor. Raises ValueError when it is closed."""
        return self._end.fd

    def readable(self) -> bool:
        """Return whether this is a reading end."""
        return not self._writes

    def writable(self) -> bool:
        """Return whether this is a writing end."""
        return self._writes

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read into a buffer."""
        return None if self.paused else os.readv(self.fileno(), [buffer])

    def write(self, data: ReadableBuffer) -> int:
        """Write a part of the data."""
        return os.write(self.fileno(), data)

    def close(self) -> None:
        """Close this end."""
        super().close()
        if self.in_use:
            self._end.close()


def reader(streams: Streams, name: str) -> BufferedReader | None:
    """Return the file that reads from the stream of this name; None if it is not a pipe."""
    return _use(streams.open(name, _reader))


def writer(streams: Streams) -> BufferedWriter | None:
    """Return the file that writes to the standard input; None if it is not a pipe."""
    return _use(streams.open("stdin", _writer))


def _reader(end: Owned) -> BufferedReader:
    return BufferedReader(PipeEnd(end, writes=False))


def _writer(end: Owned) -> BufferedWriter:
    return BufferedWriter(PipeEnd(end, writes=True))


def _use(file: File) -> File:
    """Let the end of the pipe be closed with its file, now that the file is the only one of its stream."""
    if file is not None:
        file.raw.in_use = True  # type: ignore[union-attr]  # it is a PipeEnd
    return file


def exchange(streams: Streams, data: bytes | None, limit: int | None, until: float | None) -> Exchange | None:
    """Write the input and read the output until all streams are at their end; return the output.

    Return None if the time is over before. Raises OutputLimitError, ArgumentError and HandleError.
    """
    check_limit(limit)
    user = object()
    try:
        try:
            streams.claim(user)
            return _exchange(streams, data, limit, until)
        finally:
            streams.release(user)
    except BaseException:
        streams.release(user)  # again: an interrupt may have come in the middle of it
        raise


def _exchange(streams: Streams, data: bytes | None, limit: int | None, until: float | None) -> Exchange | None:
    state = streams.begun(data)
    if state is None:
        state = streams.exchange = _begin(streams, data)
    while state.goes_on and not state.is_over(limit):
        if not state.unwritten:
            _close_input(streams)
        ready = _poll(streams, state, remaining(until))
        if not ready and remaining(until) == 0.0:
            return None
        for name in ready:
            _move(streams, state, name, limit)
    state.check(limit)
    close(streams)
    return state


def _move(streams: Streams, state: Exchange, name: str, limit: int | None) -> None:
    """Write or read as much as a stream that is ready takes or gives for certain."""
    fd = _fd(streams, name)
    if name != "stdin":
        _read(state, name, fd, limit)
        return
    part = state.unwritten[:PIPE_BUF]
    try:  # no interrupt comes between writing and counting
        any(map(setattr, (state,), ("written",), map(add, (state.written,), map(os.write, (fd,), (part,)))))
    except BrokenPipeError:  # the process has closed its input, as it may
        state.drop_input()


def _read(state: Exchange, name: str, fd: int, limit: int | None) -> None:
    output = state.output[name]
    before = len(output)
    any(map(output.extend, map(os.read, (fd,), (state.room(name, limit),))))  # as above
    if len(output) == before:
        state.unread.discard(name)


def _fd(streams: Streams, name: str) -> int:
    for fd in streams.pipes[name].fds:
        return fd
    raise HandleError(f"communicate() on a process whose {name} was closed: call it before")


def close(streams: Streams) -> None:
    """Close all streams of a process that are left."""
    for name, end in streams.pipes.items():
        if name == "stdin":
            _close_input(streams)
        elif name in streams.opened:
            streams.opened[name].close()
        end.close()


def _begin(streams: Streams, data: bytes | None) -> Exchange:
    """Begin an exchange with what the program has written into a buffer, or read into one and not used."""
    state = Exchange(streams.pipes, data)
    for name, file in streams.opened.items():
        if name == "stdin":
            _flush(file)
        elif not file.closed:
            state.output[name] += _buffered(file)
        else:
            state.unread.discard(name)
    return state


def _buffered(file: BufferedReader) -> bytes:
    """Return what a file has in its buffer."""
    end: PipeEnd = file.raw  # type: ignore[assignment]  # see reader()
    end.paused = True
    try:
        return file.peek()
    finally:
        end.paused = False


def _flush(file: BufferedWriter) -> None:
    try:
        if not file.closed:
            file.flush()
    except BrokenPipeError:  # the process has closed its input, as it may
        pass


def _close_input(streams: Streams) -> None:
    if "stdin" in streams.opened:
        try:
            streams.opened["stdin"].close()
        except BrokenPipeError:  # as above
            pass
    if "stdin" in streams.pipes:
        streams.pipes["stdin"].close()


def _poll(streams: Streams, state: Exchange, left: float | None) -> list[str]:
    """Wait until streams are ready; return their names."""
    poller, names = new_poll(), {}
    for name in (*state.unread, *(("stdin",) if state.unwritten else ())):
        fd = _fd(streams, name)
        names[fd] = name
        poller.register(fd, POLLOUT if name == "stdin" else POLLIN)
    return [names[fd] for fd, _ in poller.poll(None if left is None else one_wait(left) * 1000)]
