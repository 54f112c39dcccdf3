"""Functions that workers know by a number; functions by value are encoded once, kept once and sent once.

A function by value carries what it refers to, which may be large: globals, a closure, the arguments of a partial,
the object of a method. A map takes the function as it is when the map begins. A call takes it as it is at the call, and
encodes it each time, because its data may have changed; if it is large, equal bytes are kept once for all waiting
calls. They are in sealed files in memory, which each worker gets before its first call of the function. A worker
forgets the function when no call needs it any more.
"""

from __future__ import annotations

from itertools import count
from weakref import ref

from _anyfork_child.values.encode import INLINE, CannotTravelError
from _anyfork_child.values.message import Message, message_of
from _anyfork_child.wire.call_messages import FRESH, VALUE

from .._errors import ArgumentError
from .._processes.arguments import encode_for
from .durations import JobDuration
from .function_weight import heaviest, tell_weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from _anyfork_child.values.by_name_or_value import Receiver
    from _anyfork_child.values.encode import Encoded


FIRST_BY_VALUE = 1 << 24  # numbers of functions by value; functions by name have smaller numbers
LARGE = 10 << 20  # bytes: a log record is written for a function by value that is larger


class KnownFunction:
    """A function with a number. ``message`` tells a worker of it, and the executor notes how long its calls take."""

    __slots__ = ("__weakref__", "_duration", "message", "number")

    def __init__(self, number: int, message: Message) -> None:
        self.number: int = number
        self.message: Message = message
        self._duration: JobDuration | None = None

    @property
    def duration(self) -> JobDuration:
        """The record of how long calls of the function take in an Executor."""
        if self._duration is None:
            self._duration = JobDuration()
        return self._duration

    def tell(self) -> Message:
        """Return the message that sends the function to another worker."""
        return self.message.again(bytes(self.message.data))


class FunctionsByValue:
    """The functions by value for the workers of one pool, or for one worker: the ``receiver``."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._numbers = count(FIRST_BY_VALUE)
        self._by_digest: dict[bytes, ref[KnownFunction]] = {}
        self._told: set[str] = set()  # names of functions for which a log record was written

    def take(self, call: str, function: Callable[..., Any] | str) -> KnownFunction:
        """Encode a function for many calls, as it is now. Raises ArgumentError and OSError."""
        return self._known(call, function, self._encode(call, function), 0)

    def take_large(self, call: str, function: Callable[..., Any]) -> KnownFunction | None:
        """Encode a function for one call if it is large, else return None. Raises ArgumentError and OSError."""
        encoded = self._encode(call, function)
        if encoded.size <= INLINE and not encoded.buffers:
            return None
        return self._known(call, function, encoded, FRESH)

    def looks_large(self, function: Callable[..., Any]) -> bool:
        """Return whether the function refers to a large object, as far as this is visible without encoding it."""
        return heaviest(function)[0] > INLINE

    def _encode(self, call: str, function: Callable[..., Any] | str) -> Encoded:
        return encode_for(call, (function,), 0, out_of_band=not self._receiver.remote, receiver=self._receiver)

    def _known(self, call: str, function: Callable[..., Any] | str, encoded: Encoded, detail: int) -> KnownFunction:
        size = encoded.size + sum(buffer.nbytes for buffer in encoded.buffers)
        if size > LARGE:
            self._tell(call, function, size)
        if size <= INLINE or encoded.fds:  # two descriptors may have the same number and be different files
            return self._new(call, encoded, detail)
        digest = _digest(encoded, detail)
        found = self._by_digest.get(digest)
        known = None if found is None else found()
        if known is None:
            known = self._new(call, encoded, detail)
            self._by_digest[digest] = ref(known, lambda gone: self._forget(digest, gone))
        return known

    def _forget(self, digest: bytes, gone: ref[KnownFunction]) -> None:
        """Forget a function that no longer exists, unless another thread has already put an equal one in its place."""
        if self._by_digest.get(digest) is gone:
            self._by_digest.pop(digest, None)

    def _new(self, call: str, encoded: Encoded, detail: int) -> KnownFunction:
        number = next(self._numbers)
        try:
            message = message_of(VALUE, number, detail, encoded, remote=self._receiver.remote)
        except CannotTravelError as error:
            raise ArgumentError(f"the function of {call}() cannot travel to another process: {error}") from error
        try:
            message.write_files()
            message.keep()
        except BaseException:
            message.close()
            raise
        return KnownFunction(number, message)

    def _tell(self, call: str, function: Callable[..., Any] | str, size: int) -> None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        if name not in self._told:
            self._told.add(name)
            tell_weight(call, name, function, size)


def _digest(encoded: Encoded, detail: int) -> bytes:
    from hashlib import sha256  # the fastest hash where the processor supports it

    found = sha256(f"{detail} {encoded.size} {len(encoded.buffers)} ".encode())
    for piece in encoded.pieces:
        found.update(piece)
    for buffer in encoded.buffers:
        found.update(buffer.nbytes.to_bytes(8, "little"))
        found.update(buffer)
    return found.digest()
