"""The futures of an Executor, and the jobs behind them."""

from __future__ import annotations

import _thread
from _pickle import loads
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from threading import Condition
from time import monotonic

from .._pools.jobs import JobState
from .._system.timeouts import deadline as deadline_of
from .._system.timeouts import one_wait, remaining
from .completion import log
from .drop_in import drop_in
from .jobs import EncodedJob, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Sequence
    from typing import Any

    from _anyfork_child.values.message import Message
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.known_functions import KnownFunction
    from .dispatcher import Dispatcher

NEW = JobState.NEW
MOMENT = 0.01  # seconds for others to let go of the lock of a future
UNUSED = "unused"  # in the place of the condition of a future that has ended before anybody asked for it


class JobFuture(Future):  # type: ignore[type-arg]  # typing is not loaded
    """Represents one job. It is running once a worker has got the job.

    ``_final`` is the state in which it has ended; everything here goes by that. The functions of concurrent.futures
    go by ``_state``, which they read while they hold the condition: so it is set with the condition held, or before
    there is one. If it changed in between, they would hear of this future twice, or never. The condition costs more
    than all the rest of the future, and is made when it is first asked for.
    """

    _dispatcher: Dispatcher
    _job: FutureJob | None
    _final: str | None
    _guard: Any = None  # the condition, or UNUSED
    _turns: Sequence[LockType] = ()  # a lock for each thread that waits here

    def __init__(self) -> None:  # without that of Future
        self._state = PENDING
        self._result = self._exception = self._job = self._final = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    @property
    def _condition(self) -> Condition:  # type: ignore[override]  # nobody sets it
        self._check_owner("wait")  # as_completed and the like take it before they wait
        mine = self.__dict__
        guard = self._guard
        if guard is None:
            guard = mine.setdefault("_guard", Condition())  # in one piece: the same for all threads
        if guard is UNUSED:
            self._state = self._final  # type: ignore[assignment]  # it has ended: do what ``_finish`` is about to do
            guard = mine.setdefault("_late_condition", Condition())
        return guard  # type: ignore[no-any-return]  # it is one

    def cancel(self) -> bool:
        """Cancel the job if no worker has it. True if it is cancelled."""
        job = self._job
        if job is not None and job.state is JobState.QUEUED:
            try:
                if self._dispatcher.take_out(job):
                    self.end_cancelled()  # whatever its state: a worker may have had it before
            except BaseException:  # an interrupt
                self._dispatcher.cancel_later(job)
                raise
        return self._final is CANCELLED_AND_NOTIFIED

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._ended("cancelled") and self._final is CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Return whether a worker has the job now."""
        return not self._ended("running") and self._state is RUNNING

    def done(self) -> bool:
        """Return whether it has a result or an error, or was cancelled."""
        return self._ended("done")

    def result(self, timeout: float | None = None) -> Any:
        """As of every future."""
        if self.exception(timeout) is None:
            return self._result
        try:
            raise self._exception  # type: ignore[misc]  # there is one
        finally:
            del self  # the traceback knows this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As of every future."""
        if self._final is None:
            self._wait("result", timeout)
        if self._final is CANCELLED_AND_NOTIFIED:
            raise CancelledError
        return self._exception

    def _ended(self, call: str) -> bool:
        if self._final is None:
            self._check_owner(call)
        return self._final is not None

    def _wait(self, call: str, timeout: float | None) -> None:
        """Wait until it has ended. Raises TimeoutError, and HandleError where it never would."""
        deadline = deadline_of(timeout)
        self._check_owner(call)
        if self._job is not None:
            self._dispatcher.check_wait(f"{call}()")
        turn = _thread.allocate_lock()
        turn.acquire()
        self.__dict__.setdefault("_turns", []).append(turn)
        while self._final is None and not turn.acquire(timeout=one_wait(remaining(deadline))):
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError

    def _check_owner(self, call: str) -> None:
        """Raise HandleError where nothing will ever end it: in a forked copy of the owner."""
        if self._job is not None:
            self._dispatcher.check_owner(call)

    def end_cancelled(self) -> None:
        """Become cancelled, and tell everybody who waits. The job is not with a worker, and nobody else ends it.

        After an interrupt in the middle of it, the rest is done when it is called again.
        """
        if self._final is not FINISHED:
            self._job = None
            self._finish(CANCELLED_AND_NOTIFIED)

    def end(self, error: BaseException | None, result: Any) -> None:
        """As set_result and set_exception, unless it has ended before: by a timeout.

        Nobody else ends it meanwhile: only whoever takes the job out of the scheduler may cancel it.
        """
        if self._final is None:
            self._result = result
            self._exception = error
            self._job = None
            self._finish(FINISHED)

    def _finish(self, state: str) -> None:
        self._final = state
        for turn in [*self._turns] if self._turns else ():
            if turn.locked():
                turn.release()
        if self.__dict__.setdefault("_guard", UNUSED) is UNUSED:
            self._state = state  # and nobody else was to be told: all others ask for the condition first
        elif not self._tell(False):
            self._dispatcher.tell_later(self._tell)

    def _tell(self, by_force: bool) -> bool:
        """Tell everybody who waits; False if that is not possible now, because somebody holds the lock."""
        condition = self._condition
        if not by_force and condition._is_owned():  # type: ignore[attr-defined]  # this has interrupted who looks
            return False
        held = condition.acquire(timeout=MOMENT)
        if not (held or by_force):
            return False
        try:
            if self._state is not self._final:
                self._state = self._final  # type: ignore[assignment]  # it has ended
                for waiter in [*self._waiters]:
                    self._tell_waiter(waiter)
        finally:
            if held:
                condition.release()
        self._invoke_callbacks()
        return True

    def _tell_waiter(self, waiter: Any) -> None:
        if self._state is CANCELLED_AND_NOTIFIED:
            waiter.add_cancelled(self)
        elif self._exception is None:
            waiter.add_result(self)
        else:
            waiter.add_exception(self)

    def _invoke_callbacks(self) -> None:
        callbacks = self._done_callbacks
        while callbacks:
            callback = callbacks.pop(0)
            try:
                callback(self)
            except BaseException as error:  # also SystemExit: it ends no thread that all others wait for
                log("concurrent.futures", f"exception calling callback for {self!r}", error)


class FutureJob(EncodedJob):
    """A job whose result a future gets."""

    __slots__ = ("future",)

    def __init__(
        self,
        encoded: tuple[KnownFunction, int, bytes | Message],
        future: JobFuture,
        on_event: Handler | None,
        priority: float,
        timeout: float | None,
        idempotent: bool,
    ) -> None:
        self.future = future
        # What EncodedJob.__init__ does, without the call: this is the way of every small job.
        self.function, self.kind, self.body = encoded
        self.on_event = on_event
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = 1
        self.state = NEW
        self.worker = self.deadline = None
        self.depth = self.runs = 0

    def begin(self) -> None:
        """A worker is to have it."""
        self.future._state = RUNNING

    def finish(self, message: call_messages.Message) -> None:
        """Its answer has come."""
        if not (plain(message) and type(self.body) is bytes):
            super().finish(message)
            return
        try:
            value = loads(message[4])
        except BaseException as error:
            self.future.end(error, None)
            return
        self.body = b""
        self.future.end(None, value)

    def cancel(self) -> None:
        """It will not run."""
        self.release()
        self.future.end_cancelled()

    def settle(self, error: BaseException | None, value: Any) -> None:
        """It has this result, or error."""
        self.future.end(None if error is None else drop_in(error), value)
