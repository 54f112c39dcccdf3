"""Pickles of simple values, of which only the type has to be known: numbers, text, and containers of those."""

from __future__ import annotations

from _pickle import Pickler

from _anyfork_child.values.encode import INLINE, PROTOCOL
from _anyfork_child.values.scalars import FORMAT, SCALARS, dump_scalars

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


class _NotSimpleError(Exception):
    """The error for a value that is not simple."""


class _SimplePickler(Pickler):
    def reducer_override(self, _: Any) -> NoReturn:  # called for every value that pickle has no built-in support for
        raise _NotSimpleError


def simple(values: Any, limit: int = INLINE) -> bytes | None:
    """Pickle simple values. Return None if the pickle would run code, or is longer than ``limit`` bytes.

    Values that are nested too deeply for the pickler give None, too.
    """
    pieces: list[bytes] = []
    pickler = _SimplePickler(_Pieces(pieces), PROTOCOL)
    try:
        pickler.dump(values)
    except (_NotSimpleError, RecursionError):
        return None
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return body if len(body) <= limit else None


def simple_arguments(args: Sequence[object]) -> bytes | None:
    """Pickle the arguments of one call as ``simple`` does, by a shortcut if all are scalars, as most are."""
    for value in args:
        if type(value) not in SCALARS:
            return simple(args)
    body = dump_scalars(args, FORMAT)
    return body if len(body) <= INLINE else None


class _Pieces:
    """A file object that collects the pieces that a pickler writes."""

    __slots__ = ("write",)

    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append
