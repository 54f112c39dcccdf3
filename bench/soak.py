"""The benchmark ``soak``: very many processes through one template, and nothing may grow by that."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import asdict, dataclass
from time import perf_counter

from anyfork import Process, Template

from .child import nothing
from .procfs import descriptors, memory, zombies
from .report import Report, Settings, progress
from .tables import number, table
from .targets import Target, at_most, targets_data, targets_table

COUNT, QUICK_COUNT = 20_000, 2_000
CHECKS = 10
IN_FLIGHT = 16
GROWTH = 1_100_000  # bytes: one arena of CPython's allocator may come late; 64 bytes a process in 18,000 are more
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """The state after so many processes, when none is running: bytes, descriptors, zombies, seconds so far."""

    processes: int
    template_rss: int
    template_private: int
    template_descriptors: int
    owner_private: int
    owner_descriptors: int
    zombies: int
    seconds: float


def run(settings: Settings) -> Report:
    """Start the processes, look at intervals, and fail when something has grown since the first look."""
    count = min(settings.count, QUICK_COUNT) if settings.quick else settings.count
    checks = soak(count)
    found = targets(checks[0], checks[-1])
    failed = any(target.met is False for target in found)
    data: dict[str, object] = {"checks": [asdict(check) for check in checks], "targets": targets_data(found)}
    return Report([checks_table(checks), targets_table(found)], data, failed)


def soak(count: int) -> list[Check]:
    """Run so many processes, a few at a time; the first interval is the warming up."""
    checks = []
    begin = perf_counter()
    with Template().preload("bench.child") as template:
        template.ready()
        step = max(1, count // CHECKS)
        for done in range(0, count - step + 1, step):
            _start(template, step)
            checks.append(check(template, done + step, perf_counter() - begin))
            progress(f"soak: {done + step} of {count}")
    return checks


def _start(template: Template, count: int) -> None:
    started: deque[Process] = deque()
    for _ in range(count):
        started.append(template.fork().start(nothing))
        if len(started) == IN_FLIGHT:
            started.popleft().wait()
    for process in started:
        process.wait()


def check(template: Template, processes: int, seconds: float) -> Check:
    """Look at the template, once it has done everything that it was asked, and at this process."""
    pid, owner = template.ready().pid, os.getpid()
    assert pid is not None
    theirs, ours = memory(pid), memory(owner)
    return Check(
        processes,
        theirs.rss,
        theirs.private,
        descriptors(pid),
        ours.private,
        descriptors(owner),
        zombies(pid) + zombies(owner),
        seconds,
    )


def targets(first: Check, last: Check) -> list[Target]:
    """Nothing grows, nothing stays."""
    grown = last.processes - first.processes
    return [
        at_most(
            f"growth of the template in {grown} processes, bytes",
            GROWTH,
            last.template_private - first.template_private,
        ),
        at_most(f"growth of the owner in {grown} processes, bytes", GROWTH, last.owner_private - first.owner_private),
        at_most("more descriptors in the template", 0, last.template_descriptors - first.template_descriptors),
        at_most("more descriptors in the owner", 0, last.owner_descriptors - first.owner_descriptors),
        at_most("zombies", 0, last.zombies),
    ]


def checks_table(checks: list[Check]) -> str:
    """One line a look."""
    heads = [
        "processes",
        "template\nRSS, MB",
        "\nown, MB",
        "\ndescriptors",
        "owner\nown, MB",
        "\ndescriptors",
        "\nzombies",
        "\nseconds",
    ]
    rows = [
        [
            str(c.processes),
            *(number(size / MB) for size in (c.template_rss, c.template_private)),
            str(c.template_descriptors),
            number(c.owner_private / MB),
            str(c.owner_descriptors),
            str(c.zombies),
            number(c.seconds, 1),
        ]
        for c in checks
    ]
    return table("Many processes through one template", heads, rows)
