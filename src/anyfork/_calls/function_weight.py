"""The weight of a function by value: the data that travels with it, and the largest part of that."""

from __future__ import annotations

import sys
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from .fingerprint import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 1  # levels of functions that refer to functions of their own module
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
        if isinstance(value, FunctionType) and value.__module__ == function.__module__ and depth < DEEPEST:
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
