"""Templates, on this machine and on others, for async programs."""

from __future__ import annotations

from _anyfork_child.wire.own_imports import import_own

from .._blocking.remote import CONNECT_TIMEOUT, KEEP_ALIVE, Unsupported, connect
from .._blocking.remote import RemoteTemplate as BlockingRemoteTemplate
from .._blocking.template import Template as BlockingTemplate
from .._processes.arguments import refused_keywords
from .._processes.flows import hand_over, prepare
from .._processes.handles import TemplateHandle
from .._system.signatures import overload
from ._process import Process
from ._waiting import run
from ._writer_task import attend, delivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Self

    from .._processes.arguments import Argument
    from .._processes.handles import Backend
    from .._processes.link import Link
    from .._system.signatures import AnyEntry, Arguments, Entry, EntryAfterOne, EntryAfterTwo


class Template(TemplateHandle):
    """A process that has no function to run yet: prepare it, fork it, and let a function take it over.

    It works like ``anyfork.Template``. ``preload``, ``execute``, ``prepare``, ``send``, ``fork``, ``start`` and
    ``close`` are plain methods that never block; ``ready``, ``detach``, ``aclose`` and the methods that begin with
    ``run`` are awaited.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with aio.Template().preload("calendar") as template:
                async with await template.fork().run_module("calendar", "2027", "1") as process:
                    await process.wait()

        anyio.run(main)
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._link.outbox.piecewise = True

    @classmethod
    def _of(cls, link: Link) -> Self:
        link.outbox.piecewise = True
        return super()._of(link)

    def _queued(self) -> None:
        attend()

    async def ready(self) -> Self:
        """Wait until the template has done all that was asked of it; raise the error of a step that failed.

        After a cancellation, ``ready`` can be awaited again.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                template = await aio.Template().preload("json").ready()
                await template.aclose()

            anyio.run(main)
        """
        await run(prepare(self._link, None))
        return self

    @overload
    def start(self, function: Entry[*Arguments], /, *args: *Arguments, backend: Backend | None = ...) -> Process: ...
    @overload
    def start(
        self, function: EntryAfterOne[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    def start(
        self, function: EntryAfterTwo[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    def start(self, function: AnyEntry, /, *, backend: Backend | None = ...) -> Process: ...
    @overload
    def start(self, function: str, /, *args: object, backend: Backend | None = ...) -> Process: ...
    def start(
        self,
        function: Callable[..., object] | str,
        /,
        *args: object,
        backend: Backend | None = None,
        **keywords: object,
    ) -> Process:
        """Let ``function(channel, *sent, *args)`` take the process over, and return at once.

        ``channel`` is a connected stream socket to this program. ``function`` is a function, or its name as
        ``"package.module:qualified.name"``, or ``"name"`` for a function that ``execute`` defined. This handle is used
        up. A template that has been forked is kept until its forks have ended, and a clone of it runs the function.

        An async function gets its channel as an AnyIO Unix socket stream, and runs under asyncio or the ``backend``.

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
        if keywords:
            raise refused_keywords("start", function, keywords, "backend")
        return self._take_over(Process._of, "start", function, args, backend)

    @overload
    async def run(
        self, function: Entry[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    async def run(
        self, function: EntryAfterOne[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    async def run(
        self, function: EntryAfterTwo[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    async def run(self, function: AnyEntry, /, *, backend: Backend | None = ...) -> Process: ...
    @overload
    async def run(self, function: str, /, *args: object, backend: Backend | None = ...) -> Process: ...
    async def run(
        self,
        function: Callable[..., object] | str,
        /,
        *args: object,
        backend: Backend | None = None,
        **keywords: object,
    ) -> Process:
        """Do the same as ``start``, and wait until the function has been entered; raise the error if it was not.

        A cancellation leaves no process: either the function is never entered, or its process is killed.

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
        if keywords:
            raise refused_keywords("run", function, keywords, "backend")
        return await self._take_over(Process._of, "run", function, args, backend)._ready_or_gone()

    async def run_program(self, argv: Sequence[Argument], /) -> Process:
        """Replace the process by a program, found by PATH, and wait until it has been executed.

        The program has the standard streams of the process: choose them with ``fork(stdin=..., stdout=...)``, for
        example CHANNEL. It gets no other descriptors, and no arguments of ``send``. Raises ProgramError if it cannot be
        executed. A cancellation leaves no process.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with await aio.Template().run_program(["true"]) as process:
                    assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._take_over_by_program(Process._of, argv)._ready_or_gone()

    async def run_module(self, name: str, /, *argv: Argument) -> Process:
        """Do what ``python -m name argv...`` does, in this process, and return when it has begun.

        The program has the interpreter and the loaded modules of this template; standard streams, directory and
        environment are those of the process, which ``fork`` sets. It gets no other descriptors and no arguments of
        ``send``. What prevents it from running (no such module, a syntax error) is printed by the program, as a new
        interpreter prints it, and its exit status says so.
        A cancellation leaves no process.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with await aio.Template().run_module("calendar", "2027", "1") as process:
                    assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._take_over_by_python(Process._of, "-m", name, argv)._ready_or_gone()

    async def run_script(self, path: Argument, /, *argv: Argument) -> Process:
        """Do what ``python path argv...`` does: run a file, a directory or a zip file. See ``run_module``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                await anyio.Path("hello.py").write_text("print('hello')")
                async with await aio.Template().run_script("hello.py") as process:
                    assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._take_over_by_python(Process._of, "", path, argv)._ready_or_gone()

    async def run_code(self, source: str, /, *argv: Argument) -> Process:
        """Do what ``python -c source argv...`` does. See ``run_module``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with await aio.Template().run_code("print(1)") as process:
                    assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._take_over_by_python(Process._of, "-c", source, argv)._ready_or_gone()

    async def detach(self) -> socket.socket:
        """Give up the handle: flush its queue, and return a socket that moves the template to another process.

        Send the socket there and use ``Template.from_socket``. Closing the socket instead ends the template. After a
        cancellation, this handle can still be used.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                sock = await aio.Template().preload("json").detach()
                template = aio.Template.from_socket(sock)
                await template.aclose()

            anyio.run(main)
        """
        kind: type[socket.socket] = import_own("socket").socket
        return await run(hand_over(self._movable(), kind))

    async def aclose(self) -> None:
        """Let the template end, and wait until its queue is delivered. Processes forked from it go on.

        Closing twice is harmless. ``close``, and dropping the last reference, do the same without waiting.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                template = aio.Template()
                await template.aclose()

            anyio.run(main)
        """
        link = self._link
        self.close()
        await delivered(link)

    @classmethod
    def from_blocking(cls, template: BlockingTemplate) -> Self:
        """Make an async handle of a blocking one, which is used up. Raises HandleError.

        For example::

            import anyio
            import anyfork
            from anyfork import aio

            async def main():
                template = aio.Template.from_blocking(anyfork.Template())
                await template.aclose()

            anyio.run(main)
        """
        return cls._of(template._give_up("from_blocking"))

    def to_blocking(self) -> BlockingTemplate:
        """Make a blocking handle of this one, which is used up. Raises HandleError.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                template = aio.Template().to_blocking()
                template.close()

            anyio.run(main)
        """
        return BlockingTemplate._of(self._give_up("to_blocking"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class RemoteTemplate(Unsupported, Template):
    """A template on another machine, at the other end of a command such as ``["ssh", "host", "python3"]``.

    It works like ``anyfork.RemoteTemplate``, and has the methods of ``anyfork.aio.Template``.

    For example::

        import anyio
        import sys
        from anyfork import aio

        async def main():
            async with aio.RemoteTemplate([sys.executable]) as template:      # or ["ssh", "host", "python3"]
                assert await aio.call("math:gcd", 12, 18, template=template) == 6

        anyio.run(main)
    """

    __slots__ = ()

    def __init__(
        self,
        command: Sequence[Argument],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        self._link = connect(command, connect_timeout, keep_alive)
        self._link.hold()
        self._link.outbox.piecewise = True
        self._queued()

    def to_blocking(self) -> BlockingRemoteTemplate:
        """Make a blocking handle of this one, which is used up. Raises HandleError.

        For example::

            import sys
            import anyio
            from anyfork import aio

            async def main():
                template = await aio.RemoteTemplate([sys.executable]).ready()
                template.to_blocking().close()

            anyio.run(main)
        """
        return BlockingRemoteTemplate._of(self._give_up("to_blocking"))
