"""How a process runs its function, and how it ends: as an interpreter ends, without being taken apart."""

from __future__ import annotations

import os
import sys
from _thread import _count as count_threads  # Python threads beside the main one
from atexit import _ncallbacks as count_handlers
from atexit import _run_exitfuncs as run_handlers
from atexit import register
from sys import modules

from ..wire.failure import cut, format_error
from .last_words import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

LONG = 1 << 63  # beyond it an exit code is -1, as the interpreter sees it

_code = 1  # of the end of this process; another one only when an end in order has begun


def _take_result(result: Any, function: Callable[..., Any], args: list[Any]) -> None:
    """Run an async function, which has returned a coroutine; tell the user that any other value is lost."""
    if hasattr(result, "cr_frame"):
        from ..values.async_function import run_async

        result.close()  # nothing of it has run yet: call it again, with its channel as a stream
        result = run_async("asyncio", function, *args)
    if result is not None:
        _tell_dropped(function, type(result).__name__)


def _tell_dropped(function: Callable[..., Any], kind: str) -> None:
    """Say on standard error that nobody gets what the function has returned."""
    from .preparation import function_name

    text = (
        f"anyfork: {function_name(function)} returned a value ({kind}), which nobody gets: send it through the channel"
    )
    try:
        if sys.stderr is not None:
            print(f"{text}, or use anyfork.call() for its result", file=sys.stderr)
    except (OSError, ValueError):  # it is closed
        pass


def _explain(error: BaseException) -> None:
    """Add to the error of a call that never entered the function what the function is called with."""
    if isinstance(error, TypeError) and error.__traceback__ is None:
        error.add_note(
            "The function gets the channel as its first argument, before those of send() and run(); "
            "use anyfork.call() for a function that takes none."
        )


def _print_error(error: BaseException) -> None:
    """Show an error as the interpreter does: by the hook of the program, and by its own where that one fails."""
    cut(error)
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:
        sys.__excepthook__(type(error), error, error.__traceback__)


def exit_code(stop: SystemExit) -> int:
    """The exit code a SystemExit asks for, as the interpreter sees it: a text is printed and means 1."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF if -LONG <= stop.code < LONG else 0xFF
    try:
        if sys.stderr is not None:
            print(stop.code, file=sys.stderr)
    except Exception:  # it has no text, or there is no standard error any more: the interpreter says nothing then
        pass
    return 1


def wind_up(code: int) -> None:
    """Join threads, run exit handlers, flush output; take nothing apart (which costs 100 ms).

    Where there are exit handlers behind a fence it ends the process with this code.
    """
    global _code
    try:
        if "threading" in modules and (count_threads() or modules["threading"]._threading_atexits):
            modules["threading"]._shutdown()
        if count_handlers():
            _code = code
            run_handlers()
        if "multiprocessing.util" in modules:
            _finish_queues()
    except BaseException as error:
        _print_error(error)
    flush()


def _finish_queues() -> None:
    """Let multiprocessing's finalizers run: threads of queues write what was put. Those of the template do nothing.

    Its exit handler is the template's, where the template has loaded it; and it would end children, which a copy of a
    program takes for its own.
    """
    run_finalizers = modules["multiprocessing.util"]._run_finalizers
    run_finalizers(0)
    run_finalizers()


def flush() -> None:
    """As flush_stdio, for less."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        flush_stdio()


def fence() -> None:
    """Let the exit handlers there are be not those of this process. They do not run, and are not dropped either: what
    only they hold would be finalized here."""
    register(_stop)


def _stop() -> None:
    """Runs as an exit handler, when those registered later have run."""
    if "multiprocessing.util" in modules:
        _finish_queues()
    flush()
    os._exit(_code)


def run(call: list[Any], reports: int, last: Callable[[int], object] = wind_up) -> int:
    """Call the function that takes this process over, do what an interpreter does at its end, and return the exit code.

    ``call`` is the function and its arguments, and is emptied: files among the arguments are flushed and closed with
    the last reference, before the process ends. ``reports`` takes the traceback of an exception, for the owner, and
    ``last`` gets the code. Part of every start, and written for that (see template.fork_loop).
    """
    code = 0
    try:
        function = call.pop(0)
        result = function(*call)
        if result is not None:
            _take_result(result, function, call)
    except BaseException as error:
        # Runs in the process, at the boundary where an interpreter would print it too.
        code = _fail(error, reports)
    call.clear()
    last(code)
    return code


def _fail(error: BaseException, reports: int) -> int:
    """Show what has left the function, and tell the owner; return the exit code that it means."""
    if isinstance(error, SystemExit):
        return exit_code(error)
    error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # a class may refuse the assignment
    _explain(error)
    _print_error(error)
    say(reports, format_error(error))
    return 1


def end(code: int) -> NoReturn:
    """End this process as an interpreter ends."""
    wind_up(code)
    os._exit(code)


def end_copy(code: int) -> NoReturn:
    """End a copy of a template or worker that user code has made by itself, and that has left this code."""
    flush_stdio()
    os._exit(code)


def fail_copy(error: BaseException) -> NoReturn:
    """End such a copy that has left the user's code by an exception."""
    if isinstance(error, SystemExit):
        end_copy(exit_code(error))
    _print_error(error)
    end_copy(1)


def flush_stdio() -> None:
    """Flush stdout and stderr; what cannot be written (a closed pipe, a full disk) is lost as at any exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # also what a stream of the user's has to say to that
            pass
