"""The benchmark ``calls``: tiny calls of one worker, beside everything else that calls functions in processes."""

from __future__ import annotations

from statistics import median

from .contenders import CALL_CONTENDERS, IN_FLIGHT, RATES, SEQUENTIAL
from .contest import contest
from .driver import UnavailableError
from .report import Report, Settings, progress
from .rounds import measure_in_rounds
from .tables import number, rate, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

FLOOR, ANYFORK, AIO, TO_PROCESS = "floor", "anyfork", "aio", "to-process"
CALL_ONCE, PARTS = "call-once", "start-and-trip"
PEERS = ("perl-rpc", "executor", "mp-pool", "loky", "pebble", "mpire", "execnet", TO_PROCESS, "to-process-trio")
NAMES = (*(contender.name for contender in CALL_CONTENDERS), "deaths")
LABELS = {contender.name: contender.label for contender in CALL_CONTENDERS}
DEATHS, FACES = "deaths", ("anyfork", "aio", "aio-trio")
COUNT, QUICK_COUNT = 100, 20  # deaths
DEATH_LIMIT = 50.0  # ms
MEASURES = {SEQUENTIAL: "one at a time", IN_FLIGHT: "64 in flight"}


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    samples, missing = measure_in_rounds("calls", CALL_CONTENDERS, RATES, settings)
    deaths = measure_deaths(settings) if settings.wants(DEATHS) else {}
    targets = [*floor_targets(samples), *peer_targets(samples), *once_targets(samples), *death_targets(deaths)]
    tables = [calls_table(samples, missing)] if samples.data() else []
    tables += [deaths_table(deaths)] if deaths else []
    data: dict[str, object] = {
        "calls": samples.data(),
        "missing": missing,
        "deaths": deaths,
        "targets": targets_data(targets),
    }
    return Report([*tables, targets_table(targets)], data)


def measure_deaths(settings: Settings) -> dict[str, list[float]]:
    """Seconds from the death of a worker to the error of its call, by face."""
    found = {}
    for contender in CALL_CONTENDERS:
        if contender.name in FACES:
            progress(f"calls: deaths, {contender.label}")
            with contender.launch() as driver:
                try:
                    driver.answer()
                    found[contender.name] = driver.ask("deaths", QUICK_COUNT if settings.quick else COUNT)
                except UnavailableError:
                    continue  # the table of calls says so
    return found


def deaths_table(deaths: dict[str, list[float]]) -> str:
    """How soon a death is told."""
    rows = [
        [LABELS[name], *(number(seconds * 1000, 2) for seconds in (median(found), max(found)))]
        for name, found in deaths.items()
    ]
    return table("From the death of a worker to the error of its call", ["", "p50, ms", "worst, ms"], rows)


def calls_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who calls how fast, and how that compares with the floor."""
    heads = ["", "one at a time\na second", "\nx floor", "64 in flight\na second", "\nx floor"]
    title = "Calls of operator.neg(1) in one worker: medians of interleaved slices; ratios are medians within a round"

    def cells(name: str) -> list[str]:
        pairs = [(samples.median(name, measure), samples.ratio(name, FLOOR, measure)) for measure in RATES]
        return [cell for middle, ratio in pairs for cell in (rate(middle), number(ratio, 3))]

    return contest(title, heads, CALL_CONTENDERS, samples, missing, cells)


# --- Targets ----------------------------------------------------------------------------------------------------


def floor_targets(samples: Samples) -> list[Target]:
    """How near to the floor each face comes."""
    ratio = samples.ratio
    return [
        at_least("one at a time, x floor", 0.7, ratio(ANYFORK, FLOOR, SEQUENTIAL)),
        at_least("64 in flight, x floor", 0.7, ratio(ANYFORK, FLOOR, IN_FLIGHT)),
        at_least("64 in flight, asyncio, x floor", 0.5, ratio(AIO, FLOOR, IN_FLIGHT)),
        at_least("one at a time, asyncio, x anyio.to_process", 2, ratio(AIO, TO_PROCESS, SEQUENTIAL)),
    ]


def peer_targets(samples: Samples) -> list[Target]:
    """Every peer is to be beaten: the best of them counts."""
    return [
        at_least(f"{text}, x {LABELS[name]}, the best peer", 1, ratio)
        for measure, text in MEASURES.items()
        for name, ratio in [_best_peer(samples, measure)]
        if name
    ]


def _best_peer(samples: Samples, measure: str) -> tuple[str, float | None]:
    """The peer that comes nearest to anyfork, and anyfork's rate against its."""
    ratios = {peer: samples.ratio(ANYFORK, peer, measure) for peer in PEERS}
    measured = {peer: ratio for peer, ratio in ratios.items() if ratio is not None}
    best = min(measured, key=measured.__getitem__, default="")
    return best, measured.get(best)


def once_targets(samples: Samples) -> list[Target]:
    """A process for one call costs little more than its parts."""
    cost = samples.ratio(PARTS, CALL_ONCE, SEQUENTIAL)  # of rates, so the other way round it is that of times
    return [at_most("anyfork.call, x a bare start and a round trip", 1.3, cost)]


def death_targets(deaths: dict[str, list[float]]) -> list[Target]:
    """Whoever waits for a worker learns of its death at once, however it died."""
    return [
        at_most(f"a death is told after, ms at worst, {LABELS[name]}", DEATH_LIMIT, max(found) * 1000)
        for name, found in deaths.items()
    ]
