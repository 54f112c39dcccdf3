"""The jobs of a pool, as calls: the messages for them, and the effects of their answers. Nothing here waits."""

from __future__ import annotations

from _anyfork_child.wire.call_messages import BODY

from .._calls.call import DONE, Answer, State, raise_taken
from .records import Job, JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from _anyfork_child.values.message import Message
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.durations import CallDuration
    from .._calls.known_functions import KnownFunction
    from .records import WorkerRecord
    from .scheduler import Scheduler

    class Pool(Protocol):
        """A pool (_pools.pool), as its jobs and its workers see it."""

        memory: int | None
        concurrent: bool
        serializer: Serializer | None
        scheduler: Scheduler

        @property
        def now(self) -> Callable[[], float]: ...
        def answered(self, job: PoolJob) -> None: ...
        def measured(self, job: PoolJob, size: int) -> None: ...
        def skip(self, job: PoolJob) -> None: ...
        def not_started(self, worker: WorkerRecord, error: BaseException) -> None: ...
        def tell(self, level: int, what: str, why: str) -> None: ...

    class WorkerQueue(Protocol):
        """The calls of one worker (_pools.worker_queue), as jobs see them."""

        def begin(self, answer: Answer, function: KnownFunction, body: bytes) -> None: ...
        def begin_items(self, answers: Sequence[Answer], function: KnownFunction, items: Sequence[Any]) -> None: ...
        def begin_message(self, answer: Answer, function: KnownFunction, encoded: Message) -> None: ...
        def begin_measure(self, answer: Answer, kind: int) -> None: ...
        def give_up(self, call: Answer) -> bool: ...


SENT = State.SENT
NEW = JobState.NEW


class PoolJob(Job):
    """A job with an encoded call. ``release`` closes the descriptors of the call when the job is done."""

    __slots__ = ("body", "function", "on_event", "pool")

    def __init__(
        self,
        pool: Pool,
        function: KnownFunction,
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
        # Do what Job.__init__ does without calling it: every small job passes here.
        self.priority = priority
        self.timeout = timeout
        self.idempotent = idempotent
        self.size = size
        self.depth = 0
        self.state: JobState = NEW
        self.worker = None
        self.runs = 0
        self.deadline: float | None = None

    def send(self, calls: WorkerQueue) -> None:
        """Begin the job in a worker. Each kind of job implements this."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Fail the job with this error instead of an answer. Each kind of job implements this."""
        raise NotImplementedError

    def give_up(self, calls: WorkerQueue) -> None:
        """Give up the calls of the job in its worker: no caller waits for their answers any more.

        Each kind of job implements this.
        """
        raise NotImplementedError

    def numbers(self, first: int) -> Sequence[int]:
        """Return the numbers of the job's calls in its worker. ``first`` is the first of them."""
        return (first,)

    def settle(self) -> None:
        """Complete the job: the size of its worker after it is known, or not wanted."""

    def begin(self, calls: WorkerQueue, answer: Answer) -> None:
        """Begin the encoded call in a worker."""
        body = self.body
        if type(body) is bytes:
            calls.begin(answer, self.function, body)
        else:
            calls.begin_message(answer, self.function, body)  # type: ignore[arg-type]  # it is a message
        self.measure(calls)

    def measure(self, calls: WorkerQueue) -> None:
        """Ask a plain worker how large it is after the job, if the pool limits the memory of workers."""
        if self.pool.memory is not None and not self.pool.concurrent:
            calls.begin_measure(MemoryAnswer(self), self.pool.memory)

    def release(self) -> None:
        """Release the encoded call."""
        body, self.body = self.body, None
        if body is not None and type(body) is not bytes:
            body.close()  # type: ignore[union-attr]  # it is a message


class MemoryAnswer(Answer):
    """A request for the size of a worker after a job.

    The worker has the job, for the scheduler, until the size is known.
    """

    __slots__ = ("job",)
    ahead = 1

    def __init__(self, job: PoolJob) -> None:
        super().__init__(SENT)
        self.job = job

    def finish(self, answer: call_messages.Message | None, error: BaseException | None = None) -> None:
        """Report the size of the worker, and complete the job. If the worker has ended, only complete the job.

        A job without an answer is left to the scheduler then.
        """
        if self.state is State.GIVEN_UP:  # the job was taken back before it began
            return
        if error is None:
            assert answer is not None
            self.job.pool.measured(self.job, int.from_bytes(answer[BODY], "little"))
        elif self.job.state is not JobState.GIVEN_UP:
            return
        self.job.settle()


class Attempt(Answer):
    """The answer of one worker to one job."""

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
        """The event handler of the job."""
        return self.job.on_event

    @property
    def _serializer(self) -> Serializer | None:  # type: ignore[override]  # read only
        return self.job.pool.serializer

    def finish(self, answer: call_messages.Message | None, error: BaseException | None = None) -> None:
        """Note the answer. If the worker has ended instead, leave the decision about the job to the scheduler."""
        job, wanted = self.job, self.job.attempt is self
        if not wanted:
            job.release()
        if error is not None:
            return
        self._answer, self.state = answer, DONE
        if job.duration is not None:
            job.took()
        job.pool.answered(job)
        if not wanted:
            self.drop()
        elif job.pool.memory is None:  # otherwise MemoryAnswer does, when it is known whether the worker stays
            job.settle()


class CallJob(PoolJob):
    """A job with one call."""

    __slots__ = ("attempt", "began", "duration", "error")

    duration: CallDuration | None  # the durations of its function, if they matter
    began: float  # when the job was sent
    attempt: Attempt | None  # the last one; None when the caller does not wait for its answer
    error: BaseException | None

    def wake(self) -> None:
        """Tell the caller that the job is done, so that it may call ``result``. Each face implements this."""
        raise NotImplementedError

    def settle(self) -> None:
        """Release the encoded call, and tell the caller that the answer has come."""
        self.release()
        self.wake()

    @property
    def done(self) -> bool:
        """Return whether ``result`` may be called."""
        return self.error is not None or (self.attempt is not None and self.attempt.state is DONE)

    def send(self, calls: WorkerQueue) -> None:
        """Begin the job in a worker."""
        if self.duration is not None:
            self.began = self.pool.now()
        self.attempt = attempt = Attempt(self)
        self.begin(calls, attempt)

    def took(self) -> None:
        """Note how long the call took, for the estimate of its function."""
        assert self.worker is not None
        assert self.duration is not None
        pooled_worker, now = self.worker.pooled_worker, self.pool.now()
        self.duration.saw(now - max(self.began, pooled_worker.last))
        pooled_worker.last = now

    def fail(self, error: BaseException) -> None:
        """Fail the job with this error instead of an answer."""
        self.error = error
        self.attempt = None
        if self.state is JobState.DONE:  # otherwise a worker still has the job
            self.release()
        self.wake()

    def give_up(self, calls: WorkerQueue) -> None:
        """Give up the last attempt: the caller no longer waits for its answer."""
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            calls.give_up(attempt)

    def result(self) -> Any:
        """Return the result, once. Raises what the function has raised, and the other errors of calls."""
        if self.error is not None:
            raise_taken(self)
        attempt, self.attempt = self.attempt, None  # breaks the cycle of both: they are freed at once
        assert attempt is not None
        return attempt.result()
