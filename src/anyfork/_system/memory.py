"""The memory that is left for this program, on the machine and in its control groups."""

from __future__ import annotations

from .control_groups import group_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc"
SHORT = 0.05  # the part of all memory below which what is left is short
VERSIONS = (  # the files of a group: its limit, what it uses, and what of that is files that can be dropped
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def memory_is_short(proc: str = PROC) -> bool:
    """Return whether little memory is left, as far as the system tells it."""
    return any(left < total * SHORT for left, total in _rooms(proc))


def _rooms(proc: str) -> Iterator[tuple[int, int]]:
    """Yield how many bytes are left and how many there are at all: on the machine, and in each group with a limit."""
    try:
        machine = _fields(f"{proc}/meminfo")
    except OSError:  # no /proc
        return
    left, total = machine.get("MemAvailable", machine["MemFree"]) << 10, machine["MemTotal"] << 10
    yield left, total
    for directory in group_directories("memory", f"{proc}/self"):
        for limit, used, files in VERSIONS:
            try:
                most = int(_read(f"{directory}/{limit}"))
                if most < total:
                    cache = _fields(f"{directory}/memory.stat").get(files, 0)
                    yield most - int(_read(f"{directory}/{used}")) + cache, most
            except (OSError, ValueError):  # of the other version, or without a limit
                continue


def _fields(path: str) -> dict[str, int]:
    """Return the numbers in a file of names and numbers."""
    return {name.rstrip(":"): int(number) for name, number, *_ in map(str.split, _read(path).splitlines())}


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
