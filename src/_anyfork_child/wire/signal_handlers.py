"""Signal handlers of the program: telling what they raise from what the code raises that they have interrupted."""

from __future__ import annotations

from _signal import getsignal, valid_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType


def comes_from_outside(error: BaseException) -> bool:
    """Return whether a signal handler has raised this, in the middle of something that has nothing to do with it."""
    handlers = {code for number in valid_signals() if (code := _code(getsignal(number))) is not None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code(handler: object) -> CodeType | None:
    """The code of a handler: a function, a method, an object that can be called, or a partial of one."""
    while hasattr(handler, "func"):
        handler = handler.func
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        handler = vars(type(handler)).get("__call__")
    code: CodeType | None = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return code
