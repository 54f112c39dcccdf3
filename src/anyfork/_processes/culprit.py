"""The culprit in a value: the global, variable, default, attribute or item because of which it cannot travel."""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType, ModuleType

from _anyfork_child.values.encode import PROTOCOL, CannotTravelError, encode
from _anyfork_child.wire.signals import comes_from_outside

from .._errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver

MOST_LEVELS = 8  # levels of parts of parts
MOST_PARTS = 1000  # parts that are tried
# Words in multiprocessing's errors about its locks and queues, and the remedy.
OF_MULTIPROCESSING = ("through inheritance", "in a fork context", "of a fork context")
REMEDY = "make it with anyfork.get_context(), and give it in initargs= or to a Process of that context"


def reason(value: object, error: Exception, receiver: Receiver) -> str:
    """Say why a value cannot travel, and which part of it is the cause."""
    if any(words in str(error) for words in OF_MULTIPROCESSING):
        return f"{error} ({REMEDY})"
    where, tried = "", 0
    for _ in range(MOST_LEVELS):
        for place, part in _parts(value, receiver):
            tried += 1
            again = None if tried > MOST_PARTS else _failure(part, receiver)
            if again is not None:
                where, value, error = place, part, again
                break
        else:
            break
    own = isinstance(error, CannotTravelError | ArgumentError)
    text = str(error) if own else f"{type(error).__name__}: {error}"
    return f"{text}: {where}" if where else text


def _failure(value: object, receiver: Receiver) -> Exception | None:
    try:
        encode((value,), receiver)
    except Exception as error:  # pickling runs code of the value's class, which may raise anything
        if comes_from_outside(error):
            raise
        return error
    return None


def _parts(value: Any, receiver: Receiver) -> Iterator[tuple[str, object]]:
    if isinstance(value, FunctionType | type) and receiver.name_of(value) is not None:
        return
    if isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, MethodType):
        yield f"the object of the method {value.__qualname__}", value.__self__
    elif isinstance(value, partial):
        yield "the function of a partial", value.func
        yield from ((f"argument {number} of a partial", part) for number, part in enumerate(value.args, 1))
        yield from ((f"the argument {name!r} of a partial", part) for name, part in value.keywords.items())
    elif isinstance(value, dict):
        yield from ((f"the item {key!r} of a {type(value).__name__}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {number} of a {type(value).__name__}", part) for number, part in enumerate(value))
    else:
        what = f"class {value.__qualname__}" if isinstance(value, type) else f"a {type(value).__qualname__}"
        if not isinstance(value, type):
            yield f"the class of {what}", type(value)
        attributes = vars(value) if isinstance(value, type | ModuleType) else _state(value)
        yield from ((f"the attribute {name!r} of {what}", part) for name, part in [*attributes.items()])


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes that pickle sends: none if the object's own code refuses to be pickled."""
    try:
        _, _, *rest = value.__reduce_ex__(PROTOCOL)
    except Exception as error:  # code of the value's class may raise anything
        if comes_from_outside(error):
            raise
        return {}
    parts = rest[0] if rest and isinstance(rest[0], tuple) else rest[:1]  # an object with slots has both kinds
    found = {name: part for state in parts if isinstance(state, dict) for name, part in state.items()}
    return found or getattr(value, "__dict__", {})


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    from _anyfork_child.values.function_globals import globals_of  # only now: it loads modules that read code

    name = function.__qualname__
    wrapped = vars(function).items()
    yield from ((f"the global {part!r} of function {name}", found) for part, found in globals_of(function).items())
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"the variable {variable!r} that function {name} uses", cell.cell_contents
        except ValueError:  # not set yet
            continue
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    with_defaults = [*zip(names, defaults, strict=True), *(function.__kwdefaults__ or {}).items()]
    yield from ((f"the default of {part!r} of function {name}", found) for part, found in with_defaults)
    yield from ((f"the attribute {part!r} of function {name}", found) for part, found in wrapped)
