"""The objects of ``__main__``: whether they travel by name or by value.

In most templates there is nothing of the program's ``__main__``, and everything that belongs to it goes by value. A
process of a context with ``main="import"`` has run the same ``__main__`` again, and finds its definitions by name (see
Receiver in values.functions_by_value). A copy of the program (fork_here) shares its functions and classes with its
owner. They go by name, both ways, like those of any module, and the names stay valid even if the program later assigns
other objects to them: this module knows them.
"""

from __future__ import annotations

import sys
from types import FunctionType

from .functions_by_value import OWNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

KINDS: tuple[type, ...] = (FunctionType, type)


class SharedMain:
    """The functions and classes of ``__main__`` at one moment. ``number`` is the same in the copy."""

    def __init__(self, number: int, named: dict[str, object]) -> None:
        self.number = number
        self.named = named
        self._paths = {id(value): (number, path) for path, value in named.items()}

    def path_of(self, value: object) -> tuple[int, str] | None:
        """Return the arguments with which ``named`` finds this very object, or None for any other object."""
        return self._paths.get(id(value))


_known: list[SharedMain] = []  # of this process and, if it is a copy, of the processes that it descends from


def common() -> SharedMain:
    """Return the objects that a copy of this process, made now, has in common with it."""
    named = dict(_defined())
    if not _known or not _is_same(_known[-1].named, named):
        _known.append(SharedMain(len(_known), named))
    return _known[-1]


def named(number: int, path: str) -> object:
    """Return the object of this path; pickles of such objects call this function."""
    return _known[number].named[path]


_installed: dict[str, object] = {}  # the objects from another process in ``__main__`` of this one


def install(names: dict[str, object], _more: object) -> None:
    """Put objects that came by value into ``__main__``, where code looks them up; never replace a name defined here."""
    here = vars(sys.modules["__main__"])
    for name, value in names.items():
        if name not in here or here[name] is _installed.get(name, here):
            here[name] = _installed[name] = value


def inherit(main: SharedMain | None) -> None:
    """Set what this process has in common with its owner; None after the owner has changed. Runs in a copy."""
    OWNER.main = main


def _is_same(one: dict[str, object], other: dict[str, object]) -> bool:
    return one.keys() == other.keys() and all(one[path] is other[path] for path in one)


def _defined() -> Iterator[tuple[str, object]]:
    """Yield the functions and classes of ``__main__``, including those inside classes, each with its path."""
    functools = sys.modules.get("functools")
    kinds = KINDS if functools is None else (*KINDS, functools._lru_cache_wrapper)
    ahead: list[tuple[str, dict[str, Any]]] = [("", vars(sys.modules["__main__"]))]
    seen = set[int]()
    while ahead:
        prefix, names = ahead.pop()
        for name, value in [*names.items()]:
            # Test the type itself, not isinstance: a proxy would answer for the object that it represents.
            if not issubclass(type(value), kinds) or value.__module__ != "__main__" or id(value) in seen:
                continue
            seen.add(id(value))
            yield prefix + name, value
            if issubclass(type(value), type):
                ahead.append((f"{prefix}{name}.", {**vars(value)}))
