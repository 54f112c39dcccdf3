"""Pickles of values of which nothing has to be known but their type: numbers, text, and containers of those."""

from __future__ import annotations

from _pickle import Pickler, dumps

from _anyfork_child.values.encode import INLINE, PROTOCOL, SCALARS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


class _NotSimpleError(Exception):
    """Something among the values is more than that."""


class _SimplePickler(Pickler):
    def reducer_override(self, _: Any) -> NoReturn:  # asked for all that pickle does not know by itself
        raise _NotSimpleError


def simple(values: Any, limit: int = INLINE) -> bytes | None:
    """The pickle, if nothing in it runs code, and it is no longer than the limit. Otherwise None."""
    pieces: list[bytes] = []
    pickler = _SimplePickler(_Pieces(pieces), PROTOCOL)
    try:
        pickler.dump(values)
    except (_NotSimpleError, RecursionError):
        return None
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return body if len(body) <= limit else None


def simple_arguments(args: Sequence[object]) -> bytes | None:
    """The same for the arguments of one call, of which most are scalars."""
    for value in args:
        if type(value) not in SCALARS:
            return simple(args)
    return dumps(args, PROTOCOL)


class _Pieces:
    """Takes what a pickler writes."""

    __slots__ = ("write",)

    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append
