"""The jobs of a pool, as calls: what is sent for them, and what their answers do. Nothing here waits."""

from __future__ import annotations

from _anyfork_child.values.encode import INLINE
from _anyfork_child.wire.call_messages import CALL

from .._calls.call import DONE, Answer, State, raise_taken
from .._calls.known_functions import FunctionsByValue, KnownFunction
from .._calls.requests import Requests, small
from .jobs import Job, JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from _anyfork_child.values.message import Message
    from _anyfork_child.values.receiver import Receiver
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .durations import Tempo
    from .pool import PoolHandle
    from .worker_queue import PoolCalls

    AnyFunction: TypeAlias = Callable[..., Any] | str | KnownFunction

SENT = State.SENT
NEW = JobState.NEW


class Encoder:
    """Calls into bytes that any worker of the pool understands. Raises ArgumentError."""

    def __init__(self, serializer: Serializer | None, receiver: Receiver) -> None:
        self._serializer = serializer
        self._requests = Requests(serializer, receiver)
        self._by_value = FunctionsByValue(receiver)

    def encode(
        self, function: Callable[..., Any] | str, args: Sequence[object]
    ) -> tuple[AnyFunction | None, bytes | Message]:
        """The function, None if it goes with the call, and what else there is: a plain pickle, or a message.

        Raises OSError too.
        """
        named = self.named(function)
        if named:
            if self._serializer is None and (body := small(args)):
                return function, body
            return function, self._message(named, function, args)
        by_value = self._by_value
        large = None
        if not isinstance(function, str):
            if by_value.looks_large(function):
                large = by_value.take_large("call", function)
            if large is None:
                message = self._message(0, function, args)
                if message.size <= INLINE or (large := by_value.take_large("call", function)) is None:
                    return None, message
                message.close()
            return large, self._message(large.number, large, args)
        return None, self._message(0, function, args)

    def encode_item(self, function: AnyFunction, item: object) -> tuple[AnyFunction, bytes | Message]:
        """The same for an item of a map, whose function was taken before."""
        if isinstance(function, KnownFunction):
            return function, self._message(function.number, function, (item,))
        if self._serializer is None and (body := small((item,))):
            return function, body
        return function, self._message(self.named(function), function, (item,))

    def take(self, function: Callable[..., Any] | str) -> AnyFunction:
        """What to call for the items of a map: the function as it is now. Raises ArgumentError, and OSError."""
        return function if self.named(function) else self._by_value.take("map", function)

    def _message(self, number: int, function: AnyFunction, args: Sequence[object]) -> Message:
        message = self._requests.message("call", CALL, 0, number, function, args)
        try:
            message.keep()  # it may wait, and have to be sent again
        except BaseException:
            message.close()
            raise
        return message

    def named(self, function: Callable[..., Any] | str) -> int:
        """Not 0 for a function that workers find by its name. Raises ArgumentError for what is no function."""
        known = self._requests.number("call", function)
        if self._requests.definitions:
            self._requests.definitions.clear()  # each worker is told when it needs to be
        return known


