"""The queue of jobs of one worker of an Executor, without I/O: writing jobs, taking them back, matching answers."""

from __future__ import annotations

from itertools import repeat

from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import CANCELLED, ERROR, EVENT, HEADER, HELD, KIND, MEASURE, NUMBER, RESULT

from .._calls.calls import LAST_NUMBER, Calls
from .._calls.events import Event
from .._calls.known_functions import FIRST_BY_VALUE
from .._calls.permits import MOST
from .._system.locks import call_all, in_one_go
from .jobs import BatchJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.known_functions import KnownFunction
    from .jobs import AnyJob

LOW = 2  # jobs: with fewer written ones, a worker might run out of work before the next look
MANY = 16  # jobs that are written at once, without waiting for the next look


class JobCalls(Calls):
    """The jobs of one worker. ``permits`` are the numbers that have to be given before ``out`` is sent.

    ``record`` are the methods that record written messages, jobs and permits, and remove the jobs from ``unwritten``.
    """

    kind = "Executor worker"
    in_pool = True

    def __init__(self, on_event: Handler | None, memory: int | None, receiver: Receiver) -> None:
        super().__init__(None, None, on_event, receiver)
        self._memory = memory  # the kind of memory that is measured after each job
        self.unwritten: list[AnyJob] = []
        self.jobs: dict[int, AnyJob | MemoryRequest] = {}  # written jobs, by the numbers of their answers
        self.permits: list[int] = []
        self.record = self.out.extend, self.jobs.update, self.permits.extend, self.unwritten.__delitem__
        self._defined = {0}  # the numbers of functions by name that the worker knows
        self._next = 1
        self._drops = False  # the worker has jobs without permits before the next one: that needs a permit, too

    # --- Sending ---

    def add(self, jobs: Iterable[AnyJob]) -> bool:  # type: ignore[override]  # other calls
        """Queue jobs for this worker. Return True if they must be written now, False if there is time for that."""
        self.unwritten.extend(jobs)
        return len(self.jobs) < LOW or len(self.unwritten) >= MANY

    def write(self) -> None:
        """Write queued jobs to ``out``, and their numbers to ``permits``, as many as the pipe of permits holds."""
        written = _Written()
        if self._requests.unwanted:
            self.out.append(Message(self._requests.drop_unwanted()))
        present, jobs = len(self.jobs), written.jobs
        for job in self.unwritten:
            if len(jobs) + job.size > MOST - present and (present or jobs):
                break
            self._write(job, written, HELD if present or jobs or job.size > 1 or self._drops else 0)
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

    # --- Receiving ---

    def take_answers(self, messages: deque[call_messages.Message], answers: list[tuple[Any, Any]]) -> None:
        """Take messages, and add jobs with their answers and events with None to ``answers``. Raises ProtocolError."""
        jobs = self.jobs
        while messages:
            message = messages.popleft()
            if message[KIND] in (RESULT, ERROR, CANCELLED):
                job = jobs.pop(message[NUMBER], None)
                if job is not None:
                    answers.append((job, message))
                    continue
            event = self._event(message) if message[0] == EVENT else self.take(message)
            if event is not None:
                answers.append((event, None))

    def _event(self, message: call_messages.Message) -> Event:
        job = self.jobs.get(message[NUMBER])
        handler = None if job is None or type(job) is MemoryRequest else job.on_event  # type: ignore[union-attr]  # no MemoryRequest
        return Event(message, None, handler or self._on_event, None)

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
        in_one_go(*steps)
        return whole, parts

    def list_jobs(self) -> list[AnyJob]:
        """Return all jobs that the worker has or will get, in order."""
        written = (job.job if type(job) is MemoryRequest else job for job in self.jobs.values())
        return [*dict.fromkeys([*written, *self.unwritten])]  # type: ignore[list-item]  # jobs

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
    """A request for the worker's memory after a job. It takes the place of a job among the written ones."""

    __slots__ = ("job",)
    state = None

    def __init__(self, job: AnyJob) -> None:
        self.job = job
