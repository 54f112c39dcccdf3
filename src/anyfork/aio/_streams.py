"""The standard streams of a process that are pipes, as byte streams, and the exchange over them."""

from __future__ import annotations

import os
from contextlib import contextmanager

from anyio import (
    BrokenResourceError,
    BusyResourceError,
    ClosedResourceError,
    EndOfStream,
    create_task_group,
    notify_closing,
    wait_readable,
    wait_writable,
)
from anyio.abc import ByteReceiveStream, ByteSendStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from .._errors import HandleError
from .._system.pipes import Exchange, check_limit
from ._waiting import shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import TaskGroup

    from _anyfork_child.wire.descriptors import Owned

    from .._system.pipes import Streams


class _End:
    """One end of a pipe. Dropping it closes it."""

    def __init__(self, end: Owned) -> None:
        self._end = end
        os.set_blocking(end.fd, False)  # of this end alone: the other one has a file description of its own

    @property
    def _fd(self) -> int:
        for fd in self._end.fds:
            return fd
        raise ClosedResourceError

    @property
    def closed(self) -> bool:
        """True once this end was closed."""
        return not self._end.fds

    async def aclose(self) -> None:
        """Close this end. A task that waits for it gets a ClosedResourceError."""
        for fd in self._end.fds:
            notify_closing(fd)
            self._end.close()
        await cancel_shielded_checkpoint()


class ReceivePipe(_End, ByteReceiveStream):
    """The reading end of a pipe."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at most so many bytes. A cancellation loses none."""
        await checkpoint()  # first, and none follows: asyncio's own cancellation comes even to a shielded one
        while True:
            try:
                data = os.read(self._fd, max_bytes)
            except BlockingIOError:
                await wait_readable(self._fd)
                continue
            if not data:
                raise EndOfStream
            return data


class SendPipe(_End, ByteSendStream):
    """The writing end of a pipe."""

    async def send(self, item: bytes) -> None:
        """Send bytes. After a cancellation, some of them may have been sent."""
        left = memoryview(item)
        while left:
            left = left[await self.send_some(left) :]

    async def send_some(self, data: memoryview) -> int:
        """Send as many bytes as the pipe takes; return their number. After a cancellation, none was sent."""
        await checkpoint()  # as above
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                await wait_writable(self._fd)
                continue
            except BrokenPipeError as error:
                raise BrokenResourceError from error


async def exchange(streams: Streams, data: bytes | None, limit: int | None) -> Exchange:
    """Write the input and read the output until all streams are at their end; return the output.

    Raises OutputLimitError, ArgumentError and HandleError.
    """
    check_limit(limit)
    user = object()
    try:
        try:
            streams.claim(user)
            return await _exchange(streams, data, limit)
        finally:
            streams.release(user)
    except BaseException:
        streams.release(user)  # again: an interrupt may have come in the middle of it
        raise


async def _exchange(streams: Streams, data: bytes | None, limit: int | None) -> Exchange:
    state = streams.begun(data)
    if state is None:
        state = streams.exchange = Exchange(streams.pipes, data)
        state.unread -= {name for name, stream in streams.opened.items() if stream.closed}
    try:
        async with create_task_group() as tasks:
            for name in state.unread:
                tasks.start_soon(_read, streams, state, name, limit, tasks)
            await _write(streams, state)
    except ExceptionGroup as group:
        mistakes, rest = group.split(HandleError)
        if mistakes is None or rest is not None:
            raise
        raise mistakes.exceptions[0] from None
    state.check(limit)
    await close(streams)
    return state


async def _read(streams: Streams, state: Exchange, name: str, limit: int | None, tasks: TaskGroup) -> None:
    stream = streams.open(name, ReceivePipe)
    while stream is not None and name in state.unread and not state.is_over(limit):
        with _explained(name):
            try:
                state.output[name] += await stream.receive(state.room(name, limit))
            except EndOfStream:
                state.unread.discard(name)
    if state.is_over(limit):
        tasks.cancel_scope.cancel()


async def _write(streams: Streams, state: Exchange) -> None:
    stream = streams.open("stdin", SendPipe)
    if stream is None:
        return
    while state.unwritten:
        with _explained("stdin"):
            try:
                state.written += await stream.send_some(state.unwritten)
            except BrokenResourceError:  # the process has closed its input, as it may
                state.drop_input()
    await stream.aclose()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raise HandleError for what other tasks have done with the stream."""
    try:
        yield
    except ClosedResourceError as error:
        raise HandleError(f"communicate() on a process whose {name} was closed: call it before") from error
    except BusyResourceError as error:
        raise HandleError(f"communicate() while another task uses {name} of the process: wait for it first") from error


async def close(streams: Streams) -> None:
    """Close all streams of a process that are left."""
    await shielded(_close, streams)


async def _close(streams: Streams) -> None:
    for name, end in streams.pipes.items():
        if name in streams.opened:
            await streams.opened[name].aclose()
        end.close()
