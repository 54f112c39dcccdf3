"""The report of an exception that ends a program, as the interpreter prints it."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

OURS = __name__.rpartition(".")[0] + "."


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
