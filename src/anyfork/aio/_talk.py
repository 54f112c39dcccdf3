"""How tasks talk with a worker.

Of the tasks that wait for answers of one worker one reads, for all of them; the others wait until theirs has come, or
it is their turn to read. No task is started for it.
"""

from __future__ import annotations

import os
import select
import socket

from anyio import CancelScope, Event, move_on_after, wait_readable
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .. import _dialogue
from .._conversation import FATE, Conversation
from .._status import UNKNOWN
from ._waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._calls import Call, Calls
    from .._status import ExitStatus
    from ._process import Process

PIECE = 1 << 20  # bytes that are written into a file before other tasks go on


class Talk(Conversation):
    """The channel of one worker, for any number of tasks of one loop."""

    process: Process

    def __init__(self, process: Process, calls: Calls) -> None:
        super().__init__(process, calls)
        self._end = -1
        self._reading = False  # a task does
        self._waiting: dict[Event, Callable[[], bool]] = {}  # the other tasks: what wakes them, and what they want
        self._events: select.epoll | None = None  # what comes, and the end of the worker
        self._writes = False  # it is also watched whether the socket takes more

    async def connect(self) -> None:
        """Wait until the worker has been started. Raises why it has not."""
        self.check()
        if self.sock is not None:
            return
        link = self.process._link
        await run(_dialogue.enter(link, None))
        await run(_dialogue.birth(link))
        if self.sock is not None:  # another task was first
            return
        self._end = self.process.fileno()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, link.detach_control())
        self._events = select.epoll()
        self._events.register(self._end, select.EPOLLIN)
        self._events.register(self.sock, select.EPOLLIN)

    # --- Asking ---

    async def begin(self, call: Call) -> None:
        """Queue a call, and send what the socket takes. Waits while too many are queued."""
        message = call.message
        assert message is not None
        calls = self.calls
        try:
            if message.fills:
                await write_files(call)
            while calls.full:
                await self.wait(lambda: not calls.full)
        except BaseException:
            message.close()
            raise
        calls.add(call)
        self.flush()

    # --- Waiting ---

    async def wait(self, done: Callable[[], bool]) -> None:
        """Until it is done: read what comes, or wait until another task has."""
        await checkpoint_if_cancelled()
        if done():
            await cancel_shielded_checkpoint()
            return
        while not done():
            if self._reading:
                await self._wait_for_turn(done)
                continue
            self._reading = True
            try:
                while not done():
                    await self._read()
            finally:
                self._reading = False
                self._wake()

    async def _wait_for_turn(self, done: Callable[[], bool]) -> None:
        turn = Event()
        self._waiting[turn] = done
        try:
            await turn.wait()
        except BaseException:
            if self._waiting.pop(turn, None) is None:  # it was its turn to read
                self._wake()
            raise

    def _wake(self) -> None:
        """Wake those who have what they want, and one that reads on where nobody does."""
        for turn in [turn for turn, done in self._waiting.items() if done()]:
            del self._waiting[turn]
            turn.set()
        if not self._reading and self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.set()

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
                    try:
                        await answer
                    except Exception as error:
                        self.not_handled(event, error)
        if self._waiting:
            self._wake()

    async def _ended(self) -> bool:
        """Read what comes next; True at the end of the stream."""
        assert self._events is not None
        while True:
            if self._writes != bool(self.calls.out):
                self._watch_writes(not self._writes)
            await wait_readable(self._events.fileno())
            if self.calls.out:
                self.flush()
            try:
                return not self.receive()
            except BlockingIOError:
                if any(fd == self._end for fd, _ in self._events.poll(0)):
                    return True  # and something else still holds its end of the channel

    def _watch_writes(self, watch: bool) -> None:
        assert self._events is not None
        assert self.sock is not None
        self._events.modify(self.sock, select.EPOLLIN | select.EPOLLOUT if watch else select.EPOLLIN)
        self._writes = watch

    # --- The end ---

    async def _bury(self) -> None:
        """The channel has come to its end: so has the worker."""
        status = UNKNOWN
        with CancelScope(shield=True):
            with move_on_after(FATE):
                status = await self.process.wait()
            if not status.known:  # it goes on without its channel, or its template is stopped
                self.process.kill()
        self.died(status)

    async def finish(self) -> ExitStatus:
        """Wait for all answers, let the worker end, and wait until it has."""
        calls = self.calls
        await self.wait(lambda: not calls.outstanding or calls.failure is not None)
        if calls.failure is None:
            self.shut()
        return await self.listen()

    async def listen(self) -> ExitStatus:
        """Take what comes until the worker has ended; return how."""
        await self.wait(lambda: self.calls.failure is not None)
        return await self.process.wait()

    async def drop(self) -> None:
        """Let go of what this holds."""
        self.let_go()
        await self.process.aclose()

    def let_go(self) -> None:
        """The same, as far as it takes no waiting."""
        self.close_unread()
        if self._events is not None:
            self._events.close()
            self._events = None
        if self.sock is not None:
            self.sock.close()

    def __del__(self) -> None:
        self.let_go()


async def write_files(call: Call) -> None:
    """Write the files of a call, piece by piece, and let other tasks go on in between."""
    message = call.message
    assert message is not None
    for fd, parts in message.fills:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest[:PIECE]) :]
                if rest:
                    await checkpoint()
    message.seal_files()
