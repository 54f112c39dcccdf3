"""The channel to a worker, shared by the threads of its owner.

Of the threads that wait for answers of one worker, one reads for all of them; the others wait until their answers have
come, or it is their turn to read. No thread is started for this.

A signal handler or a destructor may use the worker in the middle of all this. It may do so while its thread waits. In
the middle of a section, in which the state of the calls is half updated, it gets an error. An exception that interrupts
a section leaves it torn: it is unknown what was sent and what was not, so the worker ends. An exception that comes
before a section has begun, or while the thread looks whether its wait is done, leaves the worker as it was.
"""

from __future__ import annotations

import _thread
from _socket import SO_RCVTIMEO, SOL_SOCKET
from _struct import Struct
from _thread import RLock
from collections import deque
from functools import partial, wraps
from select import POLLIN
from sys import modules

from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.call_messages import READ_SIZE
from _anyfork_child.wire.channel import ROOM
from _anyfork_child.wire.platform import CLOEXEC
from _anyfork_child.wire.signals import comes_from_outside

from .._calls import flows
from .._calls.call import DONE
from .._calls.worker_channel import WorkerChannel
from .._errors import HandleError
from .._processes.undelivered import RETRY, destructor
from .._system import this_process
from .._system.locks import do_locked, held, locked, release_to, try_locked
from .._system.polling import wait_for
from .._system.timeouts import one_wait, remaining
from .waiting import new_alarm, run, wait_for_process, warn_in_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from _thread import LockType
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar, TypeVarTuple

    from _anyfork_child.wire.descriptors import Owned

    from .._calls.call import Answer, Call
    from .._calls.calls import Calls
    from .._calls.events import Event
    from .._status import ExitStatus
    from .process import Process

    Args = TypeVarTuple("Args")
    Result = TypeVar("Result")


SOON = Struct("ll").pack(0, 40_000)  # a struct timeval: how long ``exchange`` waits for an answer


def section(
    method: Callable[[BlockingWorkerChannel, *Args], Result],
) -> Callable[[BlockingWorkerChannel, *Args], Result]:
    """Let a method run alone, and as a whole.

    Raises HandleError in the middle of another section of the same thread.
    """

    @wraps(method)
    def run_alone(self: BlockingWorkerChannel, /, *args: *Args) -> Result:
        lock, began = self.lock, False
        if lock._is_owned():  # type: ignore[attr-defined]  # missing in the type stubs
            raise self.reentered()
        try:
            try:  # as in _system.locks
                lock.acquire()
                began = True
                result = method(self, *args)
                lock.release()
            except BaseException:
                release_to(lock, 0)
                raise
        except BaseException as error:
            if began:
                self.tear(error)
            release_to(lock, 0)
            raise
        return result

    return run_alone


class Turn:
    """A wait of a thread for its turn to read, or until ``done`` is true."""

    __slots__ = ("done", "lock")

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self.lock: LockType = _thread.allocate_lock()

    def end(self) -> None:
        """Let the thread go on. Ending twice is harmless."""
        if self.lock.locked():
            self.lock.release()


