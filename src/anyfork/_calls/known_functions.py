"""The functions that workers know by a number, and functions by value, which each worker is told once.

A function by value carries what it refers to, which may be large: globals, a closure, the arguments of a partial, the
object of a method. A map takes the function as it is when the map begins. A call takes it as it is at the call, and
encodes it each time, because its data may have changed (``fingerprint`` tells whether it may); if it is large, equal
bytes are kept once for all waiting calls, in sealed files in memory. Each worker gets the function before its first
call of it, and forgets it when no call needs it any more. A log record names what makes a function large. People see
functions by their labels.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import count
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from weakref import ref

from _anyfork_child.values.encode import INLINE, CannotTravelError
from _anyfork_child.values.function_globals import looked_up
from _anyfork_child.values.message import Message, message_of
from _anyfork_child.values.scalars import SCALARS
from _anyfork_child.wire.call_messages import FRESH, VALUE

from .._errors import ArgumentError
from .._processes.arguments import encode_for
from .durations import JobDuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from _anyfork_child.values.encode import Encoded
    from _anyfork_child.values.functions_by_value import Receiver


FIRST_BY_VALUE = 1 << 24  # numbers of functions by value; functions by name have smaller numbers
LARGE = 10 << 20  # bytes: a log record is written for a function by value that is larger


class KnownFunction:
    """A function with a number. ``message`` tells a worker of it, and the executor notes how long its calls take."""

    __slots__ = ("__weakref__", "_duration", "label", "message", "number")

    def __init__(self, number: int, message: Message, label: str = "") -> None:
        self.label: str = label
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
            return self._new(call, function, encoded, detail)
        digest = _digest(encoded, detail)
        found = self._by_digest.get(digest)
        known = None if found is None else found()
        if known is None:
            known = self._new(call, function, encoded, detail)
            self._by_digest[digest] = ref(known, lambda gone: self._forget(digest, gone))
        return known

    def _forget(self, digest: bytes, gone: ref[KnownFunction]) -> None:
        """Forget a function that no longer exists, unless another thread has already put an equal one in its place."""
        if self._by_digest.get(digest) is gone:
            self._by_digest.pop(digest, None)

    def _new(self, call: str, function: Callable[..., Any] | str, encoded: Encoded, detail: int) -> KnownFunction:
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
        return KnownFunction(number, message, label_of(function))

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


MEASURED_DEPTH = 1  # levels of functions that refer to functions of their own module
LIGHT = (ModuleType, type, FunctionType, BuiltinFunctionType)


def heaviest(function: object) -> tuple[int, str]:
    """Return the size in bytes and the name of the largest object that a function refers to; nested data is not
    measured.
    """
    return max(((_size(value), what) for what, value in _carried(function, 0)), default=(0, ""))


def _carried(function: object, depth: int) -> Iterator[tuple[str, object]]:
    if isinstance(function, FunctionType):
        yield from _referred(function, depth)
    elif isinstance(function, partial):
        yield from ((f"argument {index} of the partial", value) for index, value in enumerate(function.args, 1))
        yield from ((f"the argument {name!r} of the partial", value) for name, value in function.keywords.items())
        yield from _carried(function.func, depth)
    elif isinstance(function, MethodType):
        yield from _within("the object of the method", function.__self__)
        yield from _carried(function.__func__, depth)
    elif isinstance(function, BuiltinFunctionType):
        yield from _within("the object of the method", function.__self__)
    else:
        yield from _within("the object that is called", function)


def _referred(function: FunctionType, depth: int) -> Iterator[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found.append((f"the closure's {name!r}", cell.cell_contents))
        except ValueError:  # not set yet
            continue
    there = function.__globals__
    found += [(f"the global {name!r}", there[name]) for name in names_of(function.__code__) if name in there]
    found += [("a default of an argument", value) for value in function.__defaults__ or ()]
    for what, value in found:
        if isinstance(value, FunctionType) and value.__module__ == function.__module__ and depth < MEASURED_DEPTH:
            yield from _carried(value, depth + 1)
        else:
            yield what, value


def _within(what: str, value: object) -> Iterator[tuple[str, object]]:
    yield what, value
    for name, attribute in getattr(value, "__dict__", {}).items() if not isinstance(value, LIGHT) else ():
        yield f"{what}, its attribute {name!r}", attribute


def _size(value: object) -> int:
    if isinstance(value, LIGHT):
        return 0
    try:
        size = getattr(value, "nbytes", None) if hasattr(type(value), "nbytes") else None
        return size if isinstance(size, int) else sys.getsizeof(value)
    except Exception:  # a property or a __sizeof__ of the user's class may raise anything; the size is a guess
        return 0


def tell_weight(call: str, name: str, function: object, size: int) -> None:
    """Write a log record about a function that carries much data."""
    import logging

    weight, what = heaviest(function)
    most = f", most of it in {what}" if 2 * weight > size else ""
    logging.getLogger("anyfork").warning(
        "%s(): the function %s takes %.0f MB of data with it to each worker%s; to have the data there once for all "
        "workers, load it in their template: template.prepare(load), or in a module that template.preload() names",
        call,
        name,
        size / 1e6,
        most,
    )


COMPARED_DEPTH = 4  # levels of functions that refer to functions
FIXED = SCALARS | {str, bytes}
SIGNED = (float, complex)  # 0.0 and -0.0 are equal


def fingerprint(function: object, receiver: Receiver, depth: int = 0) -> tuple[object, ...] | None:
    """Return what a plain function refers to, in a form that can be compared; None if objects it refers to may be
    changed in place.
    """
    if type(function) is not FunctionType or depth > COMPARED_DEPTH:
        return None
    if function.__dict__ or function.__kwdefaults__:
        return None
    found: list[object] = [function.__code__]
    for value in _compared(function):
        mark = _mark(value, receiver, depth) if value is not function else "itself"
        if mark is None:
            return None
        found.append(mark)
    return tuple(found)


def _mark(value: object, receiver: Receiver, depth: int) -> object:
    """Return an object that differs when the value differs; None if the value may be changed in place."""
    if type(value) in FIXED:
        return type(value), value if type(value) not in SIGNED else repr(value)
    if isinstance(value, ModuleType):
        return value if sys.modules.get(value.__name__) is value else None  # any other one goes by value
    if isinstance(value, FunctionType | BuiltinFunctionType | type) and receiver.name_of(value) is not None:
        return value
    return fingerprint(value, receiver, depth + 1)


def _compared(function: FunctionType) -> Iterator[object]:
    yield from function.__defaults__ or ()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not set yet
            yield object()
    for _, value, _ in looked_up(function):
        yield value
    there = function.__globals__
    for name in sorted(names_of(function.__code__)):
        if name in there:
            yield there[name]
        else:
            yield NameError  # a builtin, an attribute, or a global that is not set yet: no value that one is set to


def names_of(code: CodeType) -> set[str]:
    """Return the names of globals, builtins and attributes in the code of a function."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_of(constant)
    return found


def label_of(function: Callable[..., Any] | str) -> str:
    """Return the name of a function for people. Pools with a timeline call this for every job."""
    try:
        return function.__qualname__  # type: ignore[union-attr]  # names and partials have none
    except AttributeError:
        return _label_of_other(function)


def _label_of_other(function: Callable[..., Any] | str) -> str:
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(function, str) else getattr(function, "__qualname__", type(function).__qualname__)
