"""The state of the interpreter that a template has changed, and that a program must find as in a new interpreter."""

from __future__ import annotations

import io
import os
import sys
from _signal import (
    SIG_DFL,
    SIG_IGN,
    SIG_SETMASK,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGSTOP,
    SIGXFSZ,
    default_int_handler,
    getsignal,
    pthread_sigmask,
    signal,
    valid_signals,
)

from ..birth import exit as birth
from ..wire import resource_tracker
from ..wire.frames import STDIO
from ..wire.own_imports import OwnFirst
from ..wire.threads import unwarn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ..template.template import Template

OWN = {SIGKILL, SIGSTOP, SIGPIPE, SIGXFSZ}  # nobody can set the first two, and the interpreter ignores the others


def set_signals(ignored: Collection[int], blocked: Collection[int]) -> None:
    """Ignore and block the signals that the program's starter ignores and blocks, and no others."""
    for number in valid_signals() - OWN:
        is_ignored = getsignal(number) == SIG_IGN
        if number in ignored and not is_ignored:
            signal(number, SIG_IGN)
        elif is_ignored and number not in ignored:
            signal(number, default_int_handler if number == SIGINT else SIG_DFL)
    pthread_sigmask(SIG_SETMASK, blocked)


def restore(template: Template) -> None:
    """Undo what the template has changed in the interpreter."""
    if sys.unraisablehook == template.unraisable:
        sys.unraisablehook = template.user_hook
    for children in template.past:
        children.forget_numbers()  # type: ignore[attr-defined]  # they are Children
    if not birth.is_copy:
        birth.remove_fences()  # exit handlers of preloaded modules are the program's, as in a new interpreter
    if OwnFirst in sys.meta_path:
        sys.meta_path.remove(OwnFirst)
    if "linecache" in sys.modules:  # the first releases of 3.13 have the code of the template there
        sys.modules["linecache"].cache.pop("<string>", None)
    unwarn()
    resource_tracker.release()
    if "multiprocessing.process" in sys.modules:
        _restore_multiprocessing(sys.modules["multiprocessing.process"])
    if "TZ" in os.environ or b"TZ" in template.start_environment:
        import time

        time.tzset()


def _restore_multiprocessing(process: Any) -> None:
    try:
        process.ORIGINAL_DIR = os.path.abspath(os.getcwd())
    except OSError:  # the directory was removed
        process.ORIGINAL_DIR = None


def renew_streams() -> None:
    """Make the standard streams anew, as the interpreter makes them for the descriptors at its start.

    The template has made them for its own descriptors. Its text streams stay the same objects, because modules that it
    has loaded may hold them.
    """
    for fd, name in enumerate(STDIO):
        old = getattr(sys, f"__{name}__")
        stream = _opened(fd, name, old)
        setattr(sys, f"__{name}__", stream)
        if getattr(sys, name) in (old, None) or stream is None:  # otherwise a loaded module has replaced it
            setattr(sys, name, stream)


def _opened(fd: int, name: str, old: Any) -> Any:
    """Return a standard stream, None if its descriptor is closed. Follows create_stdio() of CPython."""
    try:
        os.fstat(fd)
    except OSError:
        return None
    encoding, errors, unbuffered = _kind(name)
    write = fd > 0
    raw: Any
    buffer: Any = open(fd, "wb" if write else "rb", 0 if write and unbuffered else -1, closefd=False)
    raw = buffer if write and unbuffered else buffer.raw
    raw.name = f"<{name}>"
    by_line = not unbuffered and (fd == 2 or raw.isatty())
    stream: Any = old if type(old) is io.TextIOWrapper else io.TextIOWrapper.__new__(io.TextIOWrapper)
    stream.__init__(buffer, encoding, errors, "\n", by_line, unbuffered)
    stream.mode = "w" if write else "r"
    return stream


def _kind(name: str) -> tuple[str, str, bool]:
    """Return the encoding and the error handler that the interpreter has chosen, and whether output is unbuffered."""
    known = getattr(sys, f"__{name}__")
    if known is not None:
        return known.encoding, known.errors, known.write_through
    other = sys.__stderr__ or sys.__stdout__ or sys.__stdin__
    errors = "backslashreplace" if name == "stderr" else "strict"
    return ("utf-8", errors, False) if other is None else (other.encoding, errors, other.write_through)
