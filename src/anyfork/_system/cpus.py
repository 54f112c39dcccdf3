"""The number of CPUs that this program may use, which is the default maximum of workers in a pool."""

from __future__ import annotations

from math import ceil, inf

from _anyfork_child.wire.platform import allowed_cpus

from .control_groups import PROC, group_directories


def usable_cpus() -> int:
    """Return how many CPUs this program can keep busy: its affinity, or the quota of its control groups if less."""
    return max(1, min(allowed_cpus(), ceil(min(cpu_quota(), 1e6))))


def cpu_quota(proc: str = PROC) -> float:
    """Return the CPU quota of the control groups that this process is in, in CPUs; infinity if there is none.

    The quotas of the groups above count too, as far as this process can see them.
    """
    return min(map(_quota_in, group_directories("cpu", proc)), default=inf)


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
