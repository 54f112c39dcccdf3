"""What ``__main__`` of a process has in common with that of its owner, where the owner's was copied (fork_here).

Such a template has the functions and classes of the program itself. They go by name then, both ways, as those of any
module, and the names stay valid when the program gives them to something else later. In all other templates whatever
belongs to ``__main__`` goes by value.
"""

from __future__ import annotations

import sys
from types import FunctionType

from .receiver import OWNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

KINDS: tuple[type, ...] = (FunctionType, type)


class Main:
    """Functions and classes of ``__main__`` as it was at one moment. ``number`` is the same in the copy."""

    def __init__(self, number: int, named: dict[str, object]) -> None:
        self.number = number
        self.named = named
        self._paths = {id(value): (number, path) for path, value in named.items()}

    def path_of(self, value: object) -> tuple[int, str] | None:
        """What ``named`` takes to find this very object; None for any other object."""
        return self._paths.get(id(value))


_known: list[Main] = []  # of this process and, where it is a copy, of those above it


def common() -> Main:
    """Return what a copy of this process that is made now has in common with it."""
    named = dict(_defined())
    if not _known or not _is_same(_known[-1].named, named):
        _known.append(Main(len(_known), named))
    return _known[-1]


def named(number: int, path: str) -> object:
    """The object of this path: how such things are rebuilt from a pickle."""
    return _known[number].named[path]


_installed: dict[str, object] = {}  # what came from another process, in ``__main__`` of this one


def install(names: dict[str, object], _more: object) -> None:
    """Put what came by value into ``__main__``, for all that looks it up there; leave what is defined here alone."""
    here = vars(sys.modules["__main__"])
    for name, value in names.items():
        if name not in here or here[name] is _installed.get(name, here):
            here[name] = _installed[name] = value


def inherit(main: Main | None) -> None:
    """Runs in a copy: this is what it has in common with its owner, from now on; None after the owner has changed."""
    OWNER.main = main


def _is_same(one: dict[str, object], other: dict[str, object]) -> bool:
    return one.keys() == other.keys() and all(one[path] is other[path] for path in one)


def _defined() -> Iterator[tuple[str, object]]:
    """The functions and classes of ``__main__``, with those inside of classes."""
    functools = sys.modules.get("functools")
    kinds = KINDS if functools is None else (*KINDS, functools._lru_cache_wrapper)
    ahead: list[tuple[str, dict[str, Any]]] = [("", vars(sys.modules["__main__"]))]
    seen = set[int]()
    while ahead:
        prefix, names = ahead.pop()
        for name, value in [*names.items()]:
            # Proxies, which answer for others when they are asked what they are, are not asked.
            if not issubclass(type(value), kinds) or value.__module__ != "__main__" or id(value) in seen:
                continue
            seen.add(id(value))
            yield prefix + name, value
            if issubclass(type(value), type):
                ahead.append((f"{prefix}{name}.", {**vars(value)}))
