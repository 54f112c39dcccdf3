"""How tasks talk with a worker.

Of the tasks that wait for answers of one worker one reads, for all of them; the others wait until theirs has come, or
it is their turn to read. No task is started for it.
"""

from __future__ import annotations

import os
import select
import socket
from _pickle import loads

from anyio import CancelScope, Event, move_on_after
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from _anyfork_child._call_wire import HEADER, HEADER_SIZE, READ_SIZE, RESULT
from _anyfork_child._channel import CLOEXEC, NOSIGNAL, NOWAIT, ROOM, unpack_descriptors
from _anyfork_child._message import Message

from .. import _dialogue
from .._conversation import FATE, Conversation
from .._pending import State
from .._status import UNKNOWN
from ._readiness import Readiness
from ._waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._calls import Calls
    from .._pending import Answer, Call
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
        # The other tasks: what wakes them, and what they want, if it is no call.
        self._waiting: dict[Event, Callable[[], bool] | None] = {}
        self._readiness: Readiness | None = None  # of what comes, and of the end of the worker
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
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, link.detach_control())
        events = select.epoll()
        events.register(self._end, select.EPOLLIN)
        events.register(sock, select.EPOLLIN)
        self._readiness = Readiness(events)
        self.use(sock)

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
                await self.wait(lambda: not calls.full)
        except BaseException:
            message.close()
            raise
        calls.add(call)
        self.flush()

    async def exchange(
        self, function: Callable[..., object] | str, args: Sequence[object]
    ) -> tuple[bool, Any, BaseException | None]:
        """Send a small call that meets no other, and take its answer, in as few steps as can be.

        True, and its result; False, and the call, where the rest takes more, or what has interrupted it; False, and
        None, where nothing was done.
        """
        calls, sock = self.calls, self.sock
        if self._reading or sock is None or self.incoming or self._owner != os.getpid():
            return False, None, None
        begun = calls.begin_small(function, args)
        if begun is None:
            return False, None, None
        number, data = begun
        self._reading = True
        answered, interrupted = False, None
        call: Call | None = None
        try:
            sent = sock.send(data, NOWAIT | NOSIGNAL)
            if sent < len(data):
                calls.out.append(Message(data[sent:]))
            else:
                await self._readable()
                data, ancillary, got, _ = sock.recvmsg(READ_SIZE, ROOM, NOWAIT | CLOEXEC)
                if not ancillary and len(data) >= HEADER_SIZE and self.inbox.idle:
                    answered = HEADER.unpack_from(data) == (len(data) - HEADER_SIZE, number, 0, RESULT, 0, 0)
                if not answered and data:
                    self.accept(data, unpack_descriptors(ancillary[0][2]) if ancillary else (), got)
        except (BlockingIOError, ConnectionError):  # its end: whoever reads next learns why
            pass
        except BaseException as error:
            interrupted = error
        self._reading = False
        if answered:
            calls.end_small(number)
            if calls.out:
                self.flush()
        elif calls.failure is None:
            call = calls.expect(number)
        if self._waiting:
            self._wake()
        return (True, loads(data[HEADER_SIZE:]), None) if answered else (False, call, interrupted)

    async def _readable(self) -> None:
        assert self._readiness is not None
        await self._readiness.wait()

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
        turn = Event()
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
        for turn, done in self._waiting.items():
            if done is not None and not turn.is_set() and done():
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
                    try:
                        await answer
                    except Exception as error:
                        self.not_handled(event, error)
        if self._waiting:
            self._wake()

    async def _ended(self) -> bool:
        """Read what comes next; True at the end of the stream."""
        assert self._readiness is not None
        while True:
            if self._writes != bool(self.calls.out):
                self._watch_writes(not self._writes)
            await self._readiness.wait()
            if self.calls.out:
                self.flush()
            try:
                return not self.receive()
            except BlockingIOError:
                if any(fd == self._end for fd, _ in self._readiness.events.poll(0)):
                    return True  # and something else still holds its end of the channel

    def _watch_writes(self, watch: bool) -> None:
        assert self._readiness is not None
        assert self.sock is not None
        self._readiness.events.modify(self.sock, select.EPOLLIN | select.EPOLLOUT if watch else select.EPOLLIN)
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
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        if self.sock is not None:
            self.sock.close()

    def __del__(self) -> None:
        self.let_go()


async def write_files(message: Message) -> None:
    """Write the files of a message, piece by piece, and let other tasks go on in between."""
    for fd, parts in message.fills:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest[:PIECE]) :]
                if rest:
                    await checkpoint()
    message.seal_files()
