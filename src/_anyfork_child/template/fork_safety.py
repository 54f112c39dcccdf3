"""The preparations that make forks safe and cheap, before the first fork after user code has run in a template.

Runs in templates.
"""

from __future__ import annotations

import _signal
import atexit
import gc
import os
import sys
from _thread import _count as count_threads  # Python threads beside the main one; threading need not be loaded

from ..birth.exit import fence_copies, flush_stdio
from ..wire.failure import Failure
from ..wire.threads import ignore_warnings, subinterpreters, unsafe_threads
from .randomness import numpy_reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


FROM_THE_START = (
    "the interpreter itself has started threads in the template, by sitecustomize, a .pth file or an option, and a "
    'fork does not copy them; use Template.new_exec(flags=["-S"]) or ["-I"], which keeps them away'
)

started_with = 0  # threads beside the main one that ran before any code of anyfork


def note_threads() -> None:
    """Note the number of threads that this interpreter has started with."""
    global started_with
    started_with = count_threads()


def check_threads() -> None:
    """Raise Failure if a Python thread runs beside the main one: a fork would copy its locks without the thread.

    Raise it also if there is a subinterpreter, with which os.fork does not return.
    """
    count = count_threads()
    if count:
        threading = sys.modules.get("threading")
        others = [t.name for t in threading.enumerate() if t is not threading.main_thread()] if threading else []
        summary = "threads run in the template, and a fork does not copy them"
        raise Failure("threads", ", ".join(others) or "unknown", FROM_THE_START if count <= started_with else summary)
    others = subinterpreters()
    if others:
        raise Failure("threads", ", ".join(others), "the template has subinterpreters, with which it cannot be forked")


def settle(immortalize: Callable[[], object] | None = None) -> list[Callable[[], object]]:
    """Flush output, collect garbage and freeze the rest; return the resets that each new process must run.

    Call ``immortalize`` when garbage is collected. Raises Failure if a native thread does not stop for a fork.
    """
    flush_stdio()
    ignore_warnings()
    _check_native_threads()
    if atexit._ncallbacks():
        fence_copies()
    gc.collect()
    if immortalize is not None:
        immortalize()
    gc.freeze()
    return resets()


def resets() -> list[Callable[[], object]]:
    """Return the functions that a copy of this process must call to reset state that it must not share.

    Exit handlers are not among it.
    """
    needed: list[Callable[[], object]] = []
    modules = sys.modules
    reseed_numpy = numpy_reset()
    if reseed_numpy is not None:
        needed.append(reseed_numpy)
    if "multiprocessing.process" in modules:
        needed.append(_reset_multiprocessing)
    if "uuid" in modules:
        needed.append(_reset_uuid)
    if "weakref" in modules and modules["weakref"].finalize._registered_with_atexit:
        needed.append(_reset_finalizers)
    wakeup = _signal.set_wakeup_fd(-1)
    if wakeup >= 0:
        _signal.set_wakeup_fd(wakeup)
        needed.append(_reset_wakeup)
    return needed


# --- Native threads ---------------------------------------------------------------------------------------------


def _check_native_threads() -> None:
    names = unsafe_threads()
    if names:
        raise Failure("threads", ", ".join(names), "native threads run in the template and do not stop for a fork")


# --- State that a new process does not keep from its template ---------------------------------------------------


def _reset_wakeup() -> None:
    _signal.set_wakeup_fd(-1)


def _reset_multiprocessing() -> None:
    process: Any = sys.modules["multiprocessing.process"]
    process.current_process().authkey = os.urandom(32)
    process._children = set()  # the children of the template


def _reset_uuid() -> None:
    # The node, the clock sequence and libuuid's own state are the same in every fork; without them uuid1 draws anew.
    uuid: Any = sys.modules["uuid"]
    uuid._node = uuid._last_timestamp = uuid._generate_time_safe = None


def _reset_finalizers() -> None:
    # weakref.finalize registers with atexit once, in the template; and the objects to finalize are the template's.
    finalize = sys.modules["weakref"].finalize
    for info in finalize._registry.values():
        info.atexit = False
    finalize._registered_with_atexit = False
