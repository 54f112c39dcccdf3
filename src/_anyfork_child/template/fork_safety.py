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

from ..birth.exit import fence, flush_stdio
from ..wire.failure import Failure
from .randomness import numpy_reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# Native threads that a fork may leave behind. jemalloc, which comes with pyarrow and so with pandas, takes its locks
# around a fork, and works in the copy without its cleanup thread.
SAFE_THREADS = frozenset({"jemalloc_bg_thd"})


# CPython counts threads that stop for a fork, too, and warns; a plain string as the module must equal its name.
FORKING = (
    "_anyfork_child.template.fork_loop",
    "_anyfork_child.template.fork_safety",
    "anyfork._program_copy.fork_here",
)  # the modules that fork
FILTERS = [("ignore", None, DeprecationWarning, name, 0) for name in FORKING]
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


def subinterpreters() -> list[str]:
    """Return names for the interpreters of this process beside the main one, if Python code has made them."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # before Python 3.13
        module = sys.modules.get(name)
        if module is not None:
            return [f"interpreter {number}" for number in range(1, len(module.list_all()))]
    return []


def _filters() -> list[Any]:
    """Return the warning filters of the current context."""
    warnings: Any = sys.modules.get("warnings")
    if warnings is None:
        import _warnings

        return _warnings.filters
    of_context = getattr(warnings, "_get_filters", None)  # Python 3.14
    return warnings.filters if of_context is None else of_context()  # type: ignore[no-any-return]  # they are in a list


def _ignore_warnings() -> None:
    """Keep CPython 3.12 and newer from warning of threads when this process forks: this module checks them."""
    filters = _filters()
    filters[:] = [*FILTERS, *(one for one in filters if one not in FILTERS)]


class Unwarned:
    """A context in which CPython does not warn of threads at a fork of the program, whose filters are kept.

    If the warning is an error, Python 3.15 raises it after the fork: the caller would not learn the child's pid.
    """

    def __enter__(self) -> None:
        self._filters = _filters()
        self._filters[:0] = FILTERS

    def __exit__(self, *_: object) -> None:
        del self._filters[: len(FILTERS)]


def settle() -> list[Callable[[], object]]:
    """Flush output, collect garbage and freeze the rest; return the resets that each new process must run.

    Raises Failure if a native thread runs that does not stop for a fork.
    """
    flush_stdio()
    _ignore_warnings()
    _check_native_threads()
    gc.collect()
    gc.freeze()
    return resets()


def resets() -> list[Callable[[], object]]:
    """Return the functions that a copy of this process must call to reset state that it must not share."""
    needed: list[Callable[[], object]] = [fence] if atexit._ncallbacks() else []
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


def unsafe_threads() -> list[str]:
    """Return the names of native threads that do not stop for a fork, judged after a probe fork.

    OpenBLAS, for one, stops its threads for the fork and restarts them.
    """
    if len(_tasks()) <= 1 or not _native_threads():
        return []
    _probe_fork()
    return _native_threads()


def _native_threads() -> list[str]:
    main = str(os.getpid())
    names = [_task_name(task) for task in _tasks() if task != main]
    return [name for name in names if name not in SAFE_THREADS]


def _probe_fork() -> None:
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        with Unwarned():
            pid = os.fork()
        if pid == 0:
            os._exit(0)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the program ignores SIGCHLD
        pass


def _tasks() -> list[str]:
    try:
        return os.listdir("/proc/self/task")
    except OSError:  # no /proc: native threads are unknown
        return []


def _task_name(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:  # the thread has ended
        return task


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
