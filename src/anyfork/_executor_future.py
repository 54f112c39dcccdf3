"""The futures of an Executor, and the jobs behind them."""

from __future__ import annotations

from _pickle import loads
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from threading import TIMEOUT_MAX, Condition

from ._drop_in import drop_in
from ._executor_jobs import EncodedJob, plain
from ._jobs import JobState
from ._telling import log
from ._timeouts import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _anyfork_child import _call_wire
    from _anyfork_child._message import Message

    from ._dispatcher import Dispatcher
    from ._known_functions import KnownFunction
    from ._pending import Handler

NEW = JobState.NEW
MOMENT = 0.01  # seconds for others to let go of the lock of a future


class JobFuture(Future):  # type: ignore[type-arg]  # typing is not loaded
    """That of one job. It is running once a worker has got the job.

    Its condition, which costs more than all the rest of it, is made when somebody waits. ``end`` sets the state before
    it looks for one, and who waits looks at the state after there is one: so one of the two sees the other.
    """

    _dispatcher: Dispatcher
    _job: FutureJob | None

    def __init__(self) -> None:  # without that of Future
        self._state = PENDING
        self._result = self._exception = self._job = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name != "_condition":
            raise AttributeError(name)
        self._check_owner("wait")  # as_completed and the like take it before they wait
        return self.__dict__.setdefault("_condition", Condition())  # in one piece: the same for all threads

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
        return self._state == CANCELLED_AND_NOTIFIED

    def result(self, timeout: float | None = None) -> Any:
        """As of every future."""
        if self._state is FINISHED and self._exception is None:
            return self._result
        self._check_owner("result")
        self._check_wait("result()")
        return super().result(_limit(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As of every future."""
        self._check_owner("exception")
        self._check_wait("exception()")
        return super().exception(_limit(timeout))

    def _check_wait(self, call: str) -> None:
        if self._job is not None:
            self._dispatcher.check_wait(call)

    def _check_owner(self, call: str) -> None:
        """Raise HandleError where nothing will ever end it: in a forked copy of the owner."""
        if self._job is not None:
            self._dispatcher.check_owner(call)

    def end_cancelled(self) -> None:
        """Become cancelled, and tell everybody who waits. The job is not with a worker, and nobody else ends it."""
        if self._state is FINISHED or self._state is CANCELLED_AND_NOTIFIED:
            return
        self._job = None
        self._state = CANCELLED_AND_NOTIFIED
        self._announce()

    def end(self, error: BaseException | None, result: Any) -> None:
        """As set_result and set_exception, unless it has ended before: by a timeout.

        Nobody else ends it meanwhile: only whoever takes the job out of the scheduler may cancel it.
        """
        if self._state is FINISHED or self._state is CANCELLED_AND_NOTIFIED:
            return
        self._result = result
        self._exception = error
        self._job = None
        self._state = FINISHED
        if "_condition" in self.__dict__:
            self._announce()
        elif self._done_callbacks:
            self._invoke_callbacks()

    def _announce(self) -> None:
        if not self._tell(False):
            self._dispatcher.tell_later(self._tell)

    def _tell(self, by_force: bool) -> bool:
        """Tell everybody who waits; False if that is not possible now, because somebody holds the lock."""
        condition = self._condition
        held = condition.acquire(timeout=MOMENT)
        if not (held or by_force):
            return False
        try:
            for waiter in self._waiters:
                self._tell_waiter(waiter)
            if held:
                condition.notify_all()
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
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:  # also SystemExit: it ends no thread that all others wait for
                log("concurrent.futures", f"exception calling callback for {self!r}", error)


def _limit(timeout: float | None) -> float | None:
    """Return a timeout as the standard library takes it."""
    limit = seconds(timeout)
    return limit if limit is None or limit < TIMEOUT_MAX else None


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

    def finish(self, message: _call_wire.Message) -> None:
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
