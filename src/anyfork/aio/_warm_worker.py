"""The channel of a worker that is forked from a Warm when it is first needed: a new template may take long."""

from __future__ import annotations

from anyio import Lock

from .._calls.worker_handle import start_worker
from .._errors import ArgumentError, HandleError
from .._system.import_path import ORDINARY
from ._process import Process
from ._worker_channel import AsyncWorkerChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _anyfork_child.values.functions_by_value import Receiver

    from .._calls.calls import Calls
    from .._calls.flows import Flow
    from .._calls.worker_options import Options
    from .._processes.flows import Result
    from ._warm import Warm


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
