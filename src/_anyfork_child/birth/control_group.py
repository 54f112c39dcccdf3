"""The control group of a container: it holds what a process starts, and one write to it kills all of that at once.

It is of version 2, below the container's own, where this user may make one. Nothing changes for the processes in it but
the name of their group: it limits nothing.
"""

from __future__ import annotations

import os

PREFIX = "anyfork-"  # of the names, which go on with the pid of the container
MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # the second where version 1 has the first


class ControlGroup:
    """A new control group below that of this process. Raises OSError if the system does not allow one."""

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
