"""Threads and interpreters of this process that a fork would not copy, and CPython's warnings of them.

Runs in templates, and in a program of which a copy is made.
"""

from __future__ import annotations

import _signal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Native threads that a fork may leave behind. jemalloc, which comes with pyarrow and so with pandas, takes its locks
# around a fork, and works in the copy without its cleanup thread.
SAFE_THREADS = frozenset({"jemalloc_bg_thd"})
END_TIMEOUT = 0.1  # seconds that a thread may take to end after its last Python code
LOOK = 0.001  # seconds between two looks: no event tells of the end of a native thread


# CPython counts threads that stop for a fork, too, and warns; a plain string as the module must equal its name.
FORKING = (
    "_anyfork_child.template.fork_loop",
    "_anyfork_child.wire.threads",
    "anyfork._programs.program_copy.fork_here",
)  # the modules that fork
FILTERS = [("ignore", None, DeprecationWarning, name, 0) for name in FORKING]


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


def ignore_warnings() -> None:
    """Keep CPython 3.12 and newer from warning of threads when this process forks: this module checks them."""
    filters = _filters()
    filters[:] = [*FILTERS, *(one for one in filters if one not in FILTERS)]


def unwarn() -> None:
    """Undo ``ignore_warnings``, in a process that becomes a Python program."""
    filters = _filters()
    filters[:] = [one for one in filters if one not in FILTERS]


class Unwarned:
    """A context in which CPython does not warn of threads at a fork of the program, whose filters are kept.

    If the warning is an error, Python 3.15 raises it after the fork: the caller would not learn the child's pid.
    """

    def __enter__(self) -> None:
        self._filters = _filters()
        self._filters[:0] = FILTERS

    def __exit__(self, *_: object) -> None:
        del self._filters[: len(FILTERS)]


def unsafe_threads() -> list[str]:
    """Return the names of native threads that do not stop for a fork, judged after a probe fork.

    OpenBLAS, for one, stops its threads for the fork and restarts them. A thread that Python has just joined may take
    a moment to end; meanwhile it runs, while those that live on mostly wait for work.
    """
    if len(_tasks()) <= 1 or not _native_threads():
        return []
    _probe_fork()
    deadline = time.monotonic() + END_TIMEOUT
    threads = _native_threads()
    while any(runs for _, runs in threads) and time.monotonic() < deadline:
        time.sleep(LOOK)  # no event tells of the end of a native thread
        threads = _native_threads()
    return [name for name, _ in threads]


def _native_threads() -> list[tuple[str, bool]]:
    """Return the name of each native thread that is not known to be safe, and whether it runs, and does not wait."""
    main = str(os.getpid())
    threads = [_look_at(task) for task in _tasks() if task != main]
    return [(name, state in "RXZ") for name, state in threads if state and name not in SAFE_THREADS]


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


def _look_at(task: str) -> tuple[str, str]:
    """Return the name and the state of a thread, as a letter; "" if it has ended."""
    try:
        with open(f"/proc/self/task/{task}/stat", encoding="utf-8", errors="replace") as file:
            name, _, state = file.read().partition(" (")[2].rpartition(") ")
    except OSError:
        return "", ""
    return name, state[0]