class PoolJob(Job):
    """A job with an encoded call. ``release`` closes what that holds, once it is done."""

    __slots__ = ("body", "function", "on_event", "pool")

    def __init__(
        self,
        pool: PoolHandle,
        function: AnyFunction | None,
        body: bytes | Message | None,
        on_event: Handler | None,
        priority: float,
        timeout: float | None,
        idempotent: bool,
        size: int = 1,
    ) -> None:
        self.pool = pool
        self.function = function
        self.body = body
        self.on_event = on_event
        # What Job.__init__ does, without the call: this is the way of every small job.
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = size
        self.depth = 0
        self.state: JobState = NEW
        self.worker = None
        self.runs = 0
        self.deadline: float | None = None

    def send(self, calls: PoolCalls) -> None:
        """Begin it in a worker."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """It has this error instead of an answer."""
        raise NotImplementedError

    def give_up(self, calls: PoolCalls) -> None:
        """Nobody waits for what the worker has of it."""
        raise NotImplementedError

    def numbers(self, first: int) -> Sequence[int]:
        """Those of its calls in the worker that has it, of which the first is this."""
        return (first,)

    def settle(self) -> None:
        """It is known how large its worker is after it."""

    def begin(self, calls: PoolCalls, answer: Answer) -> None:
        """Begin the call that was encoded."""
        body = self.body
        if type(body) is bytes:
            calls.begin(answer, self.function, body)
        else:
            calls.begin_message(answer, self.function, body)  # type: ignore[arg-type]  # it is one
        self.measure(calls)

    def measure(self, calls: PoolCalls) -> None:
        """Ask a plain worker how large it is after the job, if that is to be known."""
        if self.pool.memory is not None and not self.pool.concurrent:
            calls.begin_measure(Measure(self), self.pool.memory)

    def release(self) -> None:
        """Let go of what was encoded."""
        body, self.body = self.body, None
        if body is not None and type(body) is not bytes:
            body.close()  # type: ignore[union-attr]  # it is a message


class Measure(Answer):
    """How large a worker is after a job, which is in the books until that is known."""

    __slots__ = ("job",)
    ahead = 1

    def __init__(self, job: PoolJob) -> None:
        super().__init__(SENT)
        self.job = job

    def finish(self, answer: call_messages.Message | None, error: BaseException | None = None) -> None:
        """It is known, or the worker has ended."""
        if self.state is State.GIVEN_UP:  # the job was taken back before it began
            return
        if error is None:
            assert answer is not None
            self.job.pool.measured(self.job, int.from_bytes(answer[4], "little"))
        self.job.settle()


class Attempt(Answer):
    """That of one worker at one job."""

    __slots__ = ("job",)
    ahead = 1

    def __init__(self, job: CallJob) -> None:
        self.state = SENT
        self.error: BaseException | None = None
        self._answer: call_messages.Message | None = None
        self.wake = None
        self.job = job

    @property
    def on_event(self) -> Handler | None:  # type: ignore[override]  # read only
        """That of the job."""
        return self.job.on_event

    @property
    def _serializer(self) -> Serializer | None:  # type: ignore[override]  # read only
        return self.job.pool.serializer

    def finish(self, answer: call_messages.Message | None, error: BaseException | None = None) -> None:
        """There is an answer; or the worker has ended, and the scheduler decides what becomes of the job."""
        job, wanted = self.job, self.job.attempt is self
        if not wanted:
            job.release()
        if error is not None:
            return
        self._answer, self.state = answer, DONE
        if job.tempo is not None:
            job.took()
        job.pool.answered(job)
        if not wanted:
            self.drop()
        elif job.pool.memory is None:  # otherwise when it is known whether the worker stays
            job.settle()


class CallJob(PoolJob):
    """One call."""

    __slots__ = ("attempt", "began", "error", "tempo")

    tempo: Tempo | None  # of its function, where that is to be known
    began: float  # when it was sent
    attempt: Attempt | None  # the last; None when nobody waits for it
    error: BaseException | None

    def wake(self) -> None:
        """It is done: ``result`` may be called. A face says what that means."""
        raise NotImplementedError

    def settle(self) -> None:
        """Its answer is there."""
        self.release()
        self.wake()

    @property
    def done(self) -> bool:
        """Whether ``result`` may be called."""
        return self.error is not None or (self.attempt is not None and self.attempt.state is DONE)

    def send(self, calls: PoolCalls) -> None:
        """Begin it in a worker."""
        if self.tempo is not None:
            self.began = self.pool.now()
        self.attempt = attempt = Attempt(self)
        self.begin(calls, attempt)

    def took(self) -> None:
        """Learn how long it took."""
        assert self.worker is not None
        assert self.tempo is not None
        seat, now = self.worker.seat, self.pool.now()
        self.tempo.saw(now - max(self.began, seat.last))
        seat.last = now

    def fail(self, error: BaseException) -> None:
        """It has this error instead of an answer."""
        self.error = error
        self.attempt = None
        if self.state is JobState.DONE:  # otherwise a worker has it still
            self.release()
        self.wake()

    def give_up(self, calls: PoolCalls) -> None:
        """Nobody waits for it."""
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            calls.give_up(attempt)

    def result(self) -> Any:
        """Its result, once. Raises what the function has raised, and the other errors of calls."""
        if self.error is not None:
            raise_taken(self)
        attempt, self.attempt = self.attempt, None  # they know each other: left alone, both are freed at once
        assert attempt is not None
        return attempt.result()
