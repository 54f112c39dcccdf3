"""What the imports of modules have left behind in this process, as far as a template must not have it.

Runs in the process in which ``anyfork audit`` imports the modules of a program.
"""

from __future__ import annotations

import _signal
import os
import sys
from _thread import _count as count_threads

from ..birth.exit import flush_stdio
from ..wire.gpu_devices import GpuDevices
from ..wire.process_tree import children
from ..wire.threads import SAFE_THREADS, subinterpreters, unsafe_threads
from ..wire.unsafe_modules import CUDA, unsafe_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Thread
    from typing import TypeAlias

    # What kind of thing has been found, and its identity among them; and what to say of it.
    Key: TypeAlias = tuple[str, object]
    Remain: TypeAlias = tuple[Key, str]

# Native threads are judged at the end, and output is never taken back.
UNSAFE, NOTE, NATIVE, OUTPUT = "unsafe", "note", "native", "output"
HARMLESS = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
TASKS = "/proc/self/task"


def remains() -> dict[Key, str]:
    """Return all that there is now; the difference to an earlier look is what has come since."""
    flush_stdio()
    looks = _threads(), _native_threads(), _descriptors(), _processes(), _signals(), _output(), _others()
    return dict(found for look in looks for found in look)


def lasting_tasks() -> set[str]:
    """Return the threads of this process that a fork does not stop, among them those of Python."""
    unsafe_threads()  # for its fork, and until threads that end have ended
    return {*os.listdir(TASKS)}


def _threads() -> Iterator[Remain]:
    for thread in _known_threads():
        yield (UNSAFE, id(thread)), f"has started the thread {thread.name!r}"


def _native_threads() -> Iterator[Remain]:
    """Yield the threads that the module threading does not know."""
    known = {str(os.getpid()), *(str(thread.native_id) for thread in _known_threads())}
    for task in os.listdir(TASKS):
        name = "" if task in known else _read(f"{TASKS}/{task}/comm").rstrip("\n")
        if name and name not in SAFE_THREADS:
            yield (NATIVE, task), f"has started a native thread, {name!r}"


def _known_threads() -> list[Thread]:
    """Return the threads of the module threading, but for the main one."""
    threading = sys.modules.get("threading") if count_threads() else None
    if threading is None or getattr(threading.__spec__, "_initializing", False):
        return []
    return [thread for thread in threading.enumerate() if thread is not threading.main_thread()]


def _descriptors() -> Iterator[Remain]:
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # that of the listing itself
            continue
        if target not in HARMLESS:
            kind = target.removeprefix("anon_inode:").strip("[]").partition(":[")[0]
            yield (UNSAFE, (fd, target)), f"has left descriptor {fd} open: {kind}"


def _processes() -> Iterator[Remain]:
    for pid in children(os.getpid()):
        name = _read(f"/proc/{pid}/comm").rstrip("\n")
        yield (UNSAFE, f"process {pid}"), f"has started the process {pid} ({name})"


def _signals() -> Iterator[Remain]:
    for name in dir(_signal):
        number = getattr(_signal, name)
        if name.startswith("SIG") and type(number) is int and number in _signal.valid_signals():
            handler = _signal.getsignal(number)
            yield (UNSAFE, (name, id(handler))), f"has changed what {name} does"


def _output() -> Iterator[Remain]:
    written = sum(os.fstat(fd).st_size for fd in (1, 2))
    yield (OUTPUT, written), "writes to standard output or standard error"


def _others() -> Iterator[Remain]:
    for path in GpuDevices().paths:
        yield (UNSAFE, path), f"has opened the GPU {path}"
    for name in subinterpreters():
        yield (UNSAFE, name), f"has made the {name}"
    for name, why in unsafe_modules().items():
        yield (UNSAFE if name == CUDA else NOTE, f"module {name}"), why


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # the thread or process has ended, or this system does not tell
        return ""
