"""The queue of jobs of one worker of a pool, without I/O: writing jobs, taking them back, matching answers."""

from __future__ import annotations

from itertools import repeat

from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import (
    CANCEL,
    CANCELLED,
    ERROR,
    EVENT,
    FDS,
    HEADER,
    HELD,
    KIND,
    MEASURE,
    NUMBER,
    RESULT,
)

from .._calls.calls import LAST_NUMBER, Calls
from .._calls.events import Event
from .._calls.known_functions import FIRST_BY_VALUE
from .._calls.permits import MOST_PERMITS
from .._system.locks import call_all, in_one_go
from .jobs import BatchJob
from .records import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.known_functions import KnownFunction
    from .jobs import AnyJob

LOW = 2  # jobs: with fewer written ones, a worker might run out of work before the next look
MANY = 16  # jobs that are written at once, without waiting for the next look


class JobCalls(Calls):
    """The jobs of one worker. ``permits`` are the numbers that have to be given before ``out`` is sent.

    ``holds`` says whether there are permits: without them, no job is taken back once it is written. ``memory`` is the
    kind of memory that is measured after each job, or None. ``record`` are the methods that record written messages,
    jobs and permits, and remove the jobs from ``unwritten``.
    """

    in_pool = True

    def __init__(
        self,
        kind: str,
        on_event: Handler | None,
        receiver: Receiver,
        serializer: Serializer | None = None,
        *,
        concurrency: int | None = None,
        memory: int | None = None,
        holds: bool = True,
    ) -> None:
        super().__init__(serializer, concurrency, on_event, receiver)
        self.kind = f"{kind} worker"
        self._memory = memory if concurrency is None else None  # a concurrent worker is asked when an answer has come
        self._low = LOW if memory is None else 2 * LOW  # of jobs, and of requests for the size after them
        self._holds = holds
        self.unwritten: list[AnyJob] = []
        self.jobs: dict[int, AnyJob | MemoryRequest] = {}  # written jobs, by the numbers of their answers
        self.permits: list[int] = []
        self.record = self.out.extend, self.jobs.update, self.permits.extend, self.unwritten.__delitem__
        self._defined = {0}  # the numbers of functions by name that the worker knows
        self._next = 1
        self._drops = False  # the worker has jobs without permits before the next one: that needs a permit, too

    # --- Sending ---

    def queue_jobs(self, jobs: Iterable[AnyJob]) -> bool:
        """Queue jobs for this worker. Return True if they must be written now, False if there is time for that."""
        self.unwritten.extend(jobs)
        return len(self.jobs) < self._low or len(self.unwritten) >= MANY or self._concurrency is not None

    def write(self) -> None:
        """Write queued jobs to ``out``, and their numbers to ``permits``, as many as the pipe of permits holds."""
        written = _Written()
        if self._requests.unwanted:
            self.out.append(Message(self._requests.drop_unwanted()))
        present, jobs = len(self.jobs), written.jobs
        for job in self.unwritten:
            if len(jobs) + job.size > MOST_PERMITS - present and (present or jobs):
                break
            held = HELD if self._holds and (present or jobs or job.size > 1 or self._drops) else 0
            self._write(job, written, held)
        written.note(self)
        self._drops = self._drops and not jobs

    def _write(self, job: AnyJob, written: _Written, held: int) -> None:
        count, function = job.size, job.function.number
        number = self._number(count)
        if function not in self._defined and function not in written.defined:
            self._define(job.function, written)
        message = job.write(written.parts, number, held)
        if message is not None:
            written.put(message)
        if count == 1:
            written.jobs[number] = job
            if held:
                written.permits.append(number)
        else:
            numbers = range(number, number + count)
            written.jobs.update(dict.fromkeys(numbers, job))
            if held:
                written.permits.extend(numbers)
        written.count += 1
        if self._memory is not None:
            number = self._number(1)
            written.jobs[number] = MemoryRequest(job)
            written.parts.append(HEADER.pack(0, number, self._memory, MEASURE, 0, 0))

    def _number(self, count: int) -> int:
        """Reserve ``count`` consecutive numbers; return the first. After an interrupt they are never used."""
        number = self._next
        if number + count > LAST_NUMBER:
            number = 1
        self._next = number + count
        return number

    def _define(self, function: KnownFunction, written: _Written) -> None:
        """Send the worker a function that it does not know yet."""
        if function.number >= FIRST_BY_VALUE:
            self._requests.tell(function)
            self._define_first()  # before these jobs
        else:
            written.defined = {*written.defined, function.number}
            written.parts.append(bytes(function.message.data))

    def measure(self, job: AnyJob, kind: int) -> None:
        """Ask for the size of the worker now, after a job whose answer has come."""
        number = self._number(1)
        self.jobs[number] = MemoryRequest(job)
        self.out.append(Message(HEADER.pack(0, number, kind, MEASURE, 0, 0)))

    def cancel(self, job: AnyJob) -> None:
        """Cancel the calls of a job that a concurrent worker runs."""
        numbers = [number for number, one in self.jobs.items() if one is job]
        self.out.extend([Message(HEADER.pack(0, number, 0, CANCEL, 0, 0)) for number in numbers])

    # --- Receiving ---

    def take_answers(self, messages: deque[call_messages.Message], answers: list[tuple[Any, Any]]) -> Event | None:
        """Add jobs with their answers to ``answers``, up to an event; return the event. Raises ProtocolError."""
        jobs = self.jobs
        while messages:
            message = messages.popleft()
            kind = message[KIND]
            if kind in (RESULT, ERROR, CANCELLED):
                if message[FDS] and self._serializer is not None:
                    self.check_descriptors(message)
                job = jobs.pop(message[NUMBER], None)
                if job is not None:
                    answers.append((job, message))
                    continue
            event = self._event(message) if kind == EVENT else self.take(message)
            if event is not None:
                return event
        return None

    def _event(self, message: call_messages.Message) -> Event | None:
        """Return the event; drop it if it is for the handler of a job that was given up."""
        job = self.jobs.get(message[NUMBER])
        self.check_descriptors(message)
        if job is None or isinstance(job, MemoryRequest):
            return Event(message, self._serializer, self._on_event, None)
        receiver = getattr(job, "work", job)
        if job.on_event is None:
            return Event(message, self._serializer, self._on_event, None, receiver)
        event = Event(message, self._serializer, job.on_event, job.failing, receiver)
        if job.state is not JobState.GIVEN_UP:
            return event
        event.drop()
        return None

    def taken_back(self, numbers: Sequence[int]) -> tuple[list[AnyJob], list[BatchJob]]:
        """Remove calls that will not begin, in one step. Return whole jobs, and parts of other jobs."""
        if numbers:
            self._drops = True
        if self.out:
            self.drop_unsent(numbers)
        by_job: dict[Any, list[int]] = {}
        for number in numbers:
            if number in self.jobs:
                by_job.setdefault(self.jobs[number], []).append(number)
        whole: list[AnyJob] = []
        parts: list[BatchJob] = []
        steps: list[Iterable[object]] = [map(self.jobs.pop, numbers, repeat(None))]
        for job, of_it in by_job.items():
            if isinstance(job, BatchJob) and len(of_it) < job.left:
                part, split = job.split(of_it)
                parts.append(part)
                steps += split
            else:
                whole.append(job)
        if self._memory is not None:  # the worker says nevertheless how large it is
            requests = [each for each in self.jobs.values() if isinstance(each, MemoryRequest) and each.job in by_job]
            steps.append(map(setattr, requests, repeat("job"), repeat(None)))
        in_one_go(*steps)
        return whole, parts

    def not_begun(self) -> list[int]:
        """Return the numbers of the calls that a plain worker, which has ended, has certainly not begun."""
        numbers = [number for number, job in self.jobs.items() if not isinstance(job, MemoryRequest)]
        return numbers[1:] if self._concurrency is None else []

    def list_jobs(self) -> list[AnyJob]:
        """Return all jobs that the worker has or will get, in order."""
        written = (job.job if isinstance(job, MemoryRequest) else job for job in self.jobs.values())
        return [job for job in dict.fromkeys([*written, *self.unwritten]) if job is not None]

    @property
    def outstanding(self) -> int:
        """The number of written calls and queued jobs that have no answer yet."""
        return len(self.jobs) + len(self.unwritten)


