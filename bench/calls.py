"""The benchmark ``calls``: tiny calls of one worker, beside everything else that calls functions in processes."""

from __future__ import annotations

from .contenders import CALL_CONTENDERS, IN_FLIGHT, RATES, SEQUENTIAL
from .report import Report, Settings
from .rounds import measure_in_rounds
from .tables import NONE, number, rate, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

FLOOR, ANYFORK, AIO, TO_PROCESS = "floor", "anyfork", "aio", "to-process"
CALL_ONCE, PARTS = "call-once", "start-and-trip"
PEERS = ("perl-rpc", "executor", "mp-pool", "loky", "pebble", "mpire", "execnet", TO_PROCESS, "to-process-trio")
NAMES = tuple(contender.name for contender in CALL_CONTENDERS)
LABELS = {contender.name: contender.label for contender in CALL_CONTENDERS}
MEASURES = {SEQUENTIAL: "one at a time", IN_FLIGHT: "64 in flight"}


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    samples, missing = measure_in_rounds("calls", CALL_CONTENDERS, RATES, settings)
    targets = [*floor_targets(samples), *peer_targets(samples), *once_targets(samples)]
    tables = [calls_table(samples, missing)] if samples.data() else []
    data: dict[str, object] = {"calls": samples.data(), "missing": missing, "targets": targets_data(targets)}
    return Report([*tables, targets_table(targets)], data)


def calls_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who calls how fast, and how that compares with the floor."""
    heads = ["", "one at a time\na second", "\nx floor", "64 in flight\na second", "\nx floor"]
    rows = []
    for contender in CALL_CONTENDERS:
        name = contender.name
        if name in samples.data():
            cells = [contender.label]
            for measure in RATES:
                cells += [rate(samples.median(name, measure)), number(samples.ratio(name, FLOOR, measure), 3)]
            rows.append(cells)
        elif name in missing:
            rows.append([f"{contender.label} (not here)", *[NONE] * 4])
    title = "Calls of operator.neg(1) in one worker: medians of interleaved slices; ratios are medians within a round"
    notes = [f"not measured: {name}: {why}" for name, why in missing.items()]
    return "\n".join([table(title, heads, rows), *notes])


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
