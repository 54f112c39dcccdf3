"""The end of a program: the report of an exception that ends it, and the finalization of its objects.

At its end, the interpreter clears all modules and collects garbage. It finds no cycle that contains a frozen object of
the template. So what the program has attached to a class of the template, for example, would not be finalized, and a
file there would not be flushed. Thawing the template's objects mends that, but then the collection copies all of their
memory. So it is done only where a finalizer could tell the difference.
"""

from __future__ import annotations

import gc
import sys
from types import AsyncGeneratorType, CoroutineType, GeneratorType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


OURS = __name__.rpartition(".")[0] + "."
SUSPENDED = (GeneratorType, CoroutineType, AsyncGeneratorType)  # they run ``finally`` blocks at their end


def print_error(error: BaseException) -> None:
    """Print an exception by sys.excepthook. Follows PyErr_PrintEx() of CPython, and raises SystemExit of the hook."""
    kind, trace = type(error), without_ours(error.__traceback__)
    error.with_traceback(trace)
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        _write("sys.excepthook is missing\n")
        sys.__excepthook__(kind, error, trace)
        return
    sys.audit("sys.excepthook", hook, kind, error, trace)
    try:
        hook(kind, error, trace)
    except SystemExit:
        raise
    except BaseException as another:
        another.with_traceback(without_ours(another.__traceback__))
        _write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(another), another, another.__traceback__)
        _write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, trace)


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame that is not of this package."""
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(OURS):
        trace = trace.tb_next
    return trace


def _write(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)


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
