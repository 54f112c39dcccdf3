"""The futures of an Executor, and the jobs that set their results."""

from __future__ import annotations

import _thread
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from threading import Condition
from time import monotonic

from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.call_messages import BODY

from .._pools.jobs import EncodedJob, plain, value_of
from .._pools.records import JobState
from .._system.log import CRITICAL, write_record
from .._system.timeouts import deadline as deadline_of
from .._system.timeouts import one_wait, remaining
from .errors import drop_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Sequence
    from typing import Any

    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._pools.encoder import Encoded
    from .dispatcher import Dispatcher

NEW, QUEUED, RUNS = JobState.NEW, JobState.QUEUED, JobState.RUNNING
MOMENT = 0.01  # seconds to wait for the lock of a future
UNUSED = "unused"  # replaces the condition of a future that ended before its condition was needed


class JobFuture(Future):  # type: ignore[type-arg]  # typing is not loaded
    """The future of one job. It is running once a worker has got the job.

    ``_final`` is the state in which the future has ended; all code here relies on it. The functions of
    concurrent.futures rely on ``_state``, which they read while they hold the condition. So ``_state`` is set with the
    condition held, or before the condition exists. If it changed in between, these functions would be notified of this
    future twice, or never. The condition costs more than the rest of the future, and is created when it is first
    needed.
    """

    _dispatcher: Dispatcher
    _job: FutureJob | None
    _final: str | None
    _guard: Any = None  # the condition, or UNUSED
    _turns: Sequence[LockType] = ()  # a lock for each thread that waits in ``_wait``

    def __init__(self) -> None:  # does not call Future.__init__, which creates the condition
        self._state = PENDING
        self._result = self._exception = self._job = self._final = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    @property
    def _condition(self) -> Condition:  # type: ignore[override]  # it is never assigned
        self._check_owner("wait")  # as_completed() and similar functions acquire it before they wait
        mine = self.__dict__
        guard = self._guard
        if guard is None:
            guard = mine.setdefault("_guard", Condition())  # atomic: all threads get the same object
        if guard is UNUSED:
            self._state = self._final  # type: ignore[assignment]  # the future has ended: do what ``_finish`` is about to do
            guard = mine.setdefault("_late_condition", Condition())
        return guard  # type: ignore[no-any-return]  # it is one

    def cancel(self) -> bool:
        """Cancel the job if it has not begun. Return True if the future is cancelled."""
        job = self._job
        if job is not None and QUEUED <= job.state <= RUNS:
            try:
                if self._dispatcher.take_out(job):
                    self.end_cancelled()  # whatever its state: a worker may have had it before
            except BaseException:  # an interrupt
                self._dispatcher.cancel_later(job)
                raise
        return self._final is CANCELLED_AND_NOTIFIED

    def cancelled(self) -> bool:
        """Return whether the future was cancelled."""
        return self._ended("cancelled") and self._final is CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Return whether a worker has the job now."""
        return not self._ended("running") and self._state is RUNNING

    def done(self) -> bool:
        """Return whether the future has a result or an error, or was cancelled."""
        return self._ended("done")

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it, or raise the job's error, as every Future does."""
        if self.exception(timeout) is None:
            return self._result
        try:
            raise self._exception  # type: ignore[misc]  # there is one
        finally:
            del self  # the traceback refers to this frame: avoid a cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the job, and return its error or None, as every Future does."""
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
        """Wait until the future has ended. Raises TimeoutError, and HandleError if the wait would never end."""
        deadline = deadline_of(timeout)
        self._check_owner(call)
        if self._job is not None and timeout != 0:
            self._dispatcher.check_wait(f"{call}()")
        turn = _thread.allocate_lock()
        turn.acquire()
        turns = self.__dict__.setdefault("_turns", [])
        turns.append(turn)  # before the look at ``_final``; that is set before the look at ``_turns``
        while self._final is None and not turn.acquire(timeout=one_wait(remaining(deadline))):
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError

    def _check_owner(self, call: str) -> None:
        """Raise HandleError in a forked copy of the owner, where nothing would ever end this future."""
        if self._job is not None:
            self._dispatcher.check_owner(call)

    def end_cancelled(self) -> None:
        """End the future as cancelled, and notify all waiters. No worker has the job; no other thread ends the future.

        If an interrupt stops this method, a second call does the rest.
        """
        if self._final is not FINISHED:
            self._job = None
            self._finish(CANCELLED_AND_NOTIFIED)

    def end(self, error: BaseException | None, result: Any) -> None:
        """Set the error, or the result if ``error`` is None, unless a timeout has ended the future before.

        No other thread ends it at the same time: only the thread that removes a job from the scheduler may cancel it.
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
            self._state = state  # nothing else to notify: other waiters need the condition first
        elif not self._tell(False):
            self._dispatcher.tell_later(self._tell)

    def _tell(self, by_force: bool) -> bool:
        """Notify waiters and run callbacks. Return False if that is not possible now, because the lock is held.

        With ``by_force``, do it even if the lock cannot be acquired.
        """
        condition = self._condition
        if not by_force and condition._is_owned():  # type: ignore[attr-defined]  # this call has interrupted the holder
            return False
        held = condition.acquire(timeout=MOMENT)
        if not (held or by_force):
            return False
        try:
            if self._state is not self._final:
                self._state = self._final  # type: ignore[assignment]  # the future has ended
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
            except BaseException as error:  # SystemExit too: it must not end the thread that all jobs depend on
                text = f"exception calling callback for {self!r}"
                write_record(CRITICAL, "%s", text, error=error, name="concurrent.futures")


class FutureJob(EncodedJob):
    """A job whose result goes to a future."""

    __slots__ = ("error", "future")

    def __init__(
        self,
        encoded: Encoded,
        future: JobFuture,
        on_event: Handler | None,
        priority: float,
        timeout: float | None,
        idempotent: bool,
    ) -> None:
        self.future = future
        self.error: BaseException | None = None  # of a handler of its events
        # The same as EncodedJob.__init__, without the cost of a call, because every small job comes here.
        self.function, self.kind, self.body = encoded
        self.on_event = on_event
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = 1
        self.state = NEW
        self.worker = self.deadline = None
        self.depth = self.runs = 0

    @property
    def failing(self) -> FutureJob:
        """The job itself."""
        return self

    def begin(self) -> bool:
        """Mark the future as running."""
        self.future._state = RUNNING
        return True

    def finish(self, message: call_messages.Message) -> None:
        """Decode the answer and end the future with it. Runs without any lock: decoding may run arbitrary code."""
        future, small = self.future, type(self.body) is bytes
        if not small:
            self.release()
        try:
            value = load_plain(message[BODY]) if small and plain(message) else value_of(message, future._dispatcher)
        except BaseException as error:
            future.end(drop_in(error), None)
            return
        self.body = b""
        future.end(self.error, value)

    def fail(self, error: BaseException) -> None:
        """End the future with the error, as a kind that concurrent.futures knows."""
        self.release()
        self.future.end(drop_in(error), None)

    def cancel(self) -> None:
        """End the future as cancelled: the job will not run."""
        self.release()
        self.future.end_cancelled()
