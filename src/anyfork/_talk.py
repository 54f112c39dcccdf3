"""How threads talk with a worker.

Of the threads that wait for answers of one worker one reads, for all of them; the others wait until theirs has come, or
it is their turn to read. No thread is started for it.
"""

from __future__ import annotations

import _thread
from _pickle import loads
from _socket import SO_RCVTIMEO, SOL_SOCKET
from _thread import RLock
from struct import Struct
from sys import modules
from time import monotonic

from ._conversation import FATE, Conversation
from ._delivery import destructor
from ._dialogue import entered
from ._pending import State
from ._polling import wait_for
from ._status import UNKNOWN
from ._waiting import run, warn_in_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._calls import Calls
    from ._pending import Call
    from ._process import Process
    from ._status import ExitStatus


SOON = Struct("ll").pack(0, 40_000)  # a struct timeval: how long an answer is waited for in the simplest way


class Talk(Conversation):
    """The channel of one worker, for any number of threads."""

    process: Process

    def __init__(self, process: Process, calls: Calls) -> None:
        super().__init__(process, calls)
        self.lock: RLock = RLock()  # the calls, and what is written
        self._reader = 0  # the thread that reads, or 0
        self._waiting: dict[LockType, Callable[[], bool]] = {}  # the other threads: what releases them, what they want
        self._inside: set[int] = set()  # threads: one that comes in again was torn out of it before by an interrupt
        self._late: list[Callable[[], None]] = []  # what destructors could not do at once

    def connect(self, deadline: float | None = None) -> None:
        """Wait until the worker has been started. Raises why it has not, and TimeoutError; it goes on then."""
        self.check()
        if self.sock is not None:
            return
        if deadline is not None and not run(entered(self.process._link, max(0.0, deadline - monotonic()))):
            raise TimeoutError
        sock = self.process.channel
        with self.lock:
            if self.sock is None:
                sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, SOON)
                self.use(sock, self.find_end())

    # --- Asking ---

    def begin(self, call: Call, deadline: float | None) -> None:
        """Queue a call, and send what the socket takes. Waits while too many are queued. Raises TimeoutError."""
        message = call.message
        assert message is not None
        calls = self.calls
        try:
            if message.fills:
                message.write_files()
            while True:
                with self.lock:
                    if not calls.full:
                        calls.add(call)
                        self.flush()
                        return
                self.wait(lambda: not calls.full, deadline)
        except BaseException:
            if call.state is State.NEW:
                message.close()
            raise

    def when_free(self, action: Callable[[], None]) -> None:
        """Do something now, or soon, if another thread holds the lock: a destructor runs in the middle of anything."""
        if self.foreign:
            return
        self._late.append(action)
        if self.lock.acquire(blocking=False):
            try:
                self._do_late()
            finally:
                self.lock.release()

    def _do_late(self) -> None:
        while self._late:
            self._late.pop()()

    def exchange(
        self,
        function: Callable[..., object] | str,
        args: Sequence[object],
        give_up: Callable[[Call, BaseException, None], None],
    ) -> tuple[bool, Any]:
        """Send a small call that meets no other, and take its answer, in as few steps as can be.

        True, and its result; False, and the call, where the rest takes more; False, and None, where nothing was done.
        """
        if "asyncio" in modules:
            warn_in_loop()
        self._enter()
        reads = False
        answer: bytes | None = None
        call: Call | None = None
        interrupted: BaseException | None = None
        try:
            with self.lock:
                if self._reader or self.sock is None or self.incoming or self.foreign:
                    return False, None
                reads = True
                self._reader = _thread.get_ident()
                if not self.begin_small(function, args):
                    return False, None
            answer = self.read_small(0)  # waits for SOON at most
        except (BlockingIOError, ConnectionError):  # not soon, or its end: whoever reads next learns why
            pass
        except BaseException as error:
            interrupted = error
        finally:
            if reads:
                with self.lock:
                    self._reader = 0
                    if self.calls.small:
                        call = self.end_small(answer)
                    if self._waiting:
                        self._wake()
            self._inside.discard(_thread.get_ident())
        if answer is not None:
            return True, loads(answer)
        if interrupted is not None:
            if call is not None:
                give_up(call, interrupted, None)
            raise interrupted
        if call is None:
            self.calls.check(may_have_run=True)
        return False, call

    # --- Waiting ---

    def wait(self, done: Callable[[], bool], deadline: float | None = None) -> None:
        """Until it is done: read what comes, or wait until another thread has. Raises TimeoutError."""
        if "asyncio" in modules:
            warn_in_loop()
        self.check()
        self._enter()
        me = _thread.get_ident()
        before = me
        try:
            while True:
                with self.lock:
                    self._do_late()
                    if done():
                        return
                    if self._reader in (0, me):  # me: a handler of an event makes a call
                        before, self._reader = self._reader, me
                        break
                    turn = _thread.allocate_lock()
                    turn.acquire()
                    self._waiting[turn] = done
                self._wait_for(turn, deadline)
            while not done():
                self._read(deadline)
                if deadline is not None and monotonic() > deadline and not done():
                    raise TimeoutError
        finally:
            if not before and self._reader == me:
                with self.lock:
                    self._reader = 0
                    self._wake()
            self._inside.discard(me)

    def _enter(self) -> None:
        """An interrupt may come in the middle of anything, of putting things in order after another one too. Then
        nobody knows what was done and what was not: the worker ends.
        """
        me = _thread.get_ident()
        if me in self._inside:
            with self.lock:
                if self._reader == me:
                    self._reader = 0
            self.process.kill()
            self._bury()
        self._inside.add(me)

    def _wait_for(self, turn: LockType, deadline: float | None) -> None:
        acquired = False
        try:
            acquired = turn.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))
        finally:
            with self.lock:
                if not acquired and self._waiting.pop(turn, None) is None:
                    self._wake()  # it was its turn to read
        if not acquired:
            raise TimeoutError

    def _wake(self) -> None:
        """Release those who have what they want, and one that reads on where nobody does. Holds the lock."""
        for turn in [turn for turn, done in self._waiting.items() if done()]:
            del self._waiting[turn]
            turn.release()
        if not self._reader and self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.release()

    def _read(self, deadline: float | None) -> None:
        """Wait for something to come, and take all that has come. Raises TimeoutError, and what a handler raises."""
        if not self.incoming and self._ended(deadline):
            self._bury()
            return
        while self.incoming:
            with self.lock:
                event = self.take()
            if event is not None:
                self._inside.discard(_thread.get_ident())  # the handler may call
                self.handle(event)
                self._inside.add(_thread.get_ident())
        if self._waiting:
            with self.lock:
                self._wake()

    def _ended(self, deadline: float | None) -> bool:
        """Read what comes next; True at the end of the stream. Raises TimeoutError."""
        assert self.watch is not None
        while True:
            ready = wait_for(self.watch, None if deadline is None else max(0.0, deadline - monotonic()))
            if not ready:
                raise TimeoutError
            with self.lock:
                came = self.came()
            if came is not None:
                return not came

    # --- The end ---

    def _bury(self) -> None:
        """The channel has come to its end: so has the worker."""
        try:
            status = self.process.wait(FATE)
        except TimeoutError:  # it goes on without its channel, or its template is stopped
            self.process.kill()
            status = UNKNOWN
        with self.lock:
            self.died(status)

    def finish(self) -> ExitStatus:
        """Wait for all answers, let the worker end, and wait until it has."""
        calls = self.calls
        with self.lock:
            calls.give_up_streams()
            self.flush()
        self.wait(lambda: not calls.outstanding or calls.failed)
        with self.lock:
            self.shut()
        return self.listen(None)

    def listen(self, deadline: float | None) -> ExitStatus:
        """Take what comes until the worker has ended; return how. Raises TimeoutError."""
        self.wait(lambda: self.calls.failed, deadline)
        return self.process.wait(None if deadline is None else max(0.0, deadline - monotonic()))

    def drop(self) -> None:
        """Let go of what this holds."""
        self.process.close()
        self._close()

    def _close(self) -> None:
        self.calls.drop()
        self.close_unread()
        if self.watch is not None:
            self.watch.close()
        self.close_channel()

    @destructor
    def __del__(self) -> None:
        self._close()
