"""The memory of a process on this machine, as the system reports it."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = {b"Private_Clean:": "private", b"Private_Dirty:": "private", b"Pss:": "pss"}


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The memory of a process, in bytes.

    ``private`` memory belongs to the process alone. ``pss`` also counts its share of the memory that it has in common
    with other processes, such as its template.

    For example::

        import anyfork

        with anyfork.Executor(max_workers=1) as executor:
            executor.submit(abs, -1).result()
            (memory,) = executor.stats().memory.values()
            assert 0 < memory.private <= memory.pss
    """

    private: int
    pss: int


def memory_of(pid: int) -> ProcessMemory | None:
    """Measure the memory of a process. Return None if it has ended, or the system does not report it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            lines = rollup.read().splitlines()
    except OSError:
        return None
    found = {"private": 0, "pss": 0}
    for line in lines:
        name, _, rest = line.partition(b" ")
        if name in FIELDS:
            found[FIELDS[name]] += 1024 * int(rest.split()[0])
    return ProcessMemory(**found)
