"""What /proc tells about a process: page faults, memory, descriptors, zombies."""

from __future__ import annotations

import os
from dataclasses import dataclass

_STATE, _PARENT, _MINOR_FAULTS, _CHILDREN_MINOR_FAULTS = 0, 1, 7, 8  # behind the name, which may contain anything
_CHILDREN_USER, _CHILDREN_SYSTEM = 13, 14
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Faults:
    """Minor page faults: of a process itself, and of those of its children that it has reaped."""

    own: float
    children: float


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU: of a process itself, and of those of its children that it has reaped, these in ticks."""

    own: float
    children: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: resident; owned alone (USS); owned, with shared pages divided among their users (PSS)."""

    rss: int
    private: int
    pss: int


def _stat(pid: int | str) -> list[str]:
    with open(f"/proc/{pid}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def faults(pid: int) -> Faults:
    """The page faults of a process so far."""
    fields = _stat(pid)
    return Faults(int(fields[_MINOR_FAULTS]), int(fields[_CHILDREN_MINOR_FAULTS]))


def cpu(pid: int) -> Cpu:
    """The CPU time of a process so far, of all its threads."""
    own = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            own += int(file.read().split()[0])
    fields = _stat(pid)
    return Cpu(own * 1e-9, (int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])) / _TICKS)


def memory(pid: int) -> Memory:
    """The memory of a process now."""
    sizes: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if rest.endswith(" kB\n"):
                sizes[name] = int(rest[:-4]) * 1024
    private = sum(size for name, size in sizes.items() if name.startswith("Private_"))
    return Memory(sizes["Rss"], private, sizes["Pss"])


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE


def available() -> int:
    """Bytes that new programs may use on this machine without swapping."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def descriptors(pid: int) -> int:
    """How many descriptors a process has open; asking about oneself counts the one that asks."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def zombies(parent: int) -> int:
    """How many children of a process have ended and were not reaped."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = _stat(name)
            except OSError:  # it has ended meanwhile
                continue
            count += fields[_STATE] == "Z" and int(fields[_PARENT]) == parent
    return count


def offspring(parent: int) -> list[int]:
    """The processes below one that live, at any depth."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = _stat(name)
            except OSError:  # it has ended meanwhile
                continue
            if fields[_STATE] != "Z":
                children.setdefault(int(fields[_PARENT]), []).append(int(name))
    below: list[int] = []
    ahead = [parent]
    while ahead:
        found = children.get(ahead.pop(), [])
        below += found
        ahead += found
    return below
