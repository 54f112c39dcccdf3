"""Differences between systems, and between versions of Python: what there is, asked once, for both sides."""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os
import select
import sys

from .. import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from types import ModuleType
    from typing import Any

OLDEST = (3, 11)  # the first Python that can be a template
SYSTEM = sys.platform
LINUX = SYSTEM == "linux"
LAZY_IMPORTS = hasattr(sys, "set_lazy_imports")  # Python 3.15
FREE_THREADED = "t" in sys.abiflags  # Python 3.13
RSS_UNIT = 1 if SYSTEM == "darwin" else 1024  # bytes: that of ru_maxrss
# Linux alone has these. Without them a flag is 0, and all else None.
CLOEXEC: int = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
NOSIGNAL: int = getattr(_socket, "MSG_NOSIGNAL", 0)  # others may have it too
ASYNC: int = os.O_NONBLOCK | getattr(fcntl, "FASYNC", 0)
F_SETSIG: int | None = getattr(fcntl, "F_SETSIG", None)
eventfd: Any = getattr(os, "eventfd", None)
pidfd_open: Any = getattr(os, "pidfd_open", None)
signal_pidfd: Any = vars(_signal).get("pidfd_send_signal")
epoll: Any
kqueue: Any  # of macOS
poll: Any
BIND_NOW, OURS = b"LD_BIND_NOW", b"anyfork"


def _original_select() -> ModuleType:
    """Return the select module with all its functions; a second copy of it in a program that gevent or eventlet has
    patched.
    """
    spec = select.__spec__
    if hasattr(select, "epoll") or spec is None or spec.loader is None:
        return select
    from importlib.util import module_from_spec  # only now: few programs are patched

    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The original functions, whether the program is patched or not.
_select = _original_select()
epoll, kqueue, poll = (getattr(_select, name, None) for name in ("epoll", "kqueue", "poll"))


def has_pidfds() -> bool:
    """Return whether pidfds can be used: the system has them, and the owner is on the same machine.

    ANYFORK_PIDFD=0 in the environment disables them, for tests.
    """
    return pidfd_open is not None and not HOST and os.environ.get("ANYFORK_PIDFD") != "0"


def allowed_cpus() -> int:
    """Return on how many CPUs this process may run."""
    count = getattr(os, "process_cpu_count", None)  # Python 3.13
    return (count() if count is not None else len(affinity() or ()) or os.cpu_count()) or 1


def affinity() -> set[int] | None:
    """Return the CPUs that this process may run on; None if the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def bind_now(environ: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Return the environment for an interpreter that becomes a template: its dynamic linker binds all functions early.

    Otherwise each new process would look up the functions that its template never calls, os._exit first of all.
    """
    return environ if BIND_NOW in environ else {**environ, BIND_NOW: OURS}


def forget_bind_now(environ: MutableMapping[bytes, bytes]) -> None:
    """Undo ``bind_now`` in the environment of the started interpreter."""
    if environ.get(BIND_NOW) == OURS:
        del environ[BIND_NOW]
