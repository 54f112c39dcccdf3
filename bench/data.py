"""The benchmark ``data``: numpy arrays to a worker and back, beside copying them within one process."""

from __future__ import annotations

from .contenders import DATA_CONTENDERS, SIZES
from .report import Report, Settings
from .rounds import measure_in_rounds
from .tables import NONE, number, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

FLOOR, NUMPY, ANYFORK, EXECUTOR = "floor", "numpy-copy", "anyfork", "executor"
LARGEST = SIZES[-1]
NAMES = tuple(contender.name for contender in DATA_CONTENDERS)


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    samples, missing = measure_in_rounds("data", DATA_CONTENDERS, SIZES, settings)
    found = targets(samples)
    tables = [data_table(samples, missing)] if samples.data() else []
    data: dict[str, object] = {"data": samples.data(), "missing": missing, "targets": targets_data(found)}
    return Report([*tables, targets_table(found)], data)


def data_table(samples: Samples, missing: dict[str, str]) -> str:
    """How long each takes for each size, and how that compares with the floor."""
    heads = ["", *(head for size in SIZES for head in (f"{size.removesuffix('MB')} MB\np50, ms", "\nx floor"))]
    rows = []
    for contender in DATA_CONTENDERS:
        name = contender.name
        if name in samples.data():
            cells = [contender.label]
            for size in SIZES:
                seconds = samples.median(name, size)
                cells += [number(None if seconds is None else seconds * 1000, 1)]
                cells += [number(samples.ratio(name, FLOOR, size))]
            rows.append(cells)
        elif name in missing:
            rows.append([f"{contender.label} (not here)", *[NONE] * 2 * len(SIZES)])
    title = "A numpy array out and back: medians of interleaved slices; ratios are medians of those within a round"
    notes = [f"not measured: {name}: {why}" for name, why in missing.items()]
    return "\n".join([table(title, heads, rows), *notes])


def targets(samples: Samples) -> list[Target]:
    """Those of the largest array."""
    ratio = samples.ratio
    return [
        at_most("100 MB out and back, x two copies into new memory", 2, ratio(ANYFORK, FLOOR, LARGEST)),
        at_most("100 MB out and back, x two copies as numpy makes them", 2, ratio(ANYFORK, NUMPY, LARGEST)),
        at_least("100 MB out and back, times as fast as ProcessPoolExecutor", 3, ratio(EXECUTOR, ANYFORK, LARGEST)),
    ]
