"""Whether a function that has to go by value is still the same: whether sending it again would say anything new."""

from __future__ import annotations

from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from _anyfork_child.values.encode import SCALARS
from _anyfork_child.values.global_names import looked_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from _anyfork_child.values.receiver import Receiver

DEEPEST = 4  # functions that call functions
FIXED = SCALARS | {str, bytes}


def fingerprint(function: object, receiver: Receiver, depth: int = 0) -> tuple[object, ...] | None:
    """What a plain function refers to, as something that compares; None where that may change within its objects."""
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
    """Something that differs when the value does; None where it may change inside."""
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
            yield None  # a builtin, an attribute, or not there yet


def names_of(code: CodeType) -> set[str]:
    """The names of globals, builtins and attributes in the code of a function."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_of(constant)
    return found
