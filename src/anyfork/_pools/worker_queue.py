"""The calls of one worker of a pool, without I/O. This module assembles the messages; the pool decides when to send."""

from __future__ import annotations

from _pickle import dumps

from _anyfork_child.values.encode import INLINE, PROTOCOL
from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import HEADER, HELD, MEASURE, SMALL_CALL, SMALL_CALLS

from .._calls.call import State
from .._calls.calls import Calls
from .._calls.known_functions import FIRST_BY_VALUE
from .._system.import_path import ORDINARY
from .._system.locks import in_one_go

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer

    from .._calls.call import Answer, Handler
    from .._calls.known_functions import KnownFunction
    from .._calls.permits import Permits
    from .calls import PoolJob

pack = HEADER.pack
ALL = 1 << 14  # more jobs than one worker ever has


class PoolCalls(Calls):
    """The calls of one worker, encoded before. All calls that were begun are sent together, after ``gather``.

    With ``permits`` a call that is sent behind another one can be taken back until it begins, see _calls.permits.
    """

    kind = "Pool worker"
    in_pool = True

    def __init__(
        self,
        serializer: Serializer | None = None,
        on_event: Handler | None = None,
        receiver: Receiver = ORDINARY,
        permits: Permits | None = None,
    ) -> None:
        super().__init__(serializer, None, on_event, receiver)
        self._permits = permits
        self._held: list[int] = []  # the permits to give before the begun calls are sent
        self._drops = False  # the worker has calls without permits before the next one: that needs a permit, too
        self._defined = {0}  # the numbers of functions by name that the worker knows
        self._parts: list[bytes] = []

    def begin(self, answer: Answer, function: KnownFunction, body: bytes) -> None:
        """Begin a call with a plain pickle of its arguments."""
        detail = self._detail(function)
        if (self._sent or self._drops) and self._permits is not None:
            detail |= HELD
            self._drops = False
        number = self._begin(answer)
        if detail >= HELD:
            self._held.append(number)
        self._parts += (pack(len(body), number, detail, SMALL_CALL, 0, 0), body)

    def begin_items(self, answers: Sequence[Answer], function: KnownFunction, items: Sequence[Any]) -> None:
        """Begin several calls with one small argument each. They run in their order."""
        detail, behind = self._detail(function), bool(self._sent) or self._drops
        numbers = [self._begin(answer) for answer in answers]
        body = dumps((numbers, items), PROTOCOL)
        detail |= self._hold(numbers[0], behind)
        self._parts += (pack(len(body), numbers[0], detail, SMALL_CALLS, 0, 0), body)

    def begin_message(self, answer: Answer, function: KnownFunction, encoded: Message) -> None:
        """Begin a call that was encoded as a message.

        The message stays as it is, because it may have to be sent to another worker too.
        """
        detail, behind = self._detail(function), bool(self._sent) or self._drops
        number = self._begin(answer)
        detail |= self._hold(number, behind)
        data = bytes(encoded.data)
        length, _, _, kind, flags, count = HEADER.unpack_from(data)
        self.gather()
        self.out.append(encoded.again(pack(length, number, detail, kind, flags, count) + data[HEADER.size :]))

    def begin_measure(self, answer: Answer, kind: int) -> None:
        """Ask for the size of the worker."""
        self._parts.append(pack(0, self._begin(answer), kind, MEASURE, 0, 0))

    def _begin(self, answer: Answer) -> int:
        answer.number = number = self._next_number()
        self._sent[number] = answer
        self._running += 1
        return number

    def _hold(self, number: int, behind: bool) -> int:
        """Return the flag that a call can be taken back, for its detail, and note its permit.

        The flag is HELD for a call behind another one if there are permits, otherwise 0.
        """
        if not behind or self._permits is None:
            return 0
        self._drops = False
        self._held.append(number)
        return HELD

    def take_back(self, most: int = ALL) -> list[PoolJob]:
        """Take back and return the jobs that the worker has not begun, and will not begin now.

        The caller has to tell the scheduler. With ``most=0``, only complete what an interrupt has stopped.
        """
        if self._permits is None:
            return []
        numbers = self._permits.take_back(most)
        jobs: dict[PoolJob, None] = {}
        gone: list[int] = []
        for number in numbers:
            if number in self._sent:
                job = self._sent[number].job  # type: ignore[attr-defined]  # all answers here are those of jobs
                jobs[job] = None
                gone += job.numbers(number)
        if jobs:
            self._drops = True
            self.drop_unsent(numbers)
            for number, answer in self._sent.items():  # the sizes after these jobs, which the worker sends nevertheless
                if answer.job in jobs and number not in gone:  # type: ignore[attr-defined]  # as above
                    answer.state = State.GIVEN_UP
            in_one_go(map(self._sent.pop, gone))
            self._running -= len(gone)
        self._permits.forget()
        return list(jobs)

    def list_jobs(self) -> list[PoolJob]:
        """Return all jobs that the worker has, in order."""
        return [*dict.fromkeys(answer.job for answer in self._sent.values())]  # type: ignore[attr-defined]  # as above

    def _detail(self, function: KnownFunction) -> int:
        """Return the number of a function, which the worker learns before its first call."""
        number = function.number
        if number in self._defined:
            return number
        if number < FIRST_BY_VALUE:
            self._parts.append(bytes(function.message.data))
            self._defined.add(number)
            return number
        self._requests.tell(function)
        definitions = self._requests.definitions
        while definitions:
            message = definitions.popleft()
            if message.fds or message.size > INLINE:
                self.gather()
                self.out.append(message)
            else:
                self._parts.append(bytes(message.data))
        return number

    def close(self) -> None:
        """Close the pipe of the permits: the worker has ended."""
        if self._permits is not None:
            self._permits.close()

    def gather(self) -> None:
        """Queue the calls that were begun for sending, and give the permits that they need."""
        if self._held:
            assert self._permits is not None
            self._permits.give(self._held)
            self._held.clear()
        if self._requests.unwanted:
            self._parts.append(self._requests.drop_unwanted())
        if self._parts:
            self.out.append(Message(b"".join(self._parts)))
            self._parts.clear()
