"""Functions and arguments as they are handed over: bytes and descriptors, or an error that names what cannot travel."""

from __future__ import annotations

from _anyfork_child import _encoding
from _anyfork_child._encoding import CannotTravelError, Encoded, encode, importable_name
from _anyfork_child._main import NOTHING

from ._errors import ArgumentError
from ._modules import is_importable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _anyfork_child._main import Names

_encoding.is_shared = is_importable


def encode_values(call: str, values: Sequence[object], main: Names = NOTHING) -> Encoded:
    """Pickle positional arguments. Raises ArgumentError that names the argument which cannot travel."""
    return encode_for(call, values, 1, main=main)


def encode_call(
    call: str, function: Callable[..., object] | str, values: Sequence[object], main: Names = NOTHING
) -> Encoded:
    """A function, by name where it has one, and its arguments. Raises ArgumentError."""
    check_function(call, function)
    name = function if isinstance(function, str) else importable_name(function, main)
    if name is None:
        return encode_for(call, (function, *values), 0, main=main)
    encoded = encode_for(call, values, 1, main=main) if values else Encoded()
    encoded.name = name.encode()
    return encoded


def encode_async_call(
    call: str, backend: str, function: Callable[..., object] | str, values: Sequence[object], main: Names = NOTHING
) -> Encoded:
    """The same for an async function that runs under this backend."""
    from functools import partial

    from _anyfork_child._async import BACKENDS, run_async

    if backend not in BACKENDS:
        raise ArgumentError(f"{call}() has no backend {backend!r}; there are {' and '.join(BACKENDS)}")
    check_function(call, function)
    return encode_for(call, (partial(run_async, backend, function), *values), 0, main=main)


def check_function(call: str, function: object) -> None:
    """Raise ArgumentError for what is neither a function nor the name of one."""
    if not isinstance(function, str):
        if not callable(function):
            raise ArgumentError(f"{call}() needs a function or 'module:name', not {type(function).__name__}")
    elif not all(part.isidentifier() for part in function.replace(":", ".", 1).split(".")):
        raise ArgumentError(f"{call}() needs a function's name as 'package.module:qualified.name', not {function!r}")


def encode_for(call: str, values: Sequence[object], first: int, beside: bool = False, main: Names = NOTHING) -> Encoded:
    """Pickle values, of which the first has this number among the arguments of the call, 0 for the function.

    ``main`` is what the other side has in its ``__main__`` of what is in this one. Raises ArgumentError that names the
    one which cannot travel.
    """
    try:
        return encode(values, beside, main)
    except Exception as error:  # pickling runs code of the values, which may raise anything
        index, why = _blame(values, error, main)
        what = f"argument {index + first}" if index + first else "the function"
        text = f"{what} of {call}() ({_short(values[index])}) cannot travel to another process: {why}"
        raise ArgumentError(text) from error


def _blame(values: Sequence[object], error: Exception, main: Names) -> tuple[int, str]:
    for index, value in enumerate(values):
        try:
            encode((value,), main=main)
        except Exception as again:
            return index, f"{again}" if isinstance(again, CannotTravelError) else f"{type(again).__name__}: {again}"
    return 0, f"{type(error).__name__}: {error}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a repr of the user's; the type says enough
        text = ""
    return text if 0 < len(text) <= 80 else f"a {type(value).__name__}"
