"""A container: a template that forks one process and kills whatever that process leaves behind, at its end.

The orphans of a process, daemons and those with a session of their own included, become children of the nearest
ancestor that has asked the kernel for them (PR_SET_CHILD_SUBREAPER). The container is that ancestor. It reaps them, and
kills them when its process has ended, before it reports that end to the owner. There are two containers, one in the
other, because one of them may be killed: the orphans become children of the other then. Only a program that kills both
gets away, and what it has started. (PR_SET_PDEATHSIG would not help: a fork does not inherit it.) Where the system
allows it, the inner one forks its process in a control group, which the outer one has made. Both kill that group first,
which no process escapes as long as one of them lives, however fast it starts others. (A PID namespace would hold even
against a program that kills both. But it changes what the program sees: its pid, /proc, and who may signal whom.)
"""

from __future__ import annotations

import os
import sys

from ..wire.own_imports import import_own
from ..wire.platform import LINUX, SYSTEM
from ..wire.process_tree import kill_descendants

PREFIX = "anyfork-"  # of the names, which go on with the pid of the container
MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # the second where version 1 has the first
PR_SET_CHILD_SUBREAPER = 36
_container = 0  # the pid of the container that this process is, or was forked from
_group: ControlGroup | None = None  # of that container
_inside = False  # whether this process is in that group
_means = ""  # how this process contains others, for the owner's log


class ControlGroup:
    """A new control group: it holds what a process starts, and one write to it kills all of that at once.

    It is of version 2, below that of this process, where this user may make one. Nothing changes for the processes in
    it but the name of their group: it limits nothing. Raises OSError if the system does not allow one.
    """

    def __init__(self) -> None:
        self._above = _own_directory()
        _remove_left(self._above)
        self.directory = f"{self._above}/{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        os.mkdir(self.directory)
        if not os.path.exists(f"{self.directory}/cgroup.kill"):
            self.remove()
            raise OSError("control groups of this kernel cannot be killed (Linux 5.14 is the first)")

    def join(self) -> None:
        """Move this process into the group; what it starts is there, too. Raises OSError."""
        _write(f"{self.directory}/cgroup.procs", "0")

    def leave(self) -> None:
        """Move this process back. Raises OSError."""
        _write(f"{self._above}/cgroup.procs", "0")

    def kill(self) -> None:
        """Kill all processes in the group and in the groups below it. Raises OSError."""
        _write(f"{self.directory}/cgroup.kill", "1")

    def remove(self) -> None:
        """Remove the group and those below it, as far as they are empty."""
        _remove(self.directory)


def _own_directory() -> str:
    """Return the directory of this process's control group. Raises OSError."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = [line.rstrip("\n").removeprefix("0::") for line in file if line.startswith("0::")]
    for mount in MOUNTS:
        if own and os.path.exists(f"{mount}/cgroup.controllers"):
            return mount + own[0].rstrip("/")
    raise OSError("there are no control groups of version 2")


def _remove_left(above: str) -> None:
    """Remove the groups of containers that were killed, as far as they are empty."""
    for name in os.listdir(above):
        maker = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not os.path.exists(f"/proc/{maker}"):
            _remove(f"{above}/{name}")


def _remove(group: str) -> None:
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:  # somebody else has removed it, or there are processes in it
            pass


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def become_container() -> str:
    """Make this process a container. Return how it contains others, or "" if another container in it will do that.

    Raises OSError where the system has no containers.
    """
    global _container
    if not LINUX:
        raise OSError(f"only Linux gives orphans to an ancestor, and this is {SYSTEM}")
    ctypes = import_own("ctypes")
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    is_inner = _container == os.getppid()
    _container = os.getpid()
    if not is_inner:
        _make_group()
        return ""
    _join_group()
    return _means


def _make_group() -> None:
    global _group, _inside, _means
    _group, _inside = None, False
    try:
        _group = ControlGroup()
        _means = f"the control group {_group.directory}"
    except OSError as error:
        _means = f"adopting orphans, without a control group: {error}"


def _join_group() -> None:
    global _group, _inside, _means
    if _group is None:
        return
    try:
        _group.join()
        _inside = True
    except OSError as error:
        _group, _means = None, f"adopting orphans, without a control group: {error}"


def is_container() -> bool:
    """Return whether this process is a container."""
    return _container == os.getpid()


def end_contained() -> None:
    """Kill and reap all descendants of this process, if it is a container; its own process must have ended before."""
    if not is_container():
        return
    wait = 0
    _kill_group()
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
    if _group is not None:
        _group.remove()


def _kill_group() -> None:
    """Kill all processes in the control group, if there is one, but not this process."""
    global _inside
    if _group is None:
        return
    try:
        if _inside:
            _group.leave()
            _inside = False
        _group.kill()
    except OSError:  # the other container has removed it, above all; whatever is left is killed one by one
        pass
