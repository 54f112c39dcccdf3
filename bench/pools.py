"""The benchmark ``pool``: many jobs for two workers, beside everything else that offers that."""

from __future__ import annotations

from statistics import median

from .contenders import (
    ARRAYS,
    BEHIND,
    CHUNKS,
    FIRST_RESULT,
    LONG_JOBS,
    MAP,
    POOL_CONTENDERS,
    POOL_MEASURES,
    POOLS,
    REPLACE,
    SHORT_JOBS,
    TINY,
)
from .contest import contest
from .driver import Driver, UnavailableError
from .report import Report, Settings, progress
from .rounds import measure_in_rounds
from .tables import number, rate, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

ANYFORK, AIO, STDLIB, SPAWN, FORKSERVER = "anyfork", "aio", "ppe-fork", "ppe-spawn", "ppe-forkserver"
OURS = (ANYFORK, AIO, "joblib-anyfork")
PEERS = tuple(contender.name for contender in POOL_CONTENDERS if contender.name not in OURS)
WEIGHED = (ANYFORK, AIO, STDLIB, FORKSERVER, SPAWN, "loky")
LABELS = {contender.name: contender.label for contender in POOL_CONTENDERS}
NAMES = (*LABELS, "memory-of-pools")
MIB = 1 << 20
ROUNDS, QUICK_ROUNDS = 3, 1  # of memory


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    samples, missing = measure_in_rounds("pool", POOL_CONTENDERS, POOL_MEASURES, settings)
    weights = weigh(settings) if settings.wants("memory-of-pools") else {}
    targets = [*rate_targets(samples), *time_targets(samples), *weight_targets(weights)]
    tables = [rates_table(samples, missing), times_table(samples, missing)] if samples.data() else []
    tables += [weights_table(weights)] if weights else []
    data: dict[str, object] = {
        "pool": samples.data(),
        "missing": missing,
        "memory": weights,
        "targets": targets_data(targets),
    }
    return Report([*tables, targets_table(targets)], data)


def weigh(settings: Settings) -> dict[str, list[float]]:
    """Bytes of eight idle workers, by contender; one after the other, because they share pages of libraries."""
    found: dict[str, list[float]] = {}
    for name in WEIGHED:
        progress(f"pool: memory, {LABELS[name]}")
        for _ in range(QUICK_ROUNDS if settings.quick else ROUNDS):
            with Driver.python(POOLS, name, "memory") as driver:
                try:
                    driver.answer()
                    found.setdefault(name, []).extend(driver.ask("memory", 0))
                except UnavailableError:
                    break  # the other tables say why
    return found


# --- Tables -----------------------------------------------------------------------------------------------------


def rates_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who does how many jobs, and how that compares with ProcessPoolExecutor."""
    heads = [
        "",
        "tiny, submit\na second",
        "\nx stdlib",
        "tiny, map\na second",
        "\nx stdlib",
        "in chunks\nof 64",
        "\nx stdlib",
        "1 MB arrays\na second",
        "1 ms jobs\nof ideal",
        "10 ms jobs\nof ideal",
    ]
    title = "Jobs of two workers: medians of interleaved slices; ratios are medians within a round"

    def cells(name: str) -> list[str]:
        pairs = [
            (samples.median(name, measure), samples.ratio(name, STDLIB, measure)) for measure in (TINY, MAP, CHUNKS)
        ]
        rates = [cell for middle, ratio in pairs for cell in (rate(middle), number(ratio, 1))]
        return [
            *rates,
            rate(samples.median(name, ARRAYS)),
            *(number(samples.median(name, measure), 3) for measure in (SHORT_JOBS, LONG_JOBS)),
        ]

    return contest(title, heads, POOL_CONTENDERS, samples, missing, cells)


def times_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who is how soon ready, fair, and whole again."""
    heads = [
        "",
        "first result with\npandas, ms",
        "100 short jobs behind\na long one, ms",
        "after the death of\na worker, ms",
    ]

    def cells(name: str) -> list[str]:
        middles = [samples.median(name, measure) for measure in (FIRST_RESULT, BEHIND, REPLACE)]
        return [number(None if middle is None else middle * 1000, 1) for middle in middles]

    return contest("From the call to the last result", heads, POOL_CONTENDERS, samples, missing, cells)


def weights_table(weights: dict[str, list[float]]) -> str:
    """What eight idle workers weigh, with what they are forked from."""
    rows = [[LABELS[name], number(median(found) / MIB, 1)] for name, found in weights.items()]
    return table(
        "Eight idle workers with numpy and pandas loaded where that can be done before", ["", "PSS, MiB"], rows
    )


# --- Targets ----------------------------------------------------------------------------------------------------


def rate_targets(samples: Samples) -> list[Target]:
    """Tiny jobs are the cost of the pool itself."""
    ratio = samples.ratio
    targets = [
        at_least("tiny jobs by submit, x ProcessPoolExecutor", 4, ratio(ANYFORK, STDLIB, TINY)),
        at_least("tiny jobs by map, x ProcessPoolExecutor", 10, ratio(ANYFORK, STDLIB, MAP)),
        at_least("tiny jobs, aio.Pool, x ProcessPoolExecutor", 5, ratio(AIO, STDLIB, TINY)),
    ]
    ratios = {peer: found for peer in PEERS if (found := ratio(ANYFORK, peer, TINY)) is not None}
    if ratios:
        best = min(ratios, key=ratios.__getitem__)
        targets.append(at_least(f"tiny jobs by submit, x {LABELS[best]}, the best peer", 1, ratios[best]))
    targets += [
        at_least(f"jobs of 1 ms, of the ideal, {LABELS[name]}", 0.95, samples.median(name, SHORT_JOBS))
        for name in (ANYFORK, AIO)
    ]
    return targets


def time_targets(samples: Samples) -> list[Target]:
    """Modules that the template has are there at once."""
    return [
        at_least(f"first result sooner than {LABELS[peer]}, times", 20, samples.ratio(peer, ANYFORK, FIRST_RESULT))
        for peer in (SPAWN, "loky")
    ]


def weight_targets(weights: dict[str, list[float]]) -> list[Target]:
    """Workers share what their template has loaded."""
    if ANYFORK not in weights or FORKSERVER not in weights:
        return []
    share = median(weights[ANYFORK]) / median(weights[FORKSERVER])
    return [at_most(f"memory of eight idle workers, of {LABELS[FORKSERVER]}", 0.5, share)]
