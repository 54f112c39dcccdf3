"""Signal handlers of the program: tells exceptions that they raise from those of the code that they interrupt."""

from __future__ import annotations

from _signal import getsignal, valid_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType


def comes_from_outside(error: BaseException) -> bool:
    """Return whether a signal handler has raised this error, in the middle of unrelated code."""
    handlers = {code for number in valid_signals() if (code := _code(getsignal(number))) is not None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code(handler: object) -> CodeType | None:
    """Return the code of a handler: a function, a method, a callable object, or a partial of one of these."""
    while hasattr(handler, "func"):
        handler = handler.func
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        handler = vars(type(handler)).get("__call__")
    code: CodeType | None = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return code