class _Written:
    """The messages, jobs and permits of one ``write``, which are then recorded in one step that no interrupt splits."""

    __slots__ = ("count", "defined", "jobs", "out", "parts", "permits")

    def __init__(self) -> None:
        self.out: list[Message] = []
        self.parts: list[bytes] = []  # parts of the next message in ``out``
        self.jobs: dict[int, AnyJob | MemoryRequest] = {}
        self.permits: list[int] = []
        self.defined: Collection[int] = ()
        self.count = 0  # number of jobs

    def put(self, message: Message | None = None) -> None:
        """Make a message of the collected parts, and append the given message after it."""
        if self.parts:
            self.out.append(Message(b"".join(self.parts)))
            self.parts.clear()
        if message is not None:
            self.out.append(message)

    def note(self, calls: JobCalls) -> None:
        """Record in ``calls`` in one step what is to be sent, and which answers will come."""
        self.put()
        call_all(calls.record, (self.out, self.jobs, self.permits, slice(self.count)))
        if self.defined:  # an interrupt before this only makes the worker hear of a function twice
            calls._defined.update(self.defined)


class MemoryRequest:
    """A request for the worker's memory after a job. It takes the place of a job among the written ones.

    ``job`` is None once the job was taken back.
    """

    __slots__ = ("job",)

    def __init__(self, job: AnyJob) -> None:
        self.job: AnyJob | None = job
