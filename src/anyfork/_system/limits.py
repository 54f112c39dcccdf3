"""What this program may use: CPUs and memory, of the machine and in its control groups (of version 1 and 2)."""

from __future__ import annotations

from math import ceil, inf

from _anyfork_child.wire.platform import allowed_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc"
SHORT = 0.05  # the part of all memory below which what is left is short
VERSIONS = (  # the files of a group: its limit, what it uses, and what of that is files that can be dropped
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def usable_cpus() -> int:
    """Return how many CPUs this program can keep busy: its affinity, or the quota of its control groups if less."""
    return max(1, min(allowed_cpus(), ceil(min(cpu_quota(), 1e6))))


def cpu_quota(proc: str = PROC) -> float:
    """Return the CPU quota of the control groups that this process is in, in CPUs; infinity if there is none.

    The quotas of the groups above count too, as far as this process can see them.
    """
    return min(map(_quota_in, _group_directories("cpu", proc)), default=inf)


def _quota_in(directory: str) -> float:
    """Return the quota of one group, from the file of either version."""
    try:
        with open(f"{directory}/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        try:
            with open(f"{directory}/cpu.cfs_quota_us") as first, open(f"{directory}/cpu.cfs_period_us") as second:
                quota, period = first.read(), second.read()
        except OSError:  # the root has no quota, and neither has a group without this controller
            return inf
    return inf if quota.strip() in ("max", "-1") else int(quota) / int(period)


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
    for directory in _group_directories("memory", proc):
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


# --- Control groups --------------------------------------------------------------------------------------------------


def _group_directories(controller: str, proc: str) -> Iterator[str]:
    """Yield the directories of this process's groups of a controller, and of the groups above them.

    There are only those that this process can see.
    """
    try:
        with open(f"{proc}/self/cgroup") as cgroup, open(f"{proc}/self/mountinfo") as mountinfo:
            groups = dict(_groups(cgroup.read(), controller))
            mounts = list(_mounts(mountinfo.read(), controller))
    except OSError:  # no /proc: there are no control groups either
        return
    for version, root, mount in mounts:
        path = groups.get(version, "")
        if path:
            parts = [part for part in _below(path, root).split("/") if part not in ("", "..")]
            yield from ("/".join((mount, *parts[:depth])) for depth in range(len(parts) + 1))


def _groups(text: str, controller: str) -> Iterator[tuple[str, str]]:
    """Yield the controller ("" for version 2) and the path of each control group in /proc/PID/cgroup."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield "", path
        elif controller in controllers.split(","):
            yield controller, path


def _mounts(text: str, controller: str) -> Iterator[tuple[str, str, str]]:
    """Yield the controller, the group at the root, and the directory of each mount in /proc/PID/mountinfo."""
    for line in text.splitlines():
        here, _, kind = line.partition(" - ")
        kind, _, options = kind.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            root, directory = here.split(" ")[3:5]
            yield "" if kind == "cgroup2" else controller, root, directory.replace("\\040", " ")


def _below(path: str, root: str) -> str:
    """Return the path of a group below the root of a mount, or the root's if the group is outside of it."""
    if root == "/":
        return path.strip("/")
    return path.removeprefix(root).strip("/") if f"{path}/".startswith(f"{root}/") else ""
