"""The jobs that one worker of an Executor has, without I/O: what is written, what may be taken back, what comes."""

from __future__ import annotations

from collections import deque

from _anyfork_child._call_wire import CANCELLED, ERROR, EVENT, HEADER, HELD, MEASURE, RESULT
from _anyfork_child._message import Message

from ._calls import LAST_NUMBER, Calls
from ._known_functions import FIRST_BY_VALUE
from ._pending import Event
from ._permits import MOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from _anyfork_child import _call_wire
    from _anyfork_child._receiver import Receiver

    from ._executor_jobs import AnyJob
    from ._known_functions import KnownFunction
    from ._pending import Handler

LOW = 2  # with fewer jobs written a worker might run out of them before somebody looks again
MANY = 16  # are written at once, if nobody does before


class JobCalls(Calls):
    """``permits`` are the numbers that have to be given before ``out`` is sent."""

    def __init__(self, on_event: Handler | None, memory: int | None, receiver: Receiver) -> None:
        super().__init__(None, None, on_event, receiver)
        self._memory = memory  # the kind that is asked for after each job
        self.unwritten: deque[AnyJob] = deque()
        self.jobs: dict[int, AnyJob | Measure] = {}  # that were written, by the numbers of their answers
        self.permits: list[int] = []
        self._defined = {0}  # the numbers of functions by name that the worker knows
        self._next = 1

    # --- Out ---

    def add(self, jobs: Iterable[AnyJob]) -> bool:  # type: ignore[override]  # other calls
        """The worker is to have these. True when they should be written now, False when there is time for that."""
        self.unwritten.extend(jobs)
        return len(self.jobs) < LOW or len(self.unwritten) >= MANY

    def write(self) -> None:
        """Put what was added in ``out``, and their numbers in ``permits``, as far as there is room for those."""
        parts: list[bytes] = []
        jobs, unwritten = self.jobs, self.unwritten
        if self._requests.unwanted:
            parts.append(self._requests.drop_unwanted())
        while unwritten and (not jobs or len(jobs) + unwritten[0].size <= MOST):
            job = unwritten.popleft()
            number, count = self._number(job.size), job.size
            held = HELD if jobs or count > 1 else 0
            if job.function.number not in self._defined:
                self._define(job.function, parts)
            message = job.write(parts, number, held)
            if message is not None:
                self._put(parts)
                self.out.append(message)
            if count == 1:
                jobs[number] = job
                if held:
                    self.permits.append(number)
            else:
                numbers = range(number, number + count)
                jobs.update(dict.fromkeys(numbers, job))
                self.permits.extend(numbers)
            if self._memory is not None:
                number = self._number(1)
                jobs[number] = Measure(job)
                parts.append(HEADER.pack(0, number, self._memory, MEASURE, 0, 0))
        self._put(parts)

    def _put(self, parts: list[bytes]) -> None:
        if parts:
            self.out.append(Message(b"".join(parts)))
            parts.clear()

    def _define(self, function: KnownFunction, parts: list[bytes]) -> None:
        """Tell the worker of a function, if it does not know it."""
        if function.number < FIRST_BY_VALUE:
            self._defined.add(function.number)
            parts.append(bytes(function.message.data))
            return
        self._requests.tell(function)
        if self._requests.definitions:
            self._put(parts)
            self._define_first()

    def _number(self, count: int) -> int:
        number = self._next
        if number + count > LAST_NUMBER:
            number = 1
        self._next = number + count
        return number

    # --- In ---

    def take_answers(self, messages: deque[_call_wire.Message], answers: list[tuple[Any, Any]]) -> None:
        """Take messages: answers to jobs, and events with None. Raises ProtocolError."""
        jobs = self.jobs
        while messages:
            message = messages.popleft()
            if message[0] in (RESULT, ERROR, CANCELLED):
                job = jobs.pop(message[1], None)
                if job is not None:
                    answers.append((job, message))
                    continue
            event = self._event(message) if message[0] == EVENT else self.take(message)
            if event is not None:
                answers.append((event, None))

    def _event(self, message: _call_wire.Message) -> Event:
        job = self.jobs.get(message[1])
        handler = None if job is None or type(job) is Measure else job.on_event  # type: ignore[union-attr]  # it is not
        return Event(message, None, handler or self._on_event, None)

    def taken_back(self, numbers: Sequence[int]) -> list[tuple[AnyJob, int]]:
        """These will not begin: their jobs."""
        if self.out:
            self.drop_unsent(numbers)
        return [(self.jobs.pop(number), number) for number in numbers if number in self.jobs]  # type: ignore[misc]  # jobs

    @property
    def outstanding(self) -> int:
        """How many have no answer yet."""
        return len(self.jobs) + len(self.unwritten)


class Measure:
    """In the place of a job: the question how large the worker is after one."""

    __slots__ = ("job",)
    state = None

    def __init__(self, job: AnyJob) -> None:
        self.job = job
