"""A container: a template that forks one process and kills whatever that process leaves behind, at its end.

The orphans of a process, daemons and those with a session of their own included, become children of the nearest
ancestor that has asked the kernel for them (PR_SET_CHILD_SUBREAPER). The container is that ancestor. It reaps them, and
kills them when its process has ended, before it reports that end to the owner. Only a program that kills the container
itself gets away.
"""

from __future__ import annotations

import os
import sys

from ..wire.own_imports import import_own
from ..wire.process_tree import kill_descendants

PR_SET_CHILD_SUBREAPER = 36

_container = 0  # the pid of the container that this process is, or was forked from


def become_container() -> None:
    """Make this process a container. Raises OSError where the system has none."""
    global _container
    if sys.platform != "linux":
        raise OSError(f"only Linux gives orphans to an ancestor, and this is {sys.platform}")
    ctypes = import_own("ctypes")
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    _container = os.getpid()


def is_container() -> bool:
    """Return whether this process is a container."""
    return _container == os.getpid()


def end_contained() -> None:
    """Kill and reap all descendants of this process, if it is a container; its own process must have ended before."""
    if not is_container():
        return
    wait = 0
    try:
        kill_descendants(os.getpid())
    except OSError as error:  # not permitted, above all
        print(f"anyfork: {error}", file=sys.stderr)
        wait = os.WNOHANG
    try:
        while os.waitpid(-1, wait)[0]:
            pass
    except ChildProcessError:  # none is left
        pass
