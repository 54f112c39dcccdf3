"""Warm, for async programs: its templates are made in threads, its workers are forked when they are first needed."""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter, Lock
from anyio.to_thread import run_sync

from .._blocking.generation import NotWarmError
from .._blocking.warm import COOL_DOWN
from .._blocking.warm import Warm as BlockingWarm
from .._blocking.warm_starts import note_cold
from .._calls.worker_handle import start_worker
from .._errors import ArgumentError, ForkError, HandleError, RemoteTemplateError, TemplateError
from .._processes.flows import why_gone
from .._processes.handles import HasTemplates
from .._system.import_path import ORDINARY
from ._loop import running_loop
from ._process import Process
from ._template import Template
from ._waiting import run
from ._worker_channel import AsyncWorkerChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self, TypeVarTuple, Unpack

    from _anyfork_child.values.functions_by_value import Receiver

    from .._blocking.generation import Generation
    from .._blocking.template import Template as BlockingTemplate
    from .._blocking.warm import WarmReport
    from .._calls.calls import Calls
    from .._calls.flows import Flow
    from .._calls.worker_options import Options
    from .._processes.arguments import Argument
    from .._processes.attributes import Attributes
    from .._processes.flows import Result
    from .._processes.handles import TemplateHandle
    from ._loop import Loop

    Args = TypeVarTuple("Args")


