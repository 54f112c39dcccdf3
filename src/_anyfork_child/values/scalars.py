"""Scalars as bytes: numbers, booleans and None by marshal, which needs a quarter of the time of pickle.

The format of version 2 is the same in all versions of Python. Its first byte is never that of a pickle, so a reader
can tell the two apart.
"""

from __future__ import annotations

import marshal
from _pickle import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SCALARS = frozenset({int, float, bool, type(None), complex})
FORMAT = 2  # of marshal: with binary floats, and without references
PICKLED = 0x80  # the first byte of every pickle of ours

dump_scalars: Callable[[Any, int], bytes] = marshal.dumps  # of a scalar or a tuple of scalars, and FORMAT
load_scalars: Callable[[bytes], Any] = marshal.loads


def load_plain(body: bytes) -> Any:
    """Decode a plain pickle, or the bytes of ``dump_scalars``. Raises any exception that unpickling raises."""
    return loads(body) if body[0] == PICKLED else load_scalars(body)
