"""The memory size of a process. Runs in workers, between two calls."""

from __future__ import annotations

from ..wire.platform import RSS_UNIT

PRIVATE, PSS = range(2)
FIELDS = (b"Private_Clean:", b"Private_Dirty:"), (b"Pss:",)


def measure(kind: int) -> int:
    """Return the memory of this process in bytes: PRIVATE memory, which no other process shares, or its share, PSS.

    PSS counts shared memory in proportion. If the system does not report these, return the peak resident size instead.
    """
    try:
        with open("/proc/self/smaps_rollup", "rb") as rollup:
            lines = rollup.read().splitlines()
    except OSError:
        return _most()
    names = FIELDS[kind]
    return 1024 * sum(int(line.split()[1]) for line in lines if line.split(None, 1)[0] in names)


def _most() -> int:
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * RSS_UNIT
