"""How tasks talk with a worker.

Of the tasks that wait for answers of one worker one reads, for all of them; the others wait until theirs has come, or
it is their turn to read. No task is started for it.
"""

from __future__ import annotations

import socket
from _pickle import loads

from anyio import CancelScope, get_current_task, move_on_after
from anyio import Event as Turn
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from _anyfork_child.wire.channel import NOWAIT

from .._calls.call import State
from .._calls.worker_channel import FATE, Conversation
from .._processes import flows
from .._processes.undelivered import destructor
from .._status import UNKNOWN
from ._readiness import Readiness
from ._waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from anyio import TaskInfo

    from _anyfork_child.values.message import Message

    from .._calls.call import Answer, Call, Event
    from .._calls.calls import Calls
    from .._status import ExitStatus
    from ._process import Process


class Talk(Conversation):
    """The channel of one worker, for any number of tasks of one loop."""

    process: Process

    def __init__(self, process: Process, calls: Calls) -> None:
        super().__init__(process, calls)
        self._reading = False  # a task does
        self._handling: TaskInfo | None = None  # the task that reads is in an async handler of an event
        # The other tasks: what wakes them, and what they want, if it is no call.
        self._waiting: dict[Turn, Callable[[], bool] | None] = {}
        self._readiness: Readiness | None = None  # of what comes, and of the end of the worker
        self._channel: socket.socket | None = None

    async def connect(self) -> None:
        """Wait until the worker has been started. Raises why it has not."""
        self.check()
        if self.sock is not None:
            return
        link = self.process._link
        await run(flows.enter(link, None))
        await run(flows.birth(link))
        if self.sock is not None:  # another task was first
            return
        end = self.find_end()
        link.give_control(socket.socket, self, "_channel")
        assert self._channel is not None
        self.use(self._channel, end)
        assert self.watch is not None
        self._readiness = Readiness(self.watch)

    # --- Asking ---

    async def begin(self, call: Call) -> None:
        """Queue a call, and send what the socket takes. Waits while too many are queued."""
        message = call.message
        assert message is not None
        calls = self.calls
        try:
            if message.fills:
                await write_files(message)
            while calls.full:
                await self.wait(self._has_room)
        except BaseException:
            message.close()
            raise
        calls.add(call)
        self.flush()
        if self._waiting and not calls.full:
            self._wake()

    def _has_room(self) -> bool:
        return not self.calls.full

    async def exchange(
        self, function: Callable[..., object] | str, args: Sequence[object]
    ) -> tuple[bool, Any, BaseException | None]:
        """Send a small call that meets no other, and take its answer, in as few steps as can be.

        True, and its result; False, and the call, where the rest takes more, or what has interrupted it; False, and
        None, where nothing was done.
        """
        if self._reading or self.sock is None or self.incoming or self.foreign:
            return False, None, None
        if not self.begin_small(function, args):
            return False, None, None
        assert self._readiness is not None
        self._reading = True
        answer: bytes | None = None
        interrupted: BaseException | None = None
        try:
            await self._readiness.wait()
            answer = self.read_small(NOWAIT)
        except (BlockingIOError, ConnectionError):  # its end: whoever reads next learns why
            pass
        except BaseException as error:
            interrupted = error
        self._reading = False
        call = self.end_small(answer)
        if self._waiting:
            self._wake()
        if answer is not None:
            return True, loads(answer), None
        if call is None and interrupted is None:
            self.calls.check(may_have_run=True)
        return False, call, interrupted

    # --- Waiting ---

    async def wait_for(self, call: Answer) -> None:
        """Until a call is done."""
        await self.wait(lambda: call.state == State.DONE, call)

    async def wait(self, done: Callable[[], bool], call: Answer | None = None) -> None:
        """Until it is done: read what comes, or wait until another task has. Who waits for a call is woken by it."""
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
            self._reading = True
            try:
                while not done():
                    await self._read()
            finally:
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
            if turn.is_set():  # it may have been its turn to read
                self._waiting.pop(turn, None)
                self._wake()
            raise
        finally:
            self._waiting.pop(turn, None)
            if call is not None:
                call.wake = None

    def _wake(self) -> None:
        """Wake those who have what they want, and one that reads on where nobody does."""
        room = self._has_room()  # for one: who gets it wakes the next
        for turn, done in self._waiting.items():
            if done is None or turn.is_set():
                continue
            if done == self._has_room:
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
        """Wait for something to come, and take all that has come. Raises what a handler raises."""
        if not self.incoming and await self._ended():
            await self._bury()
            return
        while self.incoming:
            event = self.take()
            if event is not None:
                answer = self.handle(event)
                if hasattr(answer, "__await__"):
                    await self.await_handler(event, answer)
        if self._waiting:
            self._wake()

    async def await_handler(self, event: Event, answer: Awaitable[object]) -> None:
        """Whoever reads may be cancelled while it awaits the handler of another call, which must not suffer from it."""
        before, self._handling = self._handling, get_current_task()
        try:
            with CancelScope(shield=True):
                await answer
        except Exception as error:
            self.not_handled(event, error)
        finally:
            self._handling = before

    async def _ended(self) -> bool:
        """Read what comes next; True at the end of the stream."""
        assert self._readiness is not None
        while True:
            await self._readiness.wait()
            came = self.came()
            if came is not None:
                return not came

    # --- The end ---

    async def _bury(self) -> None:
        """The channel has come to its end: so has the worker."""
        self.died(await self.fate())

    async def fate(self) -> ExitStatus:
        """How the worker has ended whose channel has come to its end."""
        status = UNKNOWN
        with CancelScope(shield=True):
            with move_on_after(FATE):
                status = await self.process.wait()
            if not status.known:  # it goes on without its channel, or its template is stopped
                self.process.kill()
        return status

    async def finish(self) -> ExitStatus:
        """Wait for all answers, let the worker end, and wait until it has."""
        calls = self.calls
        calls.give_up_streams()
        self.flush()
        await self.wait(lambda: not calls.outstanding or calls.failed)
        self.shut()
        return await self.listen()

    async def listen(self) -> ExitStatus:
        """Take what comes until the worker has ended; return how."""
        await self.wait(lambda: self.calls.failed)
        return await self.process.wait()

    async def drop(self) -> None:
        """Let go of what this holds."""
        self.let_go()
        await self.process.aclose()

    def let_go(self) -> None:
        """The same, as far as it takes no waiting."""
        self.calls.drop()
        self.close_unread()
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        self.close_channel()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_channel"):  # otherwise an interrupt has come while it was made
            self.let_go()


async def write_files(message: Message) -> None:
    """Write the files of a message, and let other tasks go on in between."""
    for _ in message.write_stepwise():
        await checkpoint()
