"""The run of a process's function, and the exit of the process: like an interpreter's, but without finalization."""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, signal
from _thread import _count as count_threads  # Python threads beside the main one
from atexit import _ncallbacks as count_handlers
from atexit import _run_exitfuncs as run_handlers
from atexit import register, unregister
from sys import modules

from ..wire.failure import cut, format_error
from .last_words import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

LONG = 1 << 63  # beyond it an exit code is -1, as the interpreter sees it

is_copy = False  # whether this process comes from a copy of a running program, whose frames lie below on the stack
_guards: list[tuple[int, Callable[[], None]]] = []  # processes, and their handlers, of ``fence_copies``
_code = 1  # the exit code of this process; 1 until an orderly end has begun


class Unwinding(KeyboardInterrupt):
    """Raised to leave all frames of this process, down to the interpreter itself: a Python program runs there.

    The interpreter takes note of an interrupt, and ends by SIGINT unless the program raises SystemExit at its end.
    """


def take_result(result: Any, function: Callable[..., Any], args: Sequence[Any]) -> None:
    """Run an async function, which has returned a coroutine; warn the user about any other value, which is dropped."""
    if hasattr(result, "cr_frame"):
        from ..values.async_function import run_async

        result.close()  # its body has not begun: call the function again, with the channel as a stream
        result = run_async("asyncio", function, *args)
    if result is not None:
        _tell_dropped(function, type(result).__name__)


def _tell_dropped(function: Callable[..., Any], kind: str) -> None:
    """Write to standard error that the value returned by the function is dropped."""
    from .preparation import function_name

    text = (
        f"anyfork: {function_name(function)} returned a value ({kind}), which is discarded: send it through the channel"
    )
    try:
        if sys.stderr is not None:
            print(f"{text}, or use anyfork.call() for its result", file=sys.stderr)
    except (OSError, ValueError):  # standard error is closed
        pass


def _explain(error: BaseException) -> None:
    """Add a note about the arguments of the function to the error of a call that never entered the function."""
    if isinstance(error, TypeError) and error.__traceback__ is None:
        error.add_note(
            "The function gets the channel as its first argument, before those of send() and run(); "
            "use anyfork.call() for a function that takes none."
        )


def _print_error(error: BaseException) -> None:
    """Print an error as the interpreter does: by the program's excepthook, or by the default one if that fails."""
    cut(error)
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:
        sys.__excepthook__(type(error), error, error.__traceback__)


def exit_code(stop: SystemExit) -> int:
    """Return the exit code of a SystemExit, by the rules of the interpreter: a text is printed and means 1."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF if -LONG <= stop.code < LONG else 0xFF
    try:
        if sys.stderr is not None:
            print(stop.code, file=sys.stderr)
    except Exception:  # the code has no text, or standard error is closed: the interpreter prints nothing then
        pass
    return 1


def wind_up(code: int) -> None:
    """Join threads, run exit handlers and flush output, but do not finalize the interpreter (which costs 100 ms).

    If there are exit handlers behind a fence, end the process with this code (see ``leave``).
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
    """Run multiprocessing's finalizers: threads of queues write the queued items. Those of the template do nothing.

    The exit handler of multiprocessing is not used: it is the template's, if the template has loaded the module, and it
    would end the children of the original program in a copy of a program, which takes them for its own.
    """
    run_finalizers = modules["multiprocessing.util"]._run_finalizers
    run_finalizers(0)
    run_finalizers()


def flush() -> None:
    """Flush stdout and stderr as ``flush_stdio`` does, at less cost."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        flush_stdio()


def fence() -> None:
    """Keep the exit handlers that exist now from running in this process.

    They are not dropped either, because objects that only they hold would be finalized in this process.
    """
    register(_stop)


def fence_copies() -> None:
    """Keep the exit handlers that exist now from running in the processes forked from this one, which runs them itself.

    It costs them less than ``fence`` does in each.
    """
    own = os.getpid()
    if _guards and _guards[-1][0] == own:
        unregister(_guards.pop()[1])

    def stop_copies() -> None:
        if os.getpid() != own:
            _stop()

    register(stop_copies)
    _guards.append((own, stop_copies))


def remove_fences() -> None:
    """Let the exit handlers of templates run in this process."""
    unregister(_stop)
    for _, stop_copies in _guards:
        unregister(stop_copies)


def _stop() -> None:
    """End the process before older exit handlers run. Runs as an exit handler, after those registered later."""
    if "multiprocessing.util" in modules:
        _finish_queues()
    flush()
    leave(_code)


def leave(code: int) -> NoReturn:
    """End this process at once, with an exit code, or by a signal, given as its negative number."""
    if code < 0:
        signal(-code, SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def run(call: list[Any], reports: int, last: Callable[[int], object] = wind_up) -> int:
    """Call the function that takes over this process, do the work of an interpreter at its end, return the exit code.

    ``call`` is the function and its arguments, and is emptied: files among the arguments are flushed and closed with
    the last reference, before the process ends. ``reports`` takes the traceback of an exception, for the owner, and
    ``last`` gets the code. Every start runs this function, and it is written for that (see template.fork_loop).
    """
    code = 0
    try:
        function = call.pop(0)
        result = function(*call)
        if result is not None:
            take_result(result, function, call)
    except BaseException as error:
        # The outermost frame of the process, where an interpreter would print the error, too.
        code = _fail(error, reports)
    call.clear()
    last(code)
    return code


def fail_call(error: BaseException, reports: int) -> int:
    """Print and report an exception of the function, as ``run`` does; return the exit code for it."""
    try:
        raise error
    except BaseException as raised:
        return _fail(raised, reports)


def _fail(error: BaseException, reports: int) -> int:
    """Print an exception of the function, and report it to the owner; return the exit code for it."""
    if isinstance(error, Unwinding):
        raise error
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
    """End a copy of a template or worker that user code has forked, and that has returned from the user code."""
    flush_stdio()
    os._exit(code)


def fail_copy(error: BaseException) -> NoReturn:
    """End a copy of a template or worker that user code has forked, and that has left the user code by an exception."""
    if isinstance(error, SystemExit):
        end_copy(exit_code(error))
    _print_error(error)
    end_copy(1)


def flush_stdio() -> None:
    """Flush stdout and stderr; output that cannot be written (a closed pipe, a full disk) is lost as at any exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # a stream of the user's may raise anything
            pass
