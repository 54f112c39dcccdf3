"""The benchmark ``create``: what starting a process costs, beside everything else that starts processes.

The blocking face; that of the async one is create_aio.
"""

from __future__ import annotations

from statistics import median

from . import entered, parts
from .contenders import ALL, CONTENDERS, FIRST_BYTE, IN_FLIGHT, SEQUENTIAL
from .contest import contest
from .driver import UnavailableError
from .entered import entered_table, entered_targets
from .heaps import Heaps, heaps_table, heaps_targets, measure_starts, measure_walks
from .parts import parts_data, parts_table, parts_targets
from .report import Report, Settings, progress
from .rounds import measure_in_rounds
from .startup import ExecCost, ImportCost, exec_cost, import_cost
from .tables import number, rate, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

FLOOR, ANYFORK = "floor", "anyfork"
PARTS, ENTERED, HEAP, WALKED, IMPORT, EXEC = "parts", "entered", "heap", "walked", "import", "exec"
NAMES = (*(contender.name for contender in CONTENDERS), PARTS, ENTERED, HEAP, WALKED, IMPORT, EXEC)

INTERPRETERS, QUICK_INTERPRETERS = 25, 7

IMPORT_LIMIT = 15.0  # ms


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    samples, missing = measure_in_rounds("create", CONTENDERS, ALL, settings)
    slices = parts.measure(settings, missing) if settings.wants(PARTS) else {}
    entries = entered.measure(settings, missing) if settings.wants(ENTERED) else {}
    heaps = measure_heaps(settings, missing)
    imports = measure_import(settings) if settings.wants(IMPORT) else None
    execs = measure_exec(settings, missing) if settings.wants(EXEC) else None
    targets = [
        *start_targets(samples, settings.pinned),
        *parts_targets(slices),
        *entered_targets(entries),
        *heaps_targets(heaps),
        *startup_targets(imports, execs),
    ]
    tables = [starts_table(samples, missing)] if samples.data() else []
    tables += [parts_table(slices)] if slices else []
    tables += [entered_table(entries)] if entries else []
    tables += [heaps_table(heaps)] if heaps.starts or heaps.walked else []
    tables += [startup_table(imports, execs)] if imports or execs else []
    if not samples.data():  # whose table says it otherwise
        tables += [f"not measured: {name}: {why}" for name, why in missing.items()]
    data: dict[str, object] = {
        "starts": samples.data(),
        "missing": missing,
        "parts": parts_data(slices),
        "entered": entries,
        "heaps": {"starts": heaps.starts, "walked": heaps.walked},
        "import": imports and {"bare": imports.bare, "imported": imports.imported, "modules": imports.modules},
        "exec": execs and {"ready": execs.ready, "bare": execs.bare},
        "targets": targets_data(targets),
    }
    return Report([*tables, targets_table(targets)], data)


# --- Measuring --------------------------------------------------------------------------------------------------


def measure_heaps(settings: Settings, missing: dict[str, str]) -> Heaps:
    """What templates with many objects cost."""
    heaps = Heaps()
    if settings.wants(HEAP):
        measure_starts(heaps, missing)
    if settings.wants(WALKED):
        measure_walks(heaps, settings, missing)
    return heaps


def measure_import(settings: Settings) -> ImportCost:
    """What ``import anyfork`` costs."""
    progress("create: import")
    return import_cost(QUICK_INTERPRETERS if settings.quick else INTERPRETERS)


def measure_exec(settings: Settings, missing: dict[str, str]) -> ExecCost | None:
    """What an exec'ed template costs."""
    progress("create: exec'ed templates")
    try:
        return exec_cost(QUICK_INTERPRETERS if settings.quick else INTERPRETERS)
    except UnavailableError as error:
        missing[EXEC] = str(error)
        return None


# --- Tables -----------------------------------------------------------------------------------------------------


