"""The ends of pipes, as AnyIO's byte streams: the standard streams of programs."""

from __future__ import annotations

import os

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, notify_closing, wait_readable, wait_writable
from anyio.abc import ByteReceiveStream, ByteSendStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _anyfork_child.wire.owned_descriptors import Owned


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
