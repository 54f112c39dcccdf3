"""Functions and arguments encoded for another process: bytes and descriptors, or an error that names the culprit."""

from __future__ import annotations

import _signal
import os

from _anyfork_child.values.encode import CannotTravelError, Encoded, encode
from _anyfork_child.wire.signals import comes_from_outside

from .._errors import ArgumentError
from .._system.import_path import ORDINARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal, NoReturn, TypeAlias

    from _anyfork_child.values.functions_by_value import Receiver

    Argument: TypeAlias = str | bytes | os.PathLike[str]
    Signals: TypeAlias = tuple[Sequence[int], Sequence[int]]  # those that a program ignores, and those that it blocks
    Kind: TypeAlias = Literal["-m", "-c", ""]  # a module, code or a script, as in a command line of the interpreter

ENTRY = "_anyfork_child.program.entry"
NEEDED = (ENTRY, "runpy")  # what every program needs in its process
CALLS: dict[Kind, str] = {"-m": "run_module", "-c": "run_code", "": "run_script"}
PYTHONS_OWN = {_signal.SIGPIPE, _signal.SIGXFSZ}  # the interpreter ignores them in every program


class Stays:
    """An object that belongs to this process; the error of pickling it says what to hand over instead."""

    __slots__ = ()
    _instead = ""  # what to do instead; follows a colon

    def __reduce__(self) -> NoReturn:
        raise ArgumentError(f"this {type(self).__name__} belongs to the process that has made it: {self._instead}")


def encode_values(call: str, values: Sequence[object], receiver: Receiver = ORDINARY) -> Encoded:
    """Pickle positional arguments. Raises ArgumentError, which names the argument that cannot travel."""
    return encode_for(call, values, 1, receiver=receiver)


def encode_call(
    call: str, function: Callable[..., object] | str, values: Sequence[object], receiver: Receiver = ORDINARY
) -> Encoded:
    """Encode a function, by name if it has one, and its arguments. Raises ArgumentError."""
    check_function(call, function)
    name = function if isinstance(function, str) else receiver.name_of(function)
    if name is None:
        return encode_for(call, (function, *values), 0, receiver=receiver)
    encoded = encode_for(call, values, 1, receiver=receiver) if values else Encoded()
    encoded.name = name.encode()
    return encoded


def encode_async_call(
    call: str,
    backend: str,
    function: Callable[..., object] | str,
    values: Sequence[object],
    receiver: Receiver = ORDINARY,
) -> Encoded:
    """Encode an async function that runs under this backend, and its arguments. Raises ArgumentError."""
    from functools import partial

    from _anyfork_child.values.async_function import BACKENDS, run_async

    if backend not in BACKENDS:
        raise ArgumentError(f"{call}() has no backend {backend!r}; there are {' and '.join(BACKENDS)}")
    check_function(call, function)
    return encode_for(call, (partial(run_async, backend, function), *values), 0, receiver=receiver)


def refused_keywords(
    call: str, function: Callable[..., object] | str, keywords: Mapping[str, object], options: str = ""
) -> ArgumentError:
    """Return the error for keyword arguments that are not options: they were meant for the function."""
    name = "function" if isinstance(function, str) else getattr(function, "__name__", None) or "function"
    given = ", ".join(f"{keyword}={_short(value)}" for keyword, value in keywords.items())
    known = f" (its options are {options})" if options else ""
    return ArgumentError(
        f"{call}() has no option {min(keywords)!r}{known}: a keyword argument of the function is given by "
        f"functools.partial({name}, {given})"
    )


def check_function(call: str, function: object) -> None:
    """Raise ArgumentError for an object that is neither a function nor the name of one."""
    if not isinstance(function, str):
        if not callable(function):
            kind = type(function).__name__
            raise ArgumentError(f"{call}() needs a function or 'module:name', not {kind}, as its first argument")
    elif not all(part.isidentifier() for part in function.replace(":", ".", 1).split(".")):
        raise ArgumentError(
            f"{call}() needs a function's name as 'package.module:qualified.name', not {function!r}, as its first "
            "argument, or the function itself"
        )


def encode_for(
    call: str, values: Sequence[object], first: int, out_of_band: bool = False, receiver: Receiver = ORDINARY
) -> Encoded:
    """Pickle values. ``first`` is the number of the first value among the arguments of the call, 0 for the function.

    Raises ArgumentError, which names the value that cannot travel.
    """
    try:
        return encode(values, receiver, out_of_band)
    except Exception as error:  # pickling runs code of the values' classes, which may raise anything
        blamed = None if comes_from_outside(error) else _blame(values, error, receiver)
        if blamed is None:
            raise
        index, why = blamed
        what = f"argument {index + first}" if index + first else "the function"
        text = f"{what} of {call}() ({_short(values[index])}) cannot travel to another process: {why}"
        raise ArgumentError(text) from error


def _blame(values: Sequence[object], error: Exception, receiver: Receiver) -> tuple[int, str] | None:
    """Return the index of the value that cannot travel, and why.

    Return None if each value can travel alone, so that the error is not theirs.
    """
    from .culprit import reason  # only now: most values travel

    for index, value in enumerate(values):
        try:
            encode((value,), receiver)
        except Exception as again:
            if comes_from_outside(again):
                raise
            return index, reason(value, again, receiver)
    return (0, str(error)) if isinstance(error, CannotTravelError) else None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a __repr__ of the user's class may raise anything; the type says enough
        text = ""
    return text if 0 < len(text) <= 80 else f"a {type(value).__name__}"


def encode_program(
    kind: Kind,
    target: Argument,
    argv: Sequence[Argument],
    remote: bool,
    starter: Sequence[object] = (),
    signals: Signals | None = None,
) -> Encoded:
    """Encode a Python program: a module, code or a script, and its arguments. Raises ArgumentError.

    It ignores and blocks the given ``signals``; by default those that this thread does, unless it runs on another
    machine. ``starter`` is for anyfork.subprocess and ``anyfork run``.
    """
    call = CALLS[kind]
    texts = [_text(call, part) for part in (target, *argv)]
    if kind == "-m" and not texts[0]:
        raise ArgumentError("run_module() needs the name of a module, not an empty string")
    if signals is None:
        signals = ((), ()) if remote else (_ignored(), sorted(_signal.pthread_sigmask(_signal.SIG_BLOCK, ())))
    return encode_call(call, f"{ENTRY}:run", (kind, texts[0], texts[1:], *signals, starter))


def _text(call: str, part: Argument) -> str:
    try:
        text = os.fsdecode(part)
    except TypeError as error:
        raise ArgumentError(f"{call}() needs strings or paths as its arguments: {error}") from error
    if "\0" in text:
        raise ArgumentError(f"{call}() cannot pass {part!r}: an argument of a program has no null character")
    return text


def _ignored() -> list[int]:
    getsignal = _signal.getsignal
    return [
        number
        for number in _signal.valid_signals()
        if number not in PYTHONS_OWN and getsignal(number) == _signal.SIG_IGN
    ]
