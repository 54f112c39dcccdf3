"""The descendants of a process on this machine, as /proc lists them. Used by both sides."""

from __future__ import annotations

import os
from _signal import SIGKILL, SIGSTOP
from time import monotonic, sleep

from .descriptors import Owned
from .platform import has_pidfds, signal_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STILL = frozenset("TtZXx")  # states of a thread that starts nothing: stopped, traced, ended
PATIENCE = 1.0  # seconds to wait for stops: one that waits for a disk stops only then
PAUSE = 0.001  # seconds between looks


def kill_descendants(root: int) -> None:
    """Kill all descendants of this process or of a stopped one, however fast they start others.

    Raises PermissionError.

    Each is stopped first, so that none is missed: a child of a process that has ended belongs to another parent.
    """
    found: dict[int, Owned] = {root: Owned()}
    until = monotonic() + PATIENCE
    try:
        while not _is_complete(found, monotonic() >= until):
            sleep(PAUSE)
    finally:
        del found[root]
        refused = [pid for pid, pidfd in found.items() if not _signal(pid, pidfd, SIGKILL)]
    if refused:
        raise PermissionError(
            f"process {os.getpid()} may not kill the processes {refused} of a tree; it has killed the others"
        )


def _is_complete(found: dict[int, Owned], late: bool) -> bool:
    """Stop the children of all processes found so far, and add them. Return whether there are no more.

    There may be more as long as one of their parents still runs, which is not waited for if it is ``late``.
    """
    still = all(map(_is_still, found))  # first: a parent may start a child and stop right after the look for children
    return not _stop_children(found) and (still or late)


def _stop_children(found: dict[int, Owned]) -> bool:
    """Stop the children of all processes found so far, and theirs, and add them. Return whether there were any."""
    before = len(found)
    new = [pid for pid, parent in _parents() if parent in found and pid not in found]
    while new:
        for pid in new:
            _stop(pid, found)
        new = [child for pid in new if pid in found for child in children(pid) if child not in found]
    return len(found) > before


def _stop(pid: int, found: dict[int, Owned]) -> None:
    """Stop a process and add it, if it still is the child of one that was found."""
    try:
        pidfd = Owned(map(os.pidfd_open, (pid,))) if has_pidfds() else Owned()
    except ProcessLookupError:
        return
    except OSError:  # out of descriptors
        pidfd = Owned()
    try:
        parent = _parent(pid)
    except OSError:  # the pidfd is the last one, which is needed to read
        pidfd.close()
        parent = _parent(pid)
    if parent in found:  # still: the number may belong to another process by now
        found[pid] = pidfd
        _signal(pid, pidfd, SIGSTOP)


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process as the kernel lists them, which may be too few, at a small part
    of the price of a look at all processes: a chain that grows is caught up with.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # it has ended
        return []
    found: list[int] = []
    for thread in threads:
        try:
            found += map(int, _words(f"/proc/{pid}/task/{thread}/children"))
        except OSError:  # the thread has ended, or this kernel has no such lists
            pass
    return found


def _signal(pid: int, pidfd: Owned, number: int) -> bool:
    """Send a signal, unless the process has ended. Return False if that is not allowed."""
    try:
        if pidfd.fds:
            signal_pidfd(pidfd.fd, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def _parents() -> Iterator[tuple[int, int]]:
    """Yield the number of each process and of its parent."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            parent = _parent(int(name))
            if parent is not None:
                yield int(name), parent


def _parent(pid: int) -> int | None:
    fields = _fields(f"/proc/{pid}/stat")
    return int(fields[1]) if fields else None


def _is_still(pid: int) -> bool:
    """Return whether no thread of a process can start a process."""
    if pid == os.getpid():
        return True
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, PermissionError):
        return True
    return all((_fields(f"/proc/{pid}/task/{thread}/stat") or "X")[0] in STILL for thread in threads)


def _fields(path: str) -> list[str]:
    """Return the fields of a stat file that follow the name: the state, the parent. Empty if the process has ended,
    or if /proc hides it (hidepid), as a process of another user that could not be killed either.
    """
    try:
        return _words(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _words(path: str) -> list[str]:
    """Return the words of a file after the name of a process in parentheses, if there is one. Raises OSError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
