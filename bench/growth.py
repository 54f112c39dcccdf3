"""The benchmark ``growth``: what becomes slower or larger as templates, programs and the work of pools grow."""

from __future__ import annotations

from statistics import median

from .contenders import FIRST_BYTE, POOLS, SEQUENTIAL, Contender
from .driver import Driver, UnavailableError
from .report import Report, Settings, progress
from .rounds import measure_in_rounds
from .tables import number, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Curve = list[tuple[float, float]]
    Curves = dict[str, Curve]

TEMPLATE_SIZES, OWNER_SIZES = (0, 50, 100, 200, 400), (20, 100, 300, 1000)  # MB
REQUESTS, QUICK_REQUESTS = (0, 100, 1000, 3000, 10000), (0, 100)
KINDS = {"anyfork": "anyfork", "mp-forkserver": "forkserver", "os-fork": "os.fork"}
POOL_KINDS = {
    "anyfork": "anyfork.Executor",
    "anyfork-immortal": "the same, immortalize()",
    "ppe-forkserver": "ProcessPoolExecutor, forkserver",
    "ppe-fork": "ProcessPoolExecutor, fork",
    "ppe-spawn": "ProcessPoolExecutor, spawn",
}
TEMPLATE, OWNER, MEMORY = "template", "owner", "requests"
NAMES = (TEMPLATE, OWNER, MEMORY)
MB = 1_000_000


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    missing: dict[str, str] = {}
    curves: dict[str, Curves] = {}
    if settings.wants(TEMPLATE):
        curves[TEMPLATE] = _starts(_template_contenders(), FIRST_BYTE, 1000, settings, missing)
    if settings.wants(OWNER):
        curves[OWNER] = _starts(_owner_contenders(), SEQUENTIAL, 1, settings, missing)
    if settings.wants(MEMORY):
        curves[MEMORY] = _requests(settings, missing)
    tables = [_table(name, found) for name, found in curves.items()]
    notes = [f"not measured: {name}: {why}" for name, why in missing.items()]
    return Report([*tables, *notes], {"curves": curves, "missing": missing})


def _template_contenders() -> list[Contender]:
    """Templates with objects, and a program with as much memory that forks itself."""
    return [
        Contender(f"{kind}:{size}", label, kind, megabytes=size if kind == "os-fork" else 0,
                  preload=("bench.ballast",), measures=(FIRST_BYTE,), objects=size)
        for kind, label in KINDS.items() for size in TEMPLATE_SIZES
    ]  # fmt: skip


def _owner_contenders() -> list[Contender]:
    return [
        Contender(f"{kind}:{size}", label, kind, megabytes=size, measures=(SEQUENTIAL,))
        for kind, label in KINDS.items()
        for size in OWNER_SIZES
    ]


def _starts(
    contenders: Sequence[Contender], measure: str, unit: float, settings: Settings, missing: dict[str, str]
) -> Curves:
    """Measure contenders, whose names end in a size; return a curve for each label."""
    whole = Settings(settings.quick)  # --only names the curves
    samples, unavailable = measure_in_rounds("growth", contenders, (measure,), whole)
    missing.update(unavailable)
    curves: Curves = {}
    for contender in contenders:
        found = samples.median(contender.name, measure)
        if found is not None:
            size = float(contender.name.rpartition(":")[2])
            curves.setdefault(contender.label, []).append((size, found * unit))
    return curves


def _requests(settings: Settings, missing: dict[str, str]) -> Curves:
    """Weigh pools of eight workers, one after the other, after more and more requests."""
    curves: Curves = {}
    for name, label in POOL_KINDS.items():
        progress(f"growth: requests, {label}")
        try:
            with Driver.python(POOLS, name, "requests") as driver:
                driver.answer()
                curves[label] = _weigh(driver, QUICK_REQUESTS if settings.quick else REQUESTS)
        except UnavailableError as error:
            missing[label] = str(error)
    return curves


def _weigh(driver: Driver, steps: Sequence[int]) -> Curve:
    return [
        (float(step), median(driver.ask("requests", step - before)) / MB)
        for before, step in zip([0, *steps], steps, strict=False)
    ]


TITLES = {
    TEMPLATE: ("From the call to the first byte, by MB of objects in the template, ms", 2),
    OWNER: ("Starts a second, one at a time, by MB of the program", 0),
    MEMORY: ("Memory of a pool of 8 workers with 180 MB of modules and data, by requests served, MB", 0),
}


def _table(name: str, curves: Curves) -> str:
    title, digits = TITLES[name]
    heads = ["", *(f"{x:g}" for x, _ in max(curves.values(), key=len, default=[]))]
    return table(title, heads, [[label, *(number(y, digits) for _, y in curve)] for label, curve in curves.items()])
