"""The finalization of objects at the end of a program, and the part of it that needs the template's objects.

At its end, the interpreter clears all modules and collects garbage. It finds no cycle that contains a frozen object of
the template. So what the program has attached to a class of the template, for example, would not be finalized, and a
file there would not be flushed. Thawing the template's objects mends that, but then the collection copies all of their
memory. So it is done only where a finalizer could tell the difference.
"""

from __future__ import annotations

import gc
import sys
from types import AsyncGeneratorType, CoroutineType, GeneratorType

SUSPENDED = (GeneratorType, CoroutineType, AsyncGeneratorType)  # they run ``finally`` blocks at their end


def thaw() -> None:
    """Let the end of the interpreter find the template's objects, if the program has objects with finalizers."""
    streams = _standard_streams()
    if any(_has_finalizer(one) and id(one) not in streams for one in gc.get_objects()):
        gc.unfreeze()


def _has_finalizer(one: object) -> bool:
    kind = type(one)
    return hasattr(kind, "__del__") or kind in SUSPENDED


def _standard_streams() -> set[int]:
    """Return the identities of the standard streams and of the objects inside them; the interpreter flushes these."""
    found = set()
    for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        buffer = getattr(stream, "buffer", None)
        found |= {id(stream), id(buffer), id(getattr(buffer, "raw", None))}
    return found