class Warm(HasTemplates):
    """A template that takes care of itself, as ``anyfork.Warm``.

    ``call``, ``Worker``, ``Pool``, ``open_process`` and ``run_process`` take it; ``await warm.fork()`` is for the rest.
    A template is made, and looked at, in a thread, while the event loop goes on; a cancelled caller does not wait for
    it. The function ``make`` is called in that thread, and returns a template of the blocking face.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with aio.Warm("calendar") as warm:
                assert await aio.call(pow, 2, 10, template=warm) == 1024

        anyio.run(main)
    """

    _instead = "make another one there"

    def __init__(
        self,
        *preload: str,
        make: Callable[[], BlockingTemplate] | None = None,
        python: str | os.PathLike[str] | None = None,
        watch: Iterable[str | os.PathLike[str]] = (),
        cool_down: float = COOL_DOWN,
        learn: str | os.PathLike[str] | None = None,
    ) -> None:
        self._warm = BlockingWarm(*preload, make=make, python=python, watch=watch, cool_down=cool_down, learn=learn)
        self._kept: tuple[Generation, Template] | None = None  # what ``template`` has returned last
        self._loop: Loop | None = None  # the event loop that has used this last

    async def template(self) -> Template:
        """Return a fork of the present template, ready. It stays with this object: fork it.

        It is the same as long as the template is up to date. Raises what prevents a template from being made.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Warm("json") as warm:
                    assert await warm.template() is await warm.template()

            anyio.run(main)
        """
        generation = await self._in_thread(self._warm._current, "template")
        kept = self._kept
        if kept is None or kept[0] is not generation or bool(await run(why_gone(kept[1]._link))):
            template = Template.from_blocking(await run_sync(self._warm._fork_of, generation, {}))
            self._kept = kept = generation, await template.ready()
        return kept[1]

    async def fork(self, **attributes: Unpack[Attributes]) -> Template:
        """Return a fork of the present template; it takes the attributes of ``Template.fork``.

        Raises what prevents a template from being made.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Warm("json") as warm, await warm.fork(cwd="/") as template:
                    await template.ready()

            anyio.run(main)
        """
        made = await self._in_thread(partial(self._warm.fork, **attributes))
        return Template.from_blocking(made)

    async def run_module(self, name: str, /, *argv: Argument, **attributes: Unpack[Attributes]) -> Process:
        """Do what ``python -m name argv...`` does; warm if possible. See ``Template.run_module``.

        The attributes are those of ``Template.fork``. A cancellation leaves no process.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Warm("calendar") as warm:
                    async with await warm.run_module("calendar", "2027", "1") as process:
                        assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._run("run_module", name, argv, attributes)

    async def run_script(self, path: Argument, /, *argv: Argument, **attributes: Unpack[Attributes]) -> Process:
        """Do what ``python path argv...`` does. See ``run_module``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                await anyio.Path("hello.py").write_text("print('hello')")
                async with aio.Warm("json") as warm, await warm.run_script("hello.py") as process:
                    assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._run("run_script", path, argv, attributes)

    async def run_code(self, source: str, /, *argv: Argument, **attributes: Unpack[Attributes]) -> Process:
        """Do what ``python -c source argv...`` does. See ``run_module``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Warm("json") as warm, await warm.run_code("import json") as process:
                    assert (await process.wait()).code == 0

            anyio.run(main)
        """
        return await self._run("run_code", source, argv, attributes)

    def report(self) -> WarmReport:
        """Return what is loaded and what that has saved, why a template was last made, and why a program was cold.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Warm("json") as warm:
                    await warm.fork()
                    print(warm.report())

            anyio.run(main)
        """
        return self._warm.report()

    def close(self) -> None:
        """Let the template end; what was forked from it goes on. Closing twice is harmless.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                warm = aio.Warm("json")
                template = await warm.fork()
                warm.close()
                await template.aclose()

            anyio.run(main)
        """
        self._warm.close()
        self._kept = None  # its last user closes it

    async def aclose(self) -> None:
        """Do the same as ``close``.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                warm = aio.Warm("json")
                await warm.aclose()

            anyio.run(main)
        """
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._warm)

    def _templates(self, call: str) -> list[TemplateHandle]:
        self._warm._check(call)
        generation, kept = self._warm._generation, self._kept
        if generation is None:
            raise ArgumentError(f"{call}(): the Warm has not made its template yet: await warm.template() before")
        own = [] if kept is None or kept[0] is not generation else [kept[1]]
        return [generation.template, *own]

    async def _in_thread(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        """Call a function that looks at the template in a thread. A cancelled caller does not wait for it.

        All of them need the same lock, so one thread at a time is enough. They take none from other uses of threads:
        under trio, a thread that a caller has left counts until it ends, which is when the template is made.
        """
        if self._loop is None or not self._loop.runs:
            self._loop, self._limiter = running_loop(), CapacityLimiter(1)
        return await run_sync(function, *args, abandon_on_cancel=True, limiter=self._limiter)

    async def _run(self, call: str, target: Argument, argv: Sequence[Argument], attributes: Any) -> Process:
        warm = self._warm
        try:
            made, generation = await self._in_thread(warm._begin, call, attributes)
            process, report = warm._take_over(Template.from_blocking(made), Process._of, call, target, argv)
            await process._ready_or_gone()
        except RemoteTemplateError:  # it was to run there
            raise
        except (NotWarmError, TemplateError, ForkError) as error:
            why = warm._why_not(error)
        else:
            warm._note_start(process, generation, report)
            return process
        cold: Process = await getattr(Template.new_exec(python=warm._python, **attributes), call)(target, *argv)
        note_cold(cold, why)
        return cold


class _Unborn:
    """What stands for the process of a worker before there is one."""

    pid = None

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        """Let there never be a process."""
        self.killed = True

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""


class WarmWorkerChannel(AsyncWorkerChannel):
    """The channel of a worker, to which any wait forks the worker if nothing has needed it before."""

    def __init__(self, warm: Warm, options: Options, calls: Calls) -> None:
        self._unborn = _Unborn()
        super().__init__(self._unborn, calls)  # type: ignore[arg-type]  # it has all that is used of it
        self._warm = warm
        self._options = options
        self._beginning = Lock()

    async def run(self, flow: Flow[Result]) -> Result:
        """Do the same as ``AsyncWorkerChannel.run``. Raises what prevents a template from being made, too."""
        self.check()
        if self._is_unborn:
            async with self._beginning:
                if self._is_unborn:
                    await self._fork()
        return await super().run(flow)

    @property
    def _is_unborn(self) -> bool:
        return isinstance(self.process, _Unborn)

    async def _fork(self) -> None:
        self._check_not_killed()
        template = await self._warm.fork()
        if template._link.receiver.remote is not self.calls.remote:
            template.close()
            raise ArgumentError("Worker() of a Warm for another machine: give it await warm.fork() instead")
        self._check_not_killed()
        self.process = start_worker(template, self._options, Process._of)

    def _check_not_killed(self) -> None:
        if self._unborn.killed:
            raise HandleError("the worker was killed, or closed, before it had begun: make a new one")

    async def prevent(self) -> None:
        """Let no worker begin any more, unless one has begun or is about to."""
        async with self._beginning:
            self._unborn.kill()

    async def put_down(self) -> None:
        """Kill the worker, and release the channel."""
        self._unborn.kill()
        if self._is_unborn:
            await self.drop()
        else:
            await super().put_down()


def receiver_of(warm: Warm) -> Receiver:
    """Return the receiver of values in processes of a Warm, as far as it is known before it has made a template."""
    generation = warm._warm._generation
    return ORDINARY if generation is None else generation.template._link.receiver
