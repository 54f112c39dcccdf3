"""The machine a benchmark runs on, and the CPUs it may use there."""

from __future__ import annotations

import compileall
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.util import find_spec

BUSY = 0.5  # load: more work than that of others disturbs even ratios
PACKAGES = ("anyfork", "_anyfork_child", "bench")


def pin() -> int:
    """Confine this process, and with it everything it starts, to one CPU; return which."""
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def compile_packages() -> None:
    """Write the byte code that an installed package has, and let what we start do so, should a source change meanwhile.

    A template that had to compile its modules is late, and has a heap that costs every start from it more faults.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in PACKAGES:
        spec = find_spec(package)
        for directory in (spec and spec.submodule_search_locations) or ():
            compileall.compile_dir(directory, quiet=2, maxlevels=0)


def description(pinned: int | None) -> dict[str, object]:
    """What a reader of the figures has to know."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "pinned_to_cpu": pinned,
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000,
        "load_before": os.getloadavg()[0],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def heading(machine: dict[str, object]) -> str:
    """The description in two lines."""
    cpu, load = machine["pinned_to_cpu"], machine["load_before"]
    assert isinstance(load, float)
    where = "not pinned" if cpu is None else f"everything pinned to CPU {cpu}"
    busy = " (a busy machine: wait for a quiet one)" if load > BUSY else ""
    return (
        f"{machine['python']}, {machine['system']}, {machine['processor']}, {machine['cpus']} CPUs, "
        f"{machine['memory_mb']} MB\n{where}, load before {load:.2f}{busy}, {machine['time']}"
    )


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown CPU")
