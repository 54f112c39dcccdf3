"""What processes and workers do that need no pandas. Runs in them."""

from __future__ import annotations

import os
import time
from pathlib import Path

JOB = 0.003  # seconds


def work(number: int) -> int:
    """Work for a few milliseconds."""
    end = time.perf_counter() + JOB
    while time.perf_counter() < end:
        pass
    return number


def wait_for_all(directory: str, step: str, count: int) -> None:
    """Wait until so many processes have come to this step."""
    there = Path(directory, step)
    there.mkdir(exist_ok=True)
    (there / str(os.getpid())).touch()
    while len(os.listdir(there)) < count:
        time.sleep(0.01)


def proportional_memory() -> int:
    """Return the PSS of this process in bytes: what it has alone, and its part of each page that it shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
