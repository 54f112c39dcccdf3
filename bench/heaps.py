"""Templates with many objects, for ``create``: starts from a large heap, memory of processes that read all of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import median

from .driver import Driver, UnavailableError
from .report import Settings, progress
from .tables import number, table
from .targets import Target, at_most

LARGE = 3_300_000  # dictionaries: 1 GB
WALKED = 300_000
BEFORE, BETWEEN, AFTER = 5, 8, 20  # starts: with small pages, while huge pages are made, and with these
KINDS = {"as usual": "mortal", "immortal": "immortal"}
LIMIT = 4.0  # ms, and MB


@dataclass(frozen=True, slots=True)
class Heaps:
    """Seconds of CPU of starts by sort of pages, and bytes that processes own after reading, by sort of objects."""

    starts: dict[str, list[float]] = field(default_factory=dict)
    walked: dict[str, list[float]] = field(default_factory=dict)


def measure_starts(heaps: Heaps, missing: dict[str, str]) -> None:
    """Start processes of a large template, before and after it has moved its heap to huge pages."""
    progress("create: a template with 1 GB of objects")
    try:
        with Driver.python("bench.heap_owner", "mortal", str(LARGE)) as driver:
            driver.answer()
            heaps.starts["small pages"] = driver.ask("starts", BEFORE)[1:]
            driver.ask("starts", BETWEEN)
            heaps.starts["huge pages"] = driver.ask("starts", AFTER)
    except UnavailableError as error:
        missing["heap"] = str(error)


def measure_walks(heaps: Heaps, settings: Settings, missing: dict[str, str]) -> None:
    """Weigh processes that have read all objects of their template."""
    for text, kind in KINDS.items():
        if kind == "immortal" and sys.version_info < (3, 12):
            missing["walked, immortal"] = "this Python counts all references; it needs 3.12 or newer"
            continue
        progress(f"create: objects {text}")
        try:
            with Driver.python("bench.heap_owner", kind, str(WALKED)) as driver:
                driver.answer()
                heaps.walked[text] = [byte for _ in range(1 if settings.quick else 3) for byte in driver.ask("walk", 0)]
        except UnavailableError as error:
            missing[f"walked, {text}"] = str(error)


def heaps_table(heaps: Heaps) -> str:
    """Both measures."""
    starts = [[f"start and end, template of 1 GB of objects, {text}, ms of CPU", number(median(found) * 1e3, 1)]
              for text, found in heaps.starts.items()]  # fmt: skip
    walks = [[f"a process that has read {WALKED:,} dictionaries, objects {text}, MB of its own",
              number(median(found) / 1e6, 1)] for text, found in heaps.walked.items()]  # fmt: skip
    return table("Templates with many objects", ["", ""], [*starts, *walks])


def heaps_targets(heaps: Heaps) -> list[Target]:
    """What is wanted of both."""
    huge, immortal = heaps.starts.get("huge pages"), heaps.walked.get("immortal")
    return [
        at_most("start and end with 1 GB of objects, ms of CPU", LIMIT, median(huge) * 1e3 if huge else None),
        at_most(
            "memory of a process that has read all objects, MB", LIMIT, median(immortal) / 1e6 if immortal else None
        ),
    ]
