"""What /proc says of a process, by its pid. Programs of tests import this module too."""

from __future__ import annotations

from pathlib import Path


def exists(pid: int) -> bool:
    """Return whether there is such a process, or a zombie that nobody has reaped."""
    return Path(f"/proc/{pid}").exists()


def state_of(pid: int) -> str:
    """Return the letter of a process's state; X if there is no such process."""
    try:
        return _fields(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def runs(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    return state_of(pid) not in "XZ"


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent; 0 if there is no such process."""
    try:
        return int(_fields(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def page_faults(pid: int) -> int:
    """Return how many minor page faults a process has had."""
    return int(_fields(pid)[7])


def _fields(pid: int) -> list[str]:
    """Return what its ``stat`` says behind the name, which may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
