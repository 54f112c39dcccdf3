"""The channel between the tasks of an event loop and a worker.

Of the tasks that wait for answers of one worker, one reads for all of them. The others wait until their answers have
come, or until it is their turn to read. No extra task is started for that.
"""

from __future__ import annotations

import socket
from collections import deque
from functools import partial
from time import monotonic

from anyio import Event as Turn
from anyio import move_on_after
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.channel import NOWAIT

from .._calls import flows
from .._calls.call import DONE
from .._calls.worker_channel import WorkerChannel
from .._processes.flows import put_down
from .._processes.undelivered import RETRY, destructor
from ._awaited_events import await_handler
from ._loop import Readiness
from ._waiting import follow, run, shielded, wait_for_process, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    from _anyfork_child.values.message import Message

    from .._calls.call import Answer, Call
    from .._calls.calls import Calls
    from .._calls.events import Event
    from .._status import ExitStatus
    from ._loop import Loop
    from ._process import Process

    Result = TypeVar("Result")


class _Handling:
    """The events of one receiver, of which a handler runs now."""

    __slots__ = ("done", "events")

    def __init__(self, event: Event) -> None:
        self.events: deque[Event] = deque([event])
        self.done = Turn()


class AsyncWorkerChannel(WorkerChannel):
    """The channel of one worker, for any number of tasks of one loop."""

    process: Process

    def __init__(self, process: Process, calls: Calls) -> None:
        super().__init__(process, calls)
        self._reader: object = None  # the wait that reads now; none while it awaits the handler of an event
        self._handling: dict[object, _Handling] = {}  # by receivers of the events whose handlers run now
        self._put_off: deque[Event] = deque()  # events that were left when an interrupt or a cancellation came
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
        if self._reader or self.sock is None or self.incoming or self.foreign or self.torn:
            return False, None, None
        try:
            if not self.begin_small(function, args):
                return False, None, None
            self._reader = self
            answer: bytes | None = None
            interrupted: BaseException | None = None
            try:
                await self._watching().wait()
                answer = self.whole(partial(self.read_small, NOWAIT))
            except (BlockingIOError, ConnectionError):  # the end of the channel: the next reader learns why
                pass
            except BaseException as error:
                interrupted = error
            self._reader = None
            call = self.end_small(answer)
        except BaseException as error:
            self.tear(error)
            self._end_reading(self)
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
        """Wait until a call is done, and all its events were handled."""
        await self.wait(lambda: call.state is DONE, call)
        while (handling := self._handling.get(call)) is not None:
            await handling.done.wait()

    async def wait(self, done: Callable[[], bool], call: Answer | None = None) -> None:
        """Wait until ``done()`` is true: read messages, or wait while another task reads them.

        If ``call`` is given, its answer wakes the task.
        """
        await checkpoint_if_cancelled()
        if done():
            await cancel_shielded_checkpoint()
            return
        me = object()
        while not done():
            if self._reader:
                await self._wait_for_turn(done, call)
                continue
            try:
                try:
                    self._reader = me
                    while self._reader is me and not done():
                        await self._read(me, call)
                finally:
                    self._end_reading(me)
            except BaseException:
                self._end_reading(me)  # again: an interrupt may have come in the middle of it
                raise

    def _end_reading(self, me: object) -> None:
        if self._reader is me:
            self._reader = None
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
        if not self._reader:
            for turn in self._waiting:
                if not turn.is_set():
                    turn.set()
                    return

    async def _read(self, me: object, call: Answer | None) -> None:
        """Wait for messages, and process all that have come, until a handler has to be awaited."""
        while self._put_off and self._reader is me:
            await self._handle(self._put_off.popleft(), me, call)
        if self._reader is not me:
            return
        if self.torn or (not self.incoming and await self._ended()):
            await self._bury()
            return
        while self.incoming and self._reader is me:
            event = self.whole(self.take)
            if event is not None:
                await self._handle(event, me, call)
        if self._waiting:
            self._wake()

    async def _handle(self, event: Event, me: object, call: Answer | None) -> None:
        """Handle an event, and those of the same receiver that come while its handler is awaited."""
        receiver = event.receiver
        if receiver in self._handling:
            self._handling[receiver].events.append(event)
            return
        try:
            try:
                self._handling[receiver] = handling = _Handling(event)
                while handling.events:
                    event = handling.events.popleft()
                    answer = self.handle_event(event)
                    if hasattr(answer, "__await__"):
                        self._end_reading(me)  # the handler may wait for a call, and the task of that reads then
                        await self._await_handler(event, answer, own=call is not None and receiver is call)
            finally:
                self._end_handling(receiver)
        except BaseException:
            self._end_handling(receiver)  # again: an interrupt may have come in the middle of it
            raise

    def _end_handling(self, receiver: object) -> None:
        handling = self._handling.pop(receiver, None)
        if handling is not None:
            self._put_off.extend(handling.events)
            handling.done.set()

    async def _await_handler(self, event: Event, answer: Awaitable[object], own: bool) -> None:
        """Await the handler of an event, shielded from cancellation unless it is of the call of this task.

        The task that reads may be cancelled while it awaits the handler of another task's call, which must not suffer
        from that.
        """
        await await_handler(event, answer if own else shielded(lambda: answer))

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
