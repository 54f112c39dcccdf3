"""Processes that run a function: the async face."""

from __future__ import annotations

import socket
from weakref import finalize, ref

from anyio import CancelScope
from anyio.abc import SocketAttribute, UNIXSocketStream

from .._blocking.process import Process as BlockingProcess
from .._errors import AnyforkError, HandleError
from .._processes import flows
from .._processes.handles import ProcessHandle
from .._processes.undelivered import destructor, when_free
from .._system.owned_descriptors import hand_on, unopened
from ._waiting import run, run_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from .._processes.link import Link
    from .._status import ExitStatus


class Process(ProcessHandle):
    """A process that a function, or a program, has taken over. ``Template.start`` and ``run`` make them.

    As an async context manager it closes its channel at the end and waits for the process; cancelled meanwhile, it
    kills it. Dropping the handle leaves the process alone: it goes on, and sees the end of its channel.
    """

    __slots__ = ("_sock", "_stream")
    _sock: socket.socket | None  # the channel, before it is a stream
    _stream: UNIXSocketStream | None

    @classmethod
    def _of(cls, link: Link, channel: socket.socket | None = None) -> Self:
        process = cls.__new__(cls)
        process._link, process._sock, process._stream = link, channel, None
        link.hold()
        return process

    async def ready(self) -> Self:
        """Wait until the process has entered its function; raise why it has not.

        Any StartError or TemplateError means that nothing of the function has run. Cancelled, it can be awaited again.
        """
        link = self._link
        await run(flows.enter(link, None))
        await run(flows.birth(link))
        if self._stream is None:
            if self._sock is None:
                link.give_control(socket.socket, self, "_sock")
            elif type(self._sock) is not socket.socket:  # it was the blocking handle's, and trio takes no other
                plain = unopened(socket.socket)
                any(hand_on(self._sock, plain, (self, "_sock", plain), (link, "_channel", ref(plain))))
            sock, self._sock = self._sock, None
            assert sock is not None
            self._stream = stream = await UNIXSocketStream.from_socket(sock)
            finalize(stream, sock.close).atexit = False  # without the warning of other sockets: that is its rule
        return self

    async def _ready_or_gone(self) -> Self:
        """As ready; whatever interrupts the wait leaves no process behind that nobody has a handle of."""
        try:
            return await self.ready()
        except AnyforkError:
            raise
        except BaseException:
            if not self._link.revoke():
                self.kill()
            raise

    @property
    def channel(self) -> UNIXSocketStream:
        """The connected Unix socket stream to the process: its function's first argument is the other end.

        Descriptors can be sent over it. Raises HandleError before ``ready`` has been awaited; ``run`` does that.
        """
        flows.check(self._link, "channel")
        if self._stream is None:
            raise HandleError(
                "channel of a process that start() has made: it is there once its ready() has been awaited"
            )
        return self._stream

    async def wait(self) -> ExitStatus:
        """Wait until the process has ended, and return how. Any number of tasks may wait, and be cancelled.

        A status that is neither a code nor a signal is unknown: the template was killed before the process ended.
        """
        return await run(flows.end(self._link, None))

    def poll(self) -> int | None:
        """Return ``returncode``, after looking whether the process has ended."""
        run_now(flows.look(self._link))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended. One that is not born yet gets it at its birth."""
        flows.check(self._link, "send_signal")
        self._link.signal_now_or_at_birth(number)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended; it stays this object's.

        Raises HandleError before ``ready`` has been awaited, and once the end has been seen by ``wait`` or ``poll``,
        which closes it.
        """
        return run_now(flows.end_descriptor(self._link))

    async def aclose(self) -> None:
        """Close the channel and let the process go: it goes on. Closing twice is harmless."""
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self._sock is not None:
                self._sock.close()
            self._link.drop_process()

    @classmethod
    def from_blocking(cls, process: BlockingProcess) -> Self:
        """Make an async handle of a blocking one, which is used up. Its ``channel`` is there after ``ready``."""
        return cls._of(*process._give_up_both())

    async def to_blocking(self) -> BlockingProcess:
        """Make a blocking handle of this one, which is used up. Raises HandleError."""
        stream, channel = self._stream, self._sock
        if stream is not None:
            channel = stream.extra(SocketAttribute.raw_socket).dup()
            channel.setblocking(True)
        process = BlockingProcess._of(self._give_up("to_blocking"), channel)
        self._stream = self._sock = None
        if stream is not None:
            with CancelScope(shield=True):
                await stream.aclose()
        return process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._stream is not None:
                await self._stream.aclose()
            else:
                await run(flows.leave(self._link))
            await self.wait()
        except BaseException:
            # Cancelled: whoever leaves the block relies on it that the process has ended.
            with CancelScope(shield=True):
                await run(flows.put_down(self._link))
            raise
        finally:
            with CancelScope(shield=True):
                await self.aclose()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_link"):
            self._sock = self._stream = None  # they close themselves, unless somebody else has the stream
            when_free(self._link, self._link.drop_process)