def starts_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who starts how fast, and how that compares with the floor."""
    heads = [""]
    for text in ("first byte\np50, ms", "one at a time\na second", "64 in flight\na second"):
        heads += [text, "\nx floor"]
    title = "Starting a process: medians of interleaved slices; ratios are medians of those within a round"
    return contest(title, heads, CONTENDERS, samples, missing, lambda name: _start_cells(samples, name))


def _start_cells(samples: Samples, name: str) -> list[str]:
    latency = samples.median(name, FIRST_BYTE)
    cells = [number(None if latency is None else latency * 1000), number(samples.ratio(name, FLOOR, FIRST_BYTE))]
    for measure in (SEQUENTIAL, IN_FLIGHT):
        cells += [rate(samples.median(name, measure)), number(samples.ratio(name, FLOOR, measure))]
    return cells


def startup_table(imports: ImportCost | None, execs: ExecCost | None) -> str:
    """Interpreters, with and without anyfork."""
    rows = []
    if imports is not None:
        loaded = f"import anyfork adds, which loads {imports.modules} modules"
        rows += [["python -c pass", _ms(median(imports.bare))], [loaded, _ms(imports.seconds)]]
    if execs is not None:
        rows += [
            ["python -I -c pass", _ms(median(execs.bare))],
            ["Template.new_exec().ready()", _ms(median(execs.ready))],
        ]
    return table("Interpreters", ["", "ms"], rows)


def _ms(seconds: float) -> str:
    return number(seconds * 1000, 1)


# --- Targets ----------------------------------------------------------------------------------------------------


def start_targets(samples: Samples, pinned: bool) -> list[Target]:
    """Those of speed; all of them are ratios."""
    least = 0.80 if pinned else 0.85
    ratio = samples.ratio
    return [
        at_least("one at a time, x floor", least, ratio(ANYFORK, FLOOR, SEQUENTIAL)),
        at_least("64 in flight, x floor", 0.75, ratio(ANYFORK, FLOOR, IN_FLIGHT)),
        at_most("first byte, x floor", 1.2, ratio(ANYFORK, FLOOR, FIRST_BYTE)),
        at_least("one at a time, x Perl's new", 1.1, ratio(ANYFORK, "perl-new", SEQUENTIAL)),
        at_least("64 in flight, x Perl's new", 1.1, ratio(ANYFORK, "perl-new", IN_FLIGHT)),
        at_least("one at a time, x forkserver", 10, ratio(ANYFORK, "mp-forkserver", SEQUENTIAL)),
        at_least(
            "one at a time, x forkserver, both with numpy+pandas",
            10,
            ratio("anyfork-heavy", "mp-forkserver-heavy", SEQUENTIAL),
        ),
        at_least(
            "one at a time, owner of 2 GB x owner of 20 MB", 0.95, ratio("anyfork-2gb", "anyfork-20mb", SEQUENTIAL)
        ),
        at_least("64 in flight, owner of 2 GB x owner of 20 MB", 0.95, ratio("anyfork-2gb", "anyfork-20mb", IN_FLIGHT)),
        at_least("one at a time, x os.fork, both from 2 GB", 10, ratio("anyfork-2gb", "os-fork-2gb", SEQUENTIAL)),
        at_least("programs one at a time, x subprocess", 1, ratio("program", "subprocess", SEQUENTIAL)),
        at_least(
            "programs one at a time, numpy+pandas loaded, x subprocess",
            1,
            ratio("program-heavy", "subprocess", SEQUENTIAL),
        ),
    ]


def startup_targets(imports: ImportCost | None, execs: ExecCost | None) -> list[Target]:
    """Those of the import and of exec'ed templates."""
    return [
        at_most("import anyfork, ms", IMPORT_LIMIT, None if imports is None else imports.seconds * 1000),
        at_most("asyncio, AnyIO, multiprocessing loaded by it", 0, None if imports is None else len(imports.unwanted)),
        at_most("exec'ed template ready, x python -I -c pass", 2, None if execs is None else execs.ratio),
    ]
