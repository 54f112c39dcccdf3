"""Immortal objects: those whose references CPython 3.12 and newer does not count, so that using them copies no page.

Runs in templates. All objects that a template has when it is about to be forked become immortal. It is done by the
compiled part, or here, by ctypes.
"""

from __future__ import annotations

import gc
import sys
from types import CodeType

from ..wire.own_imports import import_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    MakeImmortal = Callable[[list[object]], object]

# The low half of the reference count of an immortal object, and the lowest that counts as such: see PEP 683. Since
# Python 3.14, the count changes if it is less than 3 << 30, and references from the stack, which were counted before,
# are dropped without a look at it: so it is a million higher.
IMMORTAL = (3 << 30) + (1 << 20) if sys.version_info >= (3, 14) else (1 << 32) - 1
LOWEST = 1 << 31
HAS_FLAGS = sys.version_info >= (3, 14)  # in the highest two bytes of the word of the reference count
FLAGS, IMMORTAL_FLAG = 6, 1
PARTS_OF_CODE = (
    "co_consts",
    "co_exceptiontable",
    "co_filename",
    "co_linetable",
    "co_name",
    "co_names",
    "co_qualname",
)  # code objects do not show them to the garbage collector


def obstacle() -> str:
    """Return why this interpreter cannot have further immortal objects, or "" if it can."""
    version = "Python {}.{}".format(*sys.version_info)
    if sys.version_info < (3, 12):
        return f"{version} counts the references to all objects; use Python 3.12 or newer"
    if sys.version_info[:2] == (3, 14):  # LOAD_CONST_MORTAL: the count of a constant overflows after long loops
        return f"{version} goes on counting references to constants of code that has run before; use another version"
    if "t" in sys.abiflags:
        return f"this {version} is free-threaded; use one with a GIL"
    if sys.maxsize < 1 << 32 or sys.byteorder != "little":
        return f"this {version} is not for a 64-bit, little-endian machine"
    return ""


def immortalize(make_immortal: MakeImmortal) -> None:
    """Make all objects of this process immortal that the garbage collector finds. It is to be frozen afterwards."""
    gc.unfreeze()  # the objects of a template that was forked before
    make_immortal(gc.get_objects())


def make_immortal_by_ctypes(objects: list[object]) -> None:
    """Make objects, and all that they hold, immortal."""
    ctypes: Any = import_own("ctypes")
    word, flags = ctypes.c_uint32.from_address, ctypes.c_uint16.from_address
    while objects:
        holder = objects.pop()
        for one in (holder, *_held(holder)):
            count = word(id(one))
            if count.value < LOWEST:
                count.value = IMMORTAL
                if HAS_FLAGS:
                    flags(id(one) + FLAGS).value |= IMMORTAL_FLAG
                # Containers that the garbage collector does not look at, and so not among the objects.
                if type(one) is CodeType or (isinstance(one, tuple | dict) and not gc.is_tracked(one)):
                    objects.append(one)


def _held(holder: object) -> Iterable[Any]:
    if type(holder) is CodeType:
        return [getattr(holder, name) for name in PARTS_OF_CODE]
    held = gc.get_referents(holder)
    return [*held, *dict.keys(holder)] if isinstance(holder, dict) else held  # it shows only keys that are no strings
