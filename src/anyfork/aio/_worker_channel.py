"""The channel between the tasks of an event loop and a worker.

Of the tasks that wait for answers of one worker, one reads for all of them. The others wait until their answers have
come, or until it is their turn to read. No extra task is started for that.
"""

from __future__ import annotations

import socket
from functools import partial
from time import monotonic

from anyio import Event as Turn
from anyio import get_current_task, move_on_after
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.channel import NOWAIT

from .._calls import flows
from .._calls.call import DONE
from .._calls.worker_channel import WorkerChannel
from .._processes.flows import put_down
from .._processes.undelivered import RETRY, destructor
from ._loop import Readiness
from ._waiting import follow, run, shielded, wait_for_process, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    from anyio import TaskInfo

    from _anyfork_child.values.message import Message

    from .._calls.call import Answer, Call
    from .._calls.calls import Calls
    from .._calls.events import Event
    from .._status import ExitStatus
    from ._loop import Loop
    from ._process import Process

    Result = TypeVar("Result")


class AsyncWorkerChannel(WorkerChannel):
    """The channel of one worker, for any number of tasks of one loop."""

    process: Process

    def __init__(self, process: Process, calls: Calls) -> None:
        super().__init__(process, calls)
        self._reading = False  # a task reads now
        self._handling: TaskInfo | None = None  # the task that reads, while it awaits the handler of an event
        # The other tasks: the event that wakes each, and its condition if it does not wait for a call.
        self._waiting: dict[Turn, Callable[[], bool] | None] = {}
        self._readiness: Readiness | None = None  # of messages, and of the end of the worker
        self._retries = False  # ``_retry`` will be called soon
        self._channel: socket.socket | None = None

    async def connect(self) -> None:
        """Wait until the worker has been started, and use its channel; see ``flows.connect``."""
        if self.sock is None:
            await self.run(flows.connect(self, None))
        else:
            self.check()

    async def run(self, flow: flows.Flow[Result]) -> Result:
        """Run a flow of this worker. Raises the exceptions of the flow."""
        return await run(flow, self._wait_for)

    def follow(self, flow: flows.Flow[Result]) -> Coroutine[Any, Any, Result]:
        """Run a flow of a worker that has been started. Other tasks go on meanwhile only if it waits."""
        return follow(flow, self._wait_for)

    async def _wait_for(self, *need: Any) -> bool:
        if len(need) > 2:
            return await wait_for_process(*need)
        if need:
            await self.wait(*need)
        else:
            await checkpoint()
        return True

    def open_channel(self) -> None:
        """Use the channel of a worker that has been started, unless another task has done so."""
        if self.sock is None:
            end = self.find_end()
            self.process._link.give_control(socket.socket, self, "_channel")
            assert self._channel is not None
            self.use(self._channel, end)

    def _watching(self) -> Readiness:
        if self._readiness is None:
            assert self.watch is not None
            self._readiness = Readiness(self.watch)
        return self._readiness

    def whole(self, step: Callable[[], Result]) -> Result:
        """Take a step, which must not be half done: if an exception interrupts it, the worker ends, and its calls fail.

        Otherwise a message might be lost, and a task would wait for it for ever.
        """
        try:
            return step()
        except BaseException as error:
            self.tear(error)
            raise

    when_free = whole  # one thread runs the tasks, and destructors in the middle of them

    # --- Sending calls ---

    async def begin(self, call: Call) -> None:
        """Queue a call, and send as much as the socket takes; see ``flows.begin``."""
        if not self.begin_at_once(call):
            await self.follow(flows.begin(self, call))
        if self._waiting and not self.calls.full:
            self._wake()

    async def exchange(
        self, function: Callable[..., object] | str, args: Sequence[object]
    ) -> tuple[bool, Any, BaseException | None]:
        """Send a small call while no other task uses the channel, and read its answer, in as few steps as possible.

        Return True and the result. If that takes more than these steps, return False, the call to wait for, and the
        exception that has interrupted this method, if there is one. If nothing was done, return False and None.
        """
        if self._reading or self.sock is None or self.incoming or self.foreign or self.torn:
            return False, None, None
        try:
            if not self.begin_small(function, args):
                return False, None, None
            self._reading = True
            answer: bytes | None = None
            interrupted: BaseException | None = None
            try:
                await self._watching().wait()
                answer = self.whole(partial(self.read_small, NOWAIT))
            except (BlockingIOError, ConnectionError):  # the end of the channel: the next reader learns why
                pass
            except BaseException as error:
                interrupted = error
            self._reading = False
            call = self.end_small(answer)
        except BaseException as error:
            self.tear(error)
            self._end_reading()
            raise
        if self._waiting:
            self._wake()
        if answer is not None:
            return True, load_plain(answer), None
        if call is None and interrupted is None:
            self.calls.check(may_have_run=True)
        return False, call, interrupted

    # --- Waiting ---

    async def wait_for(self, call: Answer) -> None:
        """Wait until a call is done."""
        await self.wait(lambda: call.state is DONE, call)

    async def wait(self, done: Callable[[], bool], call: Answer | None = None) -> None:
        """Wait until ``done()`` is true: read messages, or wait while another task reads them.

        If ``call`` is given, its answer wakes the task.
        """
        await checkpoint_if_cancelled()
        if done():
            await cancel_shielded_checkpoint()
            return
        while not done():
            if self._reading:
                if self._handling is not None and self._handling == get_current_task():
                    await self._read()  # the handler of an event makes a call
                else:
                    await self._wait_for_turn(done, call)
                continue
            try:
                try:
                    self._reading = True
                    while not done():
                        await self._read()
                finally:
                    self._end_reading()
            except BaseException:
                self._end_reading()  # again: an interrupt may have come in the middle of it
                raise

    def _end_reading(self) -> None:
        self._reading = False
        self._wake()

    async def _wait_for_turn(self, done: Callable[[], bool], call: Answer | None) -> None:
        turn = Turn()
        self._waiting[turn] = done if call is None else None
        if call is not None:
            call.wake = turn.set
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # perhaps because it is this task's turn to read: wake another one
                self._waiting.pop(turn, None)
                self._wake()
            raise
        finally:
            self._waiting.pop(turn, None)
            if call is not None:
                call.wake = None

    def _wake(self) -> None:
        """Wake the tasks whose conditions are met; if no task reads, also wake one to read on."""
        room = self.has_room()  # for one task, which then wakes the next
        for turn, done in self._waiting.items():
            if done is None or turn.is_set():
                continue
            if done == self.has_room:
                if room:
                    turn.set()
                    room = False
            elif done():
                turn.set()
        if not self._reading:
            for turn in self._waiting:
                if not turn.is_set():
                    turn.set()
                    return

    async def _read(self) -> None:
        """Wait for messages, and process all that have come. Raises the exceptions of handlers."""
        if self.torn or (not self.incoming and await self._ended()):
            await self._bury()
            return
        while self.incoming:
            event = self.whole(self.take)
            if event is not None:
                answer = event.handle()
                if hasattr(answer, "__await__"):
                    await self.await_handler(event, answer)
        if self._waiting:
            self._wake()

    async def await_handler(self, event: Event, answer: Awaitable[object]) -> None:
        """Await the handler of an event, shielded from cancellation.

        The task that reads may be cancelled while it awaits the handler of another task's call, which must not suffer
        from that.
        """
        before, self._handling = self._handling, get_current_task()
        try:
            await shielded(lambda: answer)
        except Exception as error:
            event.not_handled(error)
        finally:
            self._handling = before

    def retry_soon(self, loop: Loop) -> None:
        """Let the reader wake after RETRY if messages are unsent and polling is no use."""
        if self.stalled and not self._retries:
            self._retries = True
            loop.at(monotonic() + RETRY, self._retry)

    def _retry(self) -> None:
        self._retries = False
        if self.stalled:
            self.watch_writes(wanted=True)

    async def _ended(self) -> bool:
        """Read the next data. Return True at the end of the stream."""
        readiness = self._watching()
        while True:
            if self.stalled:
                await within(move_on_after(RETRY), readiness.wait)
            else:
                await readiness.wait()
            came = self.whole(self.came)
            if came is not None:
                return not came

    # --- The end ---

    async def _bury(self) -> None:
        """Record the end of the worker, after the end of its channel."""
        self.died(await self.fate())

    async def fate(self) -> ExitStatus:
        """Return the worker's exit status after its channel has ended; kill it if none is known in time."""
        return await shielded(self.run, flows.fate(self))

    async def prevent(self) -> None:
        """Let no worker begin any more that has not begun. Does nothing here; see aio._warm."""

    async def put_down(self) -> None:
        """Kill the worker, and release the channel."""
        await run(put_down(self.process._link))
        await self.drop()

    async def drop(self) -> None:
        """Release the channel and the process handle."""
        self.let_go()
        await self.process.aclose()

    def let_go(self) -> None:
        """Release the channel, without waiting."""
        self.calls.drop()
        self.close_unread()
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        elif self.watch is not None:
            self.watch.close()
        self.close_channel()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_channel"):  # otherwise an interrupt has stopped ``__init__``
            self.let_go()


async def write_files(message: Message) -> None:
    """Write the files of a message, and let other tasks run in between."""
    for _ in message.write_stepwise():
        await checkpoint()
