"""The benchmark ``data``: numpy arrays to a worker and back, beside copying them within one process."""

from __future__ import annotations

from .contenders import DATA_CONTENDERS, SIZES
from .contest import contest
from .report import Report, Settings
from .rounds import measure_in_rounds
from .tables import number
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
    title = "A numpy array out and back: medians of interleaved slices; ratios are medians of those within a round"

    def cells(name: str) -> list[str]:
        pairs = [(samples.median(name, size), samples.ratio(name, FLOOR, size)) for size in SIZES]
        return [cell for median, ratio in pairs for cell in (number(median and median * 1000, 1), number(ratio))]

    return contest(title, heads, DATA_CONTENDERS, samples, missing, cells)


def targets(samples: Samples) -> list[Target]:
    """Those of the largest array."""
    ratio = samples.ratio
    return [
        at_most("100 MB out and back, x two copies into new memory", 2, ratio(ANYFORK, FLOOR, LARGEST)),
        at_most("100 MB out and back, x two copies as numpy makes them", 2, ratio(ANYFORK, NUMPY, LARGEST)),
        at_least("100 MB out and back, times as fast as ProcessPoolExecutor", 3, ratio(EXECUTOR, ANYFORK, LARGEST)),
    ]
