"""The number of CPUs that this program may use, which is the default maximum of workers in a pool."""

from __future__ import annotations

import os
from math import ceil, inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc/self"


def usable_cpus() -> int:
    """Return how many CPUs this program can keep busy: its affinity, or the quota of its control groups if less."""
    return max(1, min(_allowed(), ceil(min(cpu_quota(), 1e6))))


def _allowed() -> int:
    count = getattr(os, "process_cpu_count", None)  # Python 3.13
    if count is not None:
        return count() or 1
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def cpu_quota(proc: str = PROC) -> float:
    """Return the CPU quota of the control groups that this process is in, in CPUs; infinity if there is none.

    Reads version 1 and version 2. The quotas of the groups above count too, as far as this process can see them.
    """
    try:
        with open(f"{proc}/cgroup") as cgroup, open(f"{proc}/mountinfo") as mountinfo:
            groups = dict(_groups(cgroup.read()))
            mounts = list(_mounts(mountinfo.read()))
    except OSError:  # no /proc: there are no control groups either
        return inf
    quota = inf
    for controller, root, mount in mounts:
        path = groups.get(controller, "")
        if path:
            quota = min(quota, _quota_of(mount, _below(path, root)))
    return quota


def _groups(text: str) -> Iterator[tuple[str, str]]:
    """Yield the controller ("" for version 2) and the path of each control group in /proc/PID/cgroup."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield "", path
        elif "cpu" in controllers.split(","):
            yield "cpu", path


def _mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the controller, the group at the root, and the directory of each mount in /proc/PID/mountinfo."""
    for line in text.splitlines():
        here, _, kind = line.partition(" - ")
        kind, _, options = kind.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            root, directory = here.split(" ")[3:5]
            yield "" if kind == "cgroup2" else "cpu", root, directory.replace("\\040", " ")


def _below(path: str, root: str) -> str:
    """Return the path of a group below the root of a mount, or the root's if the group is outside of it."""
    if root == "/":
        return path.strip("/")
    return path.removeprefix(root).strip("/") if f"{path}/".startswith(f"{root}/") else ""


def _quota_of(mount: str, group: str) -> float:
    """Return the least quota of a group and of the groups above it."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return min(_quota_in("/".join((mount, *parts[:depth]))) for depth in range(len(parts) + 1))


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
