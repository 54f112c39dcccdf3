"""The requests to a worker: functions get numbers, which the worker is told once, and arguments become bytes."""

from __future__ import annotations

from _pickle import dumps
from collections import deque
from itertools import count
from weakref import ref

from _anyfork_child.values.encode import INLINE, PROTOCOL, CannotTravelError, is_plain
from _anyfork_child.values.message import Message, in_pieces, message_of
from _anyfork_child.values.scalars import FORMAT, SCALARS, dump_scalars
from _anyfork_child.wire.call_messages import CALL, FORGET, FUNCTION, HEADER, SMALL_CALL
from _anyfork_child.wire.signals import comes_from_outside

from .._errors import ArgumentError
from .._processes.arguments import check_function, encode_for
from .._system.import_path import ORDINARY
from .._system.locks import in_one_go
from .known_functions import KnownFunction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer

MAX_FUNCTIONS = 1000  # functions that have numbers; others are named in each call


def small(args: Sequence[object]) -> bytes:
    """Pickle arguments that pickle alone handles correctly, if the result is short; otherwise return no bytes."""
    for value in args:
        if type(value) not in SCALARS:
            if not all(map(is_plain, args)):
                return b""
            body = dumps(args, PROTOCOL)
            break
    else:
        body = dump_scalars(args, FORMAT)
    return body if len(body) <= INLINE else b""


def _can_travel(serializer: Serializer, args: Sequence[object]) -> bool:
    """Return whether the arguments can be serialized now: then an earlier error was not caused by them."""
    try:
        serializer.dumps(args)
    except Exception:  # the earlier error is reported, whatever this one is
        return False
    return True


class Requests:
    """The requests that one worker can be sent. ``definitions`` of functions go out before the next call."""

    def __init__(
        self, serializer: Serializer | None, receiver: Receiver = ORDINARY, limit: float = MAX_FUNCTIONS
    ) -> None:
        self.definitions: deque[Message] = deque()
        self.functions: dict[object, int] = {}
        self.unwanted: deque[int] = deque()  # numbers of functions by value that no longer exist: see drop_unwanted
        self._told: dict[int, ref[KnownFunction]] = {}  # functions by value that the worker was told of
        self._serializer = serializer
        self._receiver = receiver
        self._limit = limit
        self._numbers = count(1)

    def number(self, call: str, function: Callable[..., object] | str | KnownFunction) -> int:
        """Return the number of a function; 0 for a function by value. Raises ArgumentError for an object that is no
        function.
        """
        try:
            return self.functions[function]
        except (KeyError, TypeError):
            return self._define(call, function)

    def tell(self, function: KnownFunction) -> int:
        """Return the number of a function by value; tell the worker of the function before its first call."""
        number, unwanted = function.number, self.unwanted
        if number not in self._told:
            told = ref(function, lambda _: unwanted.append(number))
            in_one_go(map(self._told.__setitem__, (number,), (told,)), map(self.definitions.append, (function.tell(),)))
        return number

    def drop_unwanted(self) -> bytes:
        """Return the messages that make the worker forget functions by value that no call needs any more."""
        parts = []
        while self.unwanted:
            number = self.unwanted.popleft()
            del self._told[number]
            parts.append(HEADER.pack(0, number, 0, FORGET, 0, 0))
        return b"".join(parts)

    def _define(self, call: str, function: Callable[..., object] | str | KnownFunction) -> int:
        if isinstance(function, KnownFunction):
            return self.tell(function)
        check_function(call, function)
        name = function if isinstance(function, str) else self._receiver.name_of(function)
        if name is None or len(self.functions) >= self._limit:
            return 0
        body = name.encode()
        number = next(self._numbers)
        self.definitions.append(Message(HEADER.pack(len(body), number, 0, FUNCTION, 0, 0) + body))
        self.functions[function] = number
        return number

    def message(
        self,
        name: str,
        kind: int,
        number: int,
        detail: int,
        function: Callable[..., object] | str | KnownFunction,
        args: Sequence[Any],
    ) -> Message:
        """Make and encode the message of a call. ``detail`` is the number of the function. Raises ArgumentError."""
        if self._serializer is None:
            if detail and kind == CALL and (body := small(args)):
                return Message(HEADER.pack(len(body), number, detail, SMALL_CALL, 0, 0) + body)
            values = args if detail else (function, *args)
            out_of_band = not self._receiver.remote
            encoded = encode_for(name, values, 1 if detail else 0, out_of_band=out_of_band, receiver=self._receiver)
        else:
            try:
                dumped = self._serializer.dumps(args)
            except Exception as error:  # a serializer may raise anything
                if comes_from_outside(error) or _can_travel(self._serializer, args):
                    raise
                what = f"the arguments of {name}() cannot be encoded by {self._serializer.name}"
                raise ArgumentError(f"{what}: {type(error).__name__}: {error}") from error
            if detail:
                encoded = in_pieces(dumped)
            else:
                by_value = encode_for(name, (function,), 0, receiver=self._receiver)
                if by_value.fds:
                    raise ArgumentError(f"the function of {name}() holds a descriptor, which only pickle can send")
                encoded = in_pieces(by_value.size.to_bytes(4, "little"), *by_value.pieces, dumped)
        try:
            return message_of(kind, number, detail, encoded, remote=self._receiver.remote)
        except CannotTravelError as error:
            raise ArgumentError(f"the arguments of {name}() cannot travel to another process: {error}") from error
