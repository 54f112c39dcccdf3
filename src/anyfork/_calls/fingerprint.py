"""Fingerprints of functions that go by value: they show whether a worker needs to be sent the function again."""

from __future__ import annotations

from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from _anyfork_child.values.global_names import looked_up
from _anyfork_child.values.scalars import SCALARS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from _anyfork_child.values.by_name_or_value import Receiver

DEEPEST = 4  # levels of functions that refer to functions
FIXED = SCALARS | {str, bytes}


def fingerprint(function: object, receiver: Receiver, depth: int = 0) -> tuple[object, ...] | None:
    """Return what a plain function refers to, in a form that can be compared; None if objects it refers to may be
    changed in place.
    """
    if type(function) is not FunctionType or depth > DEEPEST:
        return None
    if function.__dict__ or function.__kwdefaults__:
        return None
    found: list[object] = [function.__code__]
    for value in _referred(function):
        mark = _mark(value, receiver, depth) if value is not function else "itself"
        if mark is None:
            return None
        found.append(mark)
    return tuple(found)


def _mark(value: object, receiver: Receiver, depth: int) -> object:
    """Return an object that differs when the value differs; None if the value may be changed in place."""
    if type(value) in FIXED:
        return type(value), value
    if isinstance(value, ModuleType):
        return value
    if isinstance(value, FunctionType | BuiltinFunctionType | type) and receiver.name_of(value) is not None:
        return value
    return fingerprint(value, receiver, depth + 1)


def _referred(function: FunctionType) -> Iterator[object]:
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
            yield None  # a builtin, an attribute, or a global that is not set yet


def names_of(code: CodeType) -> set[str]:
    """Return the names of globals, builtins and attributes in the code of a function."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_of(constant)
    return found
