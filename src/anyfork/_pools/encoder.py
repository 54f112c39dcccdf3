"""The encoder of a pool: calls and functions as bytes that any worker of the pool understands. Nothing here waits."""

from __future__ import annotations

from _pickle import Pickler
from _thread import RLock
from weakref import WeakKeyDictionary, ref

from _anyfork_child.values.encode import INLINE, PROTOCOL
from _anyfork_child.values.message import Message
from _anyfork_child.values.scalars import FORMAT, SCALARS, dump_scalars
from _anyfork_child.wire.call_messages import CALL, CHUNK, FUNCTION, HEADER, KEYWORDS, SMALL_CALL, SMALL_KEYWORDS

from .._calls.known_functions import FunctionsByValue, KnownFunction, fingerprint
from .._calls.requests import Requests
from .._errors import ArgumentError
from .._processes.arguments import check_function
from .._system.locks import do_locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TypeAlias

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer

    Encoded: TypeAlias = tuple[KnownFunction, int, bytes | Message]  # function, kind of the message, message or body

MAX_FUNCTIONS = 1000  # functions by name that get numbers; further ones are sent with each call


class FunctionTable:
    """The functions of a pool, by number. A worker gets a function before the first call of it."""

    def __init__(self, call: str, receiver: Receiver) -> None:
        self._call = call  # the method that error messages name
        self._receiver = receiver
        self.by_value = FunctionsByValue(receiver)
        self.none = KnownFunction(0, Message(b""))  # stands for a function that is sent with each call
        self._by_name: dict[object, KnownFunction] = {}
        self._same: WeakKeyDictionary[object, tuple[object, KnownFunction]] = WeakKeyDictionary()
        self._seen: ref[object] | None = None  # the last function that was sent by value
        self._lock = RLock()  # numbers are given by any thread

    def find(self, function: Callable[..., Any] | str) -> KnownFunction:
        """Return the function as workers know it, or ``none`` if it is sent with each call.

        Raises ArgumentError if it is not a function.
        """
        try:
            return self._by_name[function]
        except (KeyError, TypeError):
            return do_locked(self._lock, self._define, function)

    def find_for_many(self, function: Callable[..., Any] | str) -> KnownFunction:
        """Return the function in its present state, for many calls. Raises ArgumentError, and OSError."""
        known = self.find(function)
        return self.by_value.take("map", function) if known is self.none else known

    def _define(self, function: Callable[..., Any] | str) -> KnownFunction:
        check_function(self._call, function)
        name = function if isinstance(function, str) else self._receiver.name_of(function)
        if name is None:
            return self._define_value(function)
        if function in self._by_name:  # another thread has defined it meanwhile
            return self._by_name[function]
        number = len(self._by_name) + 1
        if number > MAX_FUNCTIONS:
            return self.none
        body = name.encode()
        known = KnownFunction(number, Message(HEADER.pack(len(body), number, 0, FUNCTION, 0, 0) + body))
        self._by_name[function] = known
        return known

    def _define_value(self, function: Any) -> KnownFunction:
        """Give a number to a function that is sent by value; return ``none`` if it is sent with each call instead.

        Each worker gets it once, as long as nothing that it refers to can have changed.
        """
        print_now = fingerprint(function, self._receiver)
        if print_now is None:
            return self.none
        before, known = self._same.get(function, (None, self.none))
        if before != print_now:
            if (self._seen is None or self._seen() is not function) and not self.by_value.looks_large(function):
                self._seen = ref(function)  # no number yet: most functions are called once
                return self.none
            try:
                known = self.by_value.take(self._call, function)
            except ArgumentError:  # encoding the call reports the error
                return self.none
            self._same[function] = print_now, known
        return known


