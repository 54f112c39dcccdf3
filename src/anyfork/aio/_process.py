"""Processes that run a function or a program, for async programs."""

from __future__ import annotations

import socket
from weakref import finalize, ref

from anyio.abc import SocketAttribute, UNIXSocketStream

from .._blocking.process import Process as BlockingProcess
from .._errors import AnyforkError, HandleError
from .._processes import flows
from .._processes.handles import ProcessHandle
from .._processes.undelivered import destructor
from .._system.link_socket import carry_out, hand_on, unopened
from .._system.pipes import Exchange
from ._streams import ReceivePipe, SendPipe, close, exchange
from ._waiting import run, run_now, shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Self, TypeVar

    from .._processes.link import Link
    from .._status import ExitStatus

    Result = TypeVar("Result")


class Process(ProcessHandle):
    """A process that a function, or a program, has taken over. ``Template.start`` and ``run`` make such objects.

    As an async context manager, it closes its channel and its streams at the end of the block and waits for the
    process; if that is cancelled, it kills the process. Dropping the handle leaves the process alone: the process goes
    on, and sees the end of its channel.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with await aio.Template().run_code("raise SystemExit(3)") as process:
                assert (await process.wait()).code == 3

        anyio.run(main)
    """

    __slots__ = ("_sock", "_stream")
    _sock: socket.socket | None  # the channel, before it is made a stream
    _stream: UNIXSocketStream | None

    @classmethod
    def _of(cls, link: Link, channel: socket.socket | None = None) -> Self:
        process = cls.__new__(cls)
        process._link, process._sock, process._stream = link, channel, None
        link.hold()
        return process

    async def _enter(self) -> None:
        await run(flows.enter(self._link, None))
        await run(flows.birth(self._link))

    async def ready(self) -> Self:
        """Wait until the process has entered its function; raise the error if it has not.

        Any StartError or TemplateError means that no part of the function has run. After a cancellation, ``ready`` can
        be awaited again.

        For example::

            import anyio
            from anyfork import aio

            async def hello(channel):
                async with channel:
                    await channel.send(b"hello")

            async def main():
                async with aio.Template().start(hello) as process:
                    await process.ready()
                    assert await process.channel.receive() == b"hello"

            anyio.run(main)
        """
        link = self._link
        await self._enter()
        if self._stream is None:
            if self._sock is None:
                link.give_control(socket.socket, self, "_sock")
            elif type(self._sock) is not socket.socket:  # from a blocking handle; trio accepts only this exact class
                plain = unopened(socket.socket)
                carry_out(hand_on(self._sock, plain, (self, "_sock", plain), (link, "_channel", ref(plain))))
            assert self._sock is not None
            self._stream = await UNIXSocketStream.from_socket(self._sock)
        sock = self._sock
        if sock is not None:  # the stream has it now; an interrupt before this line has lost nothing
            finalize(self._stream, sock.close).atexit = False  # without the ResourceWarning of other sockets, by design
            self._sock = None
        return self

    async def _ready_or_gone(self) -> Self:
        """Wait as ``ready`` does; if the wait is interrupted, end the process, of which the caller has no handle."""
        return await self._done_or_gone(self.ready())

    async def _done_or_gone(self, step: Awaitable[Result]) -> Result:
        try:
            return await step
        except AnyforkError:
            raise
        except BaseException:
            if not self._link.revoke():
                self.kill()
            raise

    @property
    def channel(self) -> UNIXSocketStream:
        """The connected Unix socket stream to the process: the first argument of its function is the other end.

        Descriptors can be sent over it. Raises HandleError before ``ready`` has been awaited; ``run`` awaits it itself.

        For example::

            import anyio
            from anyfork import aio

            async def hello(channel):
                async with channel:
                    await channel.send(b"hello")

            async def main():
                async with await aio.Template().run(hello) as process:
                    assert await process.channel.receive() == b"hello"

            anyio.run(main)
        """
        flows.check(self._link, "channel")
        if self._stream is None:
            raise HandleError("channel of a process of start(): await its ready() first")
        return self._stream

    async def wait(self) -> ExitStatus:
        """Wait until the process has ended, and return its exit status. Any number of tasks may wait, and be cancelled.

        A status that is neither a code nor a signal is unknown: the template was killed before the process ended.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with await aio.Template().run_code("pass") as process:
                    assert (await process.wait()).returncode == 0

            anyio.run(main)
        """
        return await run(flows.end(self._link, None))

    def poll(self) -> int | None:
        """Check whether the process has ended, and return ``returncode``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with await aio.Template().run_code("pass") as process:
                    await process.wait()
                    assert process.poll() == 0

            anyio.run(main)
        """
        run_now(flows.look(self._link))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, or do nothing if it has ended. An unborn process gets it at its birth.

        For example::

            import anyio
            import signal
            from anyfork import aio

            async def main():
                async with await aio.Template().run_code("import signal; signal.pause()") as process:
                    process.send_signal(signal.SIGUSR1)
                    assert (await process.wait()).signal == signal.SIGUSR1

            anyio.run(main)
        """
        self._signal(number, "send_signal()")

    def _signal(self, number: int, use: str) -> None:
        flows.check(self._link, use)
        self._link.signal_now_or_at_birth(number)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process has ended; this object keeps and closes it.

        Raises HandleError before ``ready`` has been awaited, and once ``wait`` or ``poll`` has seen the end of the
        process, and so has closed the descriptor.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with await aio.Template().run_code("pass") as process:
                    await anyio.wait_readable(process)         # until it has ended

            anyio.run(main)
        """
        return run_now(flows.end_descriptor(self._link))

    @property
    def stdin(self) -> SendPipe | None:
        """The byte stream to the standard input of the process, if that is a PIPE.

        For example::

            import anyio
            import anyfork
            from anyfork import aio

            async def main():
                async with await aio.Template().fork(stdin=anyfork.PIPE).run_code("input()") as process:
                    await process.stdin.send(b"a line")

            anyio.run(main)
        """
        streams = self._link.streams
        return None if streams is None else streams.open("stdin", SendPipe)

    @property
    def stdout(self) -> ReceivePipe | None:
        """The byte stream of the standard output of the process, if that is a PIPE.

        For example::

            import anyio
            import anyfork
            from anyfork import aio

            async def main():
                async with await aio.Template().fork(stdout=anyfork.PIPE).run_code("print('hello')") as process:
                    assert b"".join([part async for part in process.stdout]).strip() == b"hello"

            anyio.run(main)
        """
        streams = self._link.streams
        return None if streams is None else streams.open("stdout", ReceivePipe)

    @property
    def stderr(self) -> ReceivePipe | None:
        """The byte stream of the standard error of the process, if that is a PIPE.

        For example::

            import anyio
            import anyfork
            from anyfork import aio

            async def main():
                async with await aio.Template().fork(stderr=anyfork.PIPE).run_code("1 / 0") as process:
                    print(await process.stderr.receive())

            anyio.run(main)
        """
        streams = self._link.streams
        return None if streams is None else streams.open("stderr", ReceivePipe)

    async def communicate(
        self,
        input: bytes | None = None,  # noqa: A002  # the name in subprocess
        *,
        limit: int | None = None,
    ) -> tuple[bytes | None, bytes | None]:
        """Write to the standard input, read the standard output and error to their ends, and wait for the process.

        Return the output and the error output; None for a stream that is not a PIPE. Raises OutputLimitError when the
        process has written more than ``limit`` bytes to one of the streams; it goes on. After that, and after a
        cancellation, a further call, without input, goes on too, and loses nothing.

        For example::

            import anyio
            from anyfork import PIPE
            from anyfork import aio

            async def main():
                template = aio.Template().fork(stdin=PIPE, stdout=PIPE)
                async with await template.run_code("print(input()[::-1])") as process:
                    assert (await process.communicate(b"abc", limit=1000))[0].strip() == b"cba"

            anyio.run(main)
        """
        flows.check(self._link, "communicate()")
        streams = self._link.streams
        if streams is None:
            Exchange((), input)
            await self.wait()
            return None, None
        done = await exchange(streams, input, limit)
        await self.wait()
        return done.result()

    async def _close_streams(self) -> None:
        if self._link.streams is not None:
            await close(self._link.streams)

    async def aclose(self) -> None:
        """Close the channel and the streams, and release the process, which goes on. Closing twice is harmless.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                process = await aio.Template().run_code("print('goes on')")
                await process.aclose()

            anyio.run(main)
        """
        try:
            await self._close_streams()
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self._sock is not None:
                self._sock.close()
            self._leave()

    @classmethod
    def from_blocking(cls, process: BlockingProcess) -> Self:
        """Make an async handle of a blocking one, which is used up. ``channel`` can be used after ``ready``.

        For example::

            import anyio
            import anyfork
            from anyfork import aio

            async def main():
                process = aio.Process.from_blocking(anyfork.Template().run_code("pass"))
                await process.wait()

            anyio.run(main)
        """
        return cls._of(*process._give_up_both())

    async def to_blocking(self) -> BlockingProcess:
        """Make a blocking handle of this one, which is used up. Raises HandleError.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                process = await (await aio.Template().run_code("pass")).to_blocking()
                process.wait()

            anyio.run(main)
        """
        flows.check(self._link, "to_blocking()")
        stream, channel = self._stream, self._sock
        if stream is not None:
            channel = stream.extra(SocketAttribute.raw_socket).dup()
            channel.setblocking(True)
        process = BlockingProcess._of(self._give_up("to_blocking"), channel)
        self._stream = self._sock = None
        if stream is not None:
            await shielded(stream.aclose)
        return process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._close_streams()
            if self._stream is not None:
                await self._stream.aclose()
            else:
                await run(flows.leave(self._link))
            await self.wait()
        except BaseException:
            # Cancelled: code after the block relies on the end of the process.
            await shielded(run, flows.put_down(self._link))
            raise
        finally:
            await shielded(self.aclose)

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_link"):
            self._sock = self._stream = None  # they close themselves, unless the program still has the stream
            self._leave()
