"""The calls of one worker of a pool, without I/O: what to send is put together here; when, is the pool's to say."""

from __future__ import annotations

from _pickle import dumps
from math import inf

from _anyfork_child._call_wire import HEADER, MEASURE, SMALL_CALL, SMALL_CALLS
from _anyfork_child._encoding import PROTOCOL
from _anyfork_child._message import Message

from ._calls import Calls
from ._modules import ORDINARY
from ._requests import Requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from _anyfork_child._receiver import Receiver
    from _anyfork_child._serializers import Serializer

    from ._pending import Answer, Handler

pack = HEADER.pack


class PoolCalls(Calls):
    """Calls that were encoded before. All that is begun is sent together, after ``gather``."""

    def __init__(
        self, serializer: Serializer | None = None, on_event: Handler | None = None, receiver: Receiver = ORDINARY
    ) -> None:
        super().__init__(serializer, None, on_event, receiver)
        self._requests = Requests(serializer, receiver, inf)
        self._parts: list[bytes] = []

    def begin(self, answer: Answer, function: Callable[..., Any] | str | None, body: bytes) -> None:
        """A call with a plain pickle of its arguments."""
        detail = self._detail(function)
        number = self._begin(answer)
        self._parts += (pack(len(body), number, detail, SMALL_CALL, 0, 0), body)

    def begin_items(
        self, answers: Sequence[Answer], function: Callable[..., Any] | str | None, items: Sequence[Any]
    ) -> None:
        """Several with one small argument each. They run in their order."""
        detail = self._detail(function)
        numbers = [self._begin(answer) for answer in answers]
        body = dumps((numbers, items), PROTOCOL)
        self._parts += (pack(len(body), numbers[0], detail, SMALL_CALLS, 0, 0), body)

    def begin_message(self, answer: Answer, function: Callable[..., Any] | str | None, encoded: Message) -> None:
        """One that was encoded as a message, which stays as it is: it may have to be sent to another worker too."""
        detail = self._detail(function)
        number = self._begin(answer)
        data = bytes(encoded.data)
        length, _, _, kind, flags, count = HEADER.unpack_from(data)
        self.gather()
        self.out.append(encoded.again(pack(length, number, detail, kind, flags, count) + data[HEADER.size :]))

    def begin_measure(self, answer: Answer, kind: int) -> None:
        """Ask how large the worker is."""
        self._parts.append(pack(0, self._begin(answer), kind, MEASURE, 0, 0))

    def _begin(self, answer: Answer) -> int:
        answer.number = number = self._next_number()
        self._sent[number] = answer
        self._running += 1
        return number

    def _detail(self, function: Callable[..., Any] | str | None) -> int:
        """The number of a function, of which the worker is told before its first call; 0 for one by value."""
        if function is None:
            return 0
        known = self._requests.functions.get(function)
        if known is not None:
            return known
        number = self._requests.number("call", function)
        definitions = self._requests.definitions
        while definitions:
            self._parts.append(bytes(definitions.popleft().data))
        return number

    def gather(self) -> None:
        """Put what was begun in what is to be sent."""
        if self._parts:
            self.out.append(Message(b"".join(self._parts)))
            self._parts.clear()