class JobEncoder:
    """An encoder of calls, for all workers of a pool. Its methods raise ArgumentError and OSError.

    ``call`` is the method that error messages name. Large values are in files, which are not written yet: see
    Message.fills.
    """

    def __init__(self, call: str, serializer: Serializer | None, receiver: Receiver) -> None:
        self.functions = FunctionTable(call, receiver)
        self._call = call
        self._serializer = serializer
        self._requests = Requests(serializer, receiver)

    def encode(
        self, function: Callable[..., Any] | str, args: Sequence[Any], keywords: dict[str, Any] | None = None
    ) -> Encoded:
        """Encode a call. Return the function, the kind of the message, and the message or, if it is small, its body."""
        known = self.functions.find(function)
        if known.number:
            return self._encode_known(known, function, args, keywords)
        if isinstance(function, str):
            called = with_keywords(_found(function), keywords) if keywords else function
            return known, CALL, self._message(CALL, 0, called, args)
        by_value = self.functions.by_value
        large = by_value.take_large(self._call, function) if by_value.looks_large(function) else None
        if large is None:
            message = self._message(CALL, 0, with_keywords(function, keywords), args)
            if message.size <= INLINE or (large := by_value.take_large(self._call, function)) is None:
                return known, CALL, message
            message.close()
        return self._encode_known(large, function, args, keywords)

    def encode_item(self, known: KnownFunction, function: Callable[..., Any] | str, item: Any, chunk: bool) -> Encoded:
        """Encode an item of a map as ``encode`` does: the arguments of a call, or a chunk of such arguments."""
        if chunk:
            return known, CHUNK, self._message(CHUNK, known.number, function, (item,))
        return self._encode_known(known, function, item, None)

    def _encode_known(
        self,
        known: KnownFunction,
        function: Callable[..., Any] | str,
        args: Sequence[Any],
        keywords: dict[str, Any] | None,
    ) -> Encoded:
        if self._serializer is None:
            body = simple((args, keywords)) if keywords else simple_arguments(args)
            if body is not None:
                return known, SMALL_KEYWORDS if keywords else SMALL_CALL, body
        if keywords:
            return known, KEYWORDS, self._message(KEYWORDS, known.number, function, (args, keywords))
        return known, CALL, self._message(CALL, known.number, function, args)

    def _message(self, kind: int, number: int, function: Callable[..., Any] | str, args: Sequence[Any]) -> Message:
        message = self._requests.message(self._call, kind, 0, number, function, args)
        try:
            message.keep()  # the message may wait in a queue, and have to be sent again
        except BaseException:
            message.close()
            raise
        return message


def with_keywords(function: Callable[..., Any], keywords: dict[str, Any] | None) -> Callable[..., Any]:
    """Bind keyword arguments to the function; return it unchanged if there are none."""
    if not keywords:
        return function
    from functools import partial

    return partial(function, **keywords)


def _found(function: str) -> Callable[..., Any]:
    from _anyfork_child.values.decode import find_function

    return find_function(function)


class _NotSimpleError(Exception):
    """The error for a value that is not simple."""


class _SimplePickler(Pickler):
    def reducer_override(self, _: Any) -> NoReturn:  # called for every value that pickle has no built-in support for
        raise _NotSimpleError


def simple(values: Any, limit: int = INLINE) -> bytes | None:
    """Pickle simple values. Return None if the pickle would run code, or is longer than ``limit`` bytes.

    Values that are nested too deeply for the pickler give None, too.
    """
    pieces: list[bytes] = []
    pickler = _SimplePickler(_Pieces(pieces), PROTOCOL)
    try:
        pickler.dump(values)
    except (_NotSimpleError, RecursionError):
        return None
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return body if len(body) <= limit else None


def simple_arguments(args: Sequence[object]) -> bytes | None:
    """Pickle the arguments of one call as ``simple`` does, by a shortcut if all are scalars, as most are."""
    for value in args:
        if type(value) not in SCALARS:
            return simple(args)
    body = dump_scalars(args, FORMAT)
    return body if len(body) <= INLINE else None


class _Pieces:
    """A file object that collects the pieces that a pickler writes."""

    __slots__ = ("write",)

    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append