class BlockingWorkerChannel(WorkerChannel):
    """The channel of one worker, for any number of threads."""

    process: Process

    def __init__(self, process: Process, calls: Calls) -> None:
        super().__init__(process, calls)
        self.lock: RLock = RLock()  # protects the calls, and writing
        self._reader = 0  # the thread that reads, or 0
        self._waiting: dict[Turn, None] = {}  # the other threads
        self._received: list[Any] = []  # data that ``exchange`` received, not accepted yet
        self._small_call: Call | None = None  # the call of ``exchange``, if another wait has to take its answer
        # The events that have come for the receivers whose handlers run now: they nest only for different receivers.
        self._handling: dict[object, deque[Event]] = {}
        self._put_off: deque[Event] = deque()  # events that were left when an interrupt came
        self._late: list[Callable[[], None]] = []  # actions that destructors could not run at once
        self._alarm: Owned | None = None  # wakes a wait after another wait inside it

    def check(self) -> None:
        """Raise HandleError in a forked copy of the owner. Let the worker end if a section was torn."""
        super().check()
        if self.torn and not self.calls.failed:
            self._bury()

    def reentered(self) -> HandleError:
        """Return the error for a use in the middle of a section of the same thread."""
        return HandleError(
            f"worker {self.process.pid} was used by a signal handler or a destructor in the middle of another use "
            "by the same thread; use it later, or another worker"
        )

    def connect(self, deadline: float | None = None) -> None:
        """Wait until the worker has been started, and use its channel; see ``flows.connect``."""
        if self.sock is None:
            self.run(flows.connect(self, deadline))
        else:
            self.check()

    def run(self, flow: flows.Flow[Result], deadline: float | None = None) -> Result:
        """Run a flow of this worker. Raises what the flow raises, and TimeoutError."""
        return run(flow, partial(self._wait_for, deadline))

    def _wait_for(self, deadline: float | None, *need: Any) -> bool:
        if len(need) > 2:
            return wait_for_process(*need)
        if need:
            self.wait(need[0], deadline)
        return True

    def open_channel(self) -> None:
        """Use the channel of a worker that has been started, unless that was done."""
        self._open(self.process.channel, self.find_end())

    @section
    def _open(self, sock: socket.socket, end: int) -> None:
        if self.sock is None:
            sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, SOON)
            self.use(sock, end)

    # --- Steps that are taken as a whole ---

    @section
    def whole(self, step: Callable[[], Result]) -> Result:
        """Take a step in a section."""
        return step()

    def begin(self, call: Call, deadline: float | None = None) -> None:
        """Queue a call, and send what the socket takes; see ``flows.begin``. Raises TimeoutError."""
        if not self.begin_at_once(call):
            self.run(flows.begin(self, call), deadline)

    def do(self, action: Callable[[], None]) -> None:
        """Run an action now, or soon if the thread is in the middle of a section."""
        if held(self.lock):
            self._late.append(action)
        else:
            self.whole(action)

    def when_free(self, action: Callable[[], None]) -> None:
        """Run an action now, or soon if a thread is in a section.

        This is for destructors, which run in the middle of anything.
        """
        if self.foreign:
            return
        self._late.append(action)
        if not held(self.lock):
            try_locked(self.lock, self._do_late)

    def _do_late(self) -> None:
        while self._late:
            self._late.pop()()

    # --- A small call while no other is under way, in as few steps as possible ---

    def exchange(
        self,
        function: Callable[..., object] | str,
        args: Sequence[object],
        give_up: Callable[[Call, BaseException, None], None],
    ) -> tuple[bool, Any]:
        """Send a small call while no other is under way, and receive its answer.

        Return True and the result; False and the call if the answer needs a longer wait; False and None if nothing was
        done.
        """
        if "asyncio" in modules:
            warn_in_loop()
        if self._reader or self.sock is None or self.incoming or self.torn or self._late:
            return False, None
        if self.owner != this_process.pid:
            return False, None
        me = _thread.get_ident()
        try:
            if not self._begin_exchange(me, function, args):
                return False, None
            try:
                # Waits for SOON at most. The result is kept in the same step, see _system.locks.
                self._received.extend(map(self.sock.recvmsg, (READ_SIZE,), (ROOM,), (CLOEXEC,)))
            except (BlockingIOError, ConnectionError) as error:  # too late, or its end: the next reader learns why
                if comes_from_outside(error):
                    raise
            answer, call = self._end_exchange(me)
        except BaseException as error:
            if self._reader == me:
                self._interrupt_exchange(me, error, give_up)
            raise
        if answer is not None:
            return True, load_plain(answer)
        if call is None:
            self.calls.check(may_have_run=True)
        return False, call

    @section
    def _begin_exchange(self, me: int, function: Callable[..., object] | str, args: Sequence[object]) -> bool:
        if self._reader or self.sock is None or self.incoming:
            return False
        if not self.begin_small(function, args):
            return False
        self._reader = me
        return True

    @section
    def _end_exchange(self, me: int) -> tuple[bytes | None, Call | None]:
        answer: bytes | None = None
        if self._small_call is None:
            answer = self.accept_small(self._received)
            call = self.end_small(answer)
        else:  # a signal handler has read meanwhile
            assert self.sock is not None
            call, self._small_call = self._small_call, None
            self.sock.setblocking(True)
        if self._reader == me:
            self._reader = 0
            if self._waiting:
                self._wake()
        return answer, call

    def _interrupt_exchange(
        self, me: int, error: BaseException, give_up: Callable[[Call, BaseException, None], None]
    ) -> None:
        """Give up the call of ``exchange`` after an exception during the wait for its answer."""
        try:
            call = None if self.torn or self.calls.failed else self._end_exchange(me)[1]
            self._leave(0, me, None)
            if call is not None:
                give_up(call, error, None)
        finally:
            del error  # see raise_given_up

    # --- Waiting ---

    def wait(self, done: Callable[[], bool], deadline: float | None = None) -> None:
        """Wait until ``done`` is true: read messages, or let another thread read them. Raises TimeoutError."""
        if "asyncio" in modules:
            warn_in_loop()
        self.check()
        me, turn = _thread.get_ident(), Turn(done)
        before = me if self._reader == me else 0  # a handler of an event or a signal waits inside another wait
        try:
            try:
                self._wait(turn, me, deadline)
            finally:
                self._leave(before, me, turn)
        except BaseException:
            self._leave(before, me, turn)  # again: an interrupt may have come in the middle of it
            raise

    def _wait(self, turn: Turn, me: int, deadline: float | None) -> None:
        while True:
            reads = self._look(turn, me)
            if reads is None:
                return
            left = remaining(deadline)
            if reads:
                self._read(left)
            else:
                turn.lock.acquire(timeout=one_wait(left))
            if left == 0.0 and not turn.done():
                raise TimeoutError

    def _look(self, turn: Turn, me: int) -> bool | None:
        """Return whether this thread reads the channel, or None if its wait is done. ``_leave`` undoes what it notes.

        Raises HandleError in the middle of a section of the same thread.
        """
        if held(self.lock):
            raise self.reentered()
        return do_locked(self.lock, self._look_alone, turn, me)

    def _look_alone(self, turn: Turn, me: int) -> bool | None:
        if self._late or self.calls.small or self._received:
            self._catch_up(me)
        if turn.done():
            return None
        self.calls.check(may_have_run=True)
        if self._reader in (0, me):
            self._reader = me
            return True
        turn.lock.acquire(blocking=False)
        self._waiting[turn] = None
        return False

    def _catch_up(self, me: int) -> None:
        """Do what destructors could not do at once, and take over an interrupted small call. The caller holds the lock.

        As in a section, the worker ends if an exception interrupts this.
        """
        try:
            self._do_late()
            if self._reader in (0, me) and (self._received or self.calls.small):
                self._take_over_exchange()
        except BaseException as error:
            self.tear(error)
            raise

    def _take_over_exchange(self) -> None:
        """Let a signal handler that has interrupted a small call read the answers from now on."""
        if self.calls.small:
            assert self.sock is not None
            self._small_call = self.calls.expect(self.calls.small)
            self.sock.setblocking(False)  # otherwise recvmsg would begin its wait again after each signal
            self.calls.admit()
            self.flush()
        self.accept_small(self._received)

    @locked
    def _leave(self, before: int, me: int, turn: Turn | None) -> None:
        """End a wait. Leaving twice is harmless."""
        if turn is not None:
            self._waiting.pop(turn, None)
        if before and self._alarm is None and self.watch is not None:
            self._alarm = new_alarm(1)  # the data for the outer wait may have been read: its poll has to return
            for fd in self._alarm.fds:
                self.watch.register(fd, POLLIN)
        if not before and self._reader == me:
            self._reader = 0
        if not self._reader and self._waiting:
            self._wake()

    @locked
    def _wake(self) -> None:
        """Wake the threads whose waits are done, and one thread to read on if none reads.

        The next reader is the last wait that has begun, because another wait of the same thread may be suspended behind
        it.
        """
        turns = [*self._waiting]
        last = None if self._reader else turns[-1:]
        for turn in turns:
            if turn.done() or self.torn or (last and turn is last[0]):
                turn.end()
                self._waiting.pop(turn, None)

    def _read(self, left: float | None) -> None:
        """Wait for messages, and take all that have come. Raises what interrupts a handler."""
        while self._put_off:
            self._handle(self._put_off.popleft())
        if not self.incoming:
            watch, stalled = self.watch, self.stalled
            if watch is None:
                return
            try:
                ready = wait_for(watch, one_wait(left if not stalled else RETRY if left is None else min(left, RETRY)))
            except (OSError, ValueError):
                if self.watch is watch:
                    raise
            if self.watch is not watch:  # a signal handler has closed the worker meanwhile
                return
            if self._alarm is not None:
                self._alarm.close()
                self._alarm = None
            if not ready and not stalled:
                return
            if self._came() is False:
                self._bury()
                return
        while self.incoming:
            event = self._take()
            if event is not None:
                self._handle(event)
        if self._waiting:
            self._wake()

    def is_done(self, call: Answer) -> bool:
        """Return whether a call has its answer, and all its events were handled."""
        return call.state is DONE and call not in self._handling

    def _handle(self, event: Event) -> None:
        """Handle an event, and those of the same call that come while its handler uses the worker."""
        receiver = event.receiver
        if receiver in self._handling:
            self._handling[receiver].append(event)
            return
        try:
            try:
                self._handling[receiver] = events = deque([event])
                while events:
                    self.handle_event(events.popleft())
            finally:
                self._end_handling(receiver)
        except BaseException:
            self._end_handling(receiver)  # again: an interrupt may have come in the middle of it
            raise

    def _end_handling(self, receiver: object) -> None:
        self._put_off.extend(self._handling.pop(receiver, ()))

    @section
    def _came(self) -> bool | None:
        return None if self.watch is None else self.came()

    @section
    def _take(self) -> Event | None:
        return self.take()

    # --- The end ---

    def _bury(self) -> None:
        """Learn how the worker has ended, and fail its calls."""
        self._fail(self.run(flows.fate(self)))

    @locked
    def _fail(self, status: ExitStatus) -> None:
        self.died(status)
        self._received.clear()

    @section
    def give_up_streams(self) -> None:
        """Give up all streams that are open."""
        super().give_up_streams()

    @locked
    def end_input(self) -> None:
        """Tell the worker to end. Telling it twice is harmless."""
        super().end_input()

    def drop(self) -> None:
        """Release the process, the channel and its descriptors."""
        self.process.close()
        self._close()

    def _close(self) -> None:
        self.calls.drop()
        self.close_unread()
        if self.watch is not None:
            self.watch.close()
        if self._alarm is not None:
            self._alarm.close()
        self.close_channel()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_alarm"):  # otherwise an interrupt came in __init__
            self._close()
