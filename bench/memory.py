"""The benchmark ``memory``: what a process of a heavy template owns, idle, after a collection, and after real work."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from .driver import Driver, UnavailableError
from .report import Report, Settings, progress
from .tables import NONE, number, table
from .targets import Target, at_most, targets_data, targets_table

PROCESSES = 4  # the figures that the targets were set against come from four, too: PSS depends on it
ROUNDS, QUICK_ROUNDS = 3, 1
STAGES = {  # in this order, in the same processes: what to do before weighing them, and what to call it
    "idle": "idle",
    "+ collect": "collected",
    "used": "used",
    "used + collect": "collected",
}
LOADS = {
    "bench.heavy": "numpy, pandas, much of the standard library and 200,000 dicts, about 180 MB",
    "bench.frames": "numpy and pandas only",
}
METHODS = {
    "anyfork": "anyfork",
    "fork": "multiprocessing fork",
    "forkserver": "multiprocessing forkserver, preloaded",
    "spawn": "multiprocessing spawn",
}
NAMES = tuple(METHODS)
MIB = 1 << 20
IDLE_LIMIT, USED_LIMIT = 1.5, 15.0  # MiB


@dataclass(frozen=True, slots=True)
class Row:
    """One contender with one load: by stage and by sort of memory, the figures of all processes of all rounds."""

    private: dict[str, list[float]]
    pss: dict[str, list[float]]
    parent: list[float]  # resident bytes of the process that the others are forked from


def run(settings: Settings) -> Report:
    """Measure one contender after the other: together, they would share pages of libraries, which PSS counts."""
    missing: dict[str, str] = {}
    rows: dict[str, dict[str, Row]] = {load: {} for load in LOADS}
    for load in LOADS:
        for method in filter(settings.wants, METHODS):
            progress(f"memory: {load.rpartition('.')[2]}, {method}")
            try:
                rows[load][method] = measure(method, load, QUICK_ROUNDS if settings.quick else ROUNDS)
            except UnavailableError as error:
                missing[f"{method}, {load}"] = str(error)
    found = targets(rows)
    tables = [load_table(load, rows[load]) for load in LOADS if rows[load]]
    notes = [f"not measured: {name}: {why}" for name, why in missing.items()]
    return Report([*tables, *notes, targets_table(found)], data(rows, missing, found))


def measure(method: str, load: str, rounds: int) -> Row:
    """Start the processes anew in every round, and weigh them in every stage. Raises UnavailableError."""
    row = Row({stage: [] for stage in STAGES}, {stage: [] for stage in STAGES}, [])
    for _ in range(rounds):
        with Driver.python("bench.memory_owner", method, load) as driver:
            driver.answer()
            driver.ask("start", PROCESSES)
            for stage, command in STAGES.items():
                numbers = driver.ask(command, 0)
                row.private[stage].extend(numbers[0::3])
                row.pss[stage].extend(numbers[1::3])
            row.parent.extend(driver.ask("parent", 0)[2::3])
    return row


def load_table(load: str, rows: dict[str, Row]) -> str:
    """Memory of one process, and how that compares with anyfork's after use."""
    pairs = [head for stage in STAGES for head in (f"{stage}\nown", "\nPSS")]
    heads = ["", "template\nRSS", *pairs, "\nx anyfork"]
    body = []
    for method, row in rows.items():
        cells = [number(m / MIB, 1) for stage in STAGES for m in (median(row.private[stage]), median(row.pss[stage]))]
        parent = number(median(row.parent) / MIB, 0) if row.parent else NONE
        body.append([METHODS[method], parent, *cells, number(_against(rows, row), 1)])
    title = f"{LOADS[load]}\nMiB of one of {PROCESSES} processes: its own (private) and its share (PSS)"
    return table(title, heads, body)


def _against(rows: dict[str, Row], row: Row) -> float | None:
    """The PSS of a used process against that of anyfork's."""
    last = list(STAGES)[-1]
    return median(row.pss[last]) / median(rows["anyfork"].pss[last]) if "anyfork" in rows else None


def targets(rows: dict[str, dict[str, Row]]) -> list[Target]:
    """What anyfork's processes may own."""
    heavy, frames = rows["bench.heavy"].get("anyfork"), rows["bench.frames"].get("anyfork")
    targets = []
    if heavy is not None:
        targets += [
            at_most(f"own memory, 180 MB template, {stage}, MiB", IDLE_LIMIT, median(heavy.private[stage]) / MIB)
            for stage in ("idle", "+ collect")
        ]
    if frames is not None:
        targets += [
            at_most(f"PSS, numpy and pandas, {stage}, MiB", USED_LIMIT, median(frames.pss[stage]) / MIB)
            for stage in ("used", "used + collect")
        ]
    return targets


def data(rows: dict[str, dict[str, Row]], missing: dict[str, str], found: list[Target]) -> dict[str, object]:
    """Everything in bytes, for JSON."""
    return {
        "processes": PROCESSES,
        "loads": {
            load: {m: {"private": r.private, "pss": r.pss, "parent_rss": r.parent} for m, r in by_method.items()}
            for load, by_method in rows.items()
        },
        "missing": missing,
        "targets": targets_data(found),
    }
