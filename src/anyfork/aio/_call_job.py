"""The job of a task that calls a pool, and waits for the answer."""

from __future__ import annotations

from _anyfork_child.wire.call_messages import FDS
from _anyfork_child.wire.channel import close_all

from .._calls.call import raise_taken
from .._pools.jobs import EncodedJob, value_of
from .._pools.records import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._pools.encoder import Encoded
    from .._pools.jobs import Decoding
    from ._loop import FutureLike

USED: Sequence[Any] = ()  # in place of an answer that was used, or dropped


class CallJob(EncodedJob):
    """A job with the call of a task, which waits for the answer."""

    __slots__ = ("_answer", "closed", "error", "pool", "waiting")

    def __init__(
        self,
        pool: Decoding,
        encoded: Encoded,
        waiting: FutureLike,
        on_event: Handler | None,
        priority: float,
        timeout: float | None,
        idempotent: bool,
    ) -> None:
        self.pool = pool
        self.waiting = waiting
        self._answer: Any = None  # a message
        self.closed = False  # its task does not wait for the handlers of its events any more
        self.error: BaseException | None = None  # instead of an answer; also the error of a handler of its events
        # The same as EncodedJob.__init__, without the cost of a call, because every small job comes here.
        self.function, self.kind, self.body = encoded
        self.on_event = on_event
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = 1
        self.state = JobState.NEW
        self.worker = self.deadline = None
        self.depth = self.runs = 0

    @property
    def failing(self) -> CallJob:
        """The job itself."""
        return self

    def begin(self) -> bool:
        """Return False if the task was cancelled before anything could be sent."""
        return not self.waiting.done()

    def finish(self, message: call_messages.Message) -> None:
        """Keep the answer, and wake the task. After an interrupt, this may be called again with the same answer."""
        self.release()
        if not self.waiting.done():
            self._answer = message
            self.waiting.set_result(None)
        elif self._answer is None:  # the task does not wait any more
            self._answer = USED
            close_all(message[FDS])

    def fail(self, error: BaseException) -> None:
        """Keep an error in place of an answer, and wake the task."""
        self.release()
        if not self.waiting.done():
            self.error = self.error or error
            self.waiting.set_result(None)

    @property
    def answered(self) -> bool:
        """True if the answer has come."""
        return self._answer is not None

    def result(self) -> Any:
        """Return the result, once. Raises what the function has raised, and the other errors of calls."""
        if self.error is not None:
            self.drop()
            raise_taken(self)
        answer, self._answer = self._answer, USED
        return value_of(answer, self.pool)

    def drop(self) -> None:
        """Close the descriptors of an answer that is not used."""
        answer, self._answer = self._answer, USED
        if answer:
            close_all(answer[FDS])


def end_wait(waiting: FutureLike) -> None:
    """Wake a task that waits, unless it was cancelled."""
    if not waiting.done():
        waiting.set_result(None)
