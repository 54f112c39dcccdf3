"""The benchmark ``create`` for the async face: starts from an event loop, beside what else starts processes there."""

from __future__ import annotations

from statistics import median

from .contenders import AIO_CONTENDERS, ASYNC_RATES, IN_FLIGHT, MANY
from .contest import contest
from .driver import UnavailableError
from .report import Report, Settings, progress
from .rounds import measure_in_rounds
from .tables import number, rate, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

BLOCKING = "anyfork"
TICKER = "ticker"
LOOPS = ("aio", "aio-uvloop", "aio-trio")
NAMES = (*(contender.name for contender in AIO_CONTENDERS), TICKER)
LABELS = {contender.name: contender.label for contender in AIO_CONTENDERS}

TICKER_ROUNDS, QUICK_TICKER_ROUNDS = 3, 1
MEGABYTES, QUICK_MEGABYTES = 1000, 200
Lateness = dict[str, list[list[float]]]  # by loop and round: worst and median while sending, the same while idle; in s


def run(settings: Settings) -> Report:
    """Measure everything that is wanted."""
    samples, missing = measure_in_rounds("create", AIO_CONTENDERS, ASYNC_RATES, settings)
    late = measure_ticker(settings) if settings.wants(TICKER) else {}
    targets = [*start_targets(samples), *ticker_targets(late)]
    tables = [starts_table(samples, missing)] if samples.data() else []
    tables += [ticker_table(late, settings)] if late else []
    data: dict[str, object] = {
        "starts": samples.data(),
        "missing": missing,
        "ticker": late,
        "targets": targets_data(targets),
    }
    return Report([*tables, targets_table(targets)], data)


def measure_ticker(settings: Settings) -> Lateness:
    """How late a ticker of 1 ms is in a loop that sends a large argument."""
    rounds = QUICK_TICKER_ROUNDS if settings.quick else TICKER_ROUNDS
    late: Lateness = {}
    for contender in AIO_CONTENDERS:
        if contender.name in LOOPS:
            progress(f"create: ticker, {contender.label}")
            with contender.launch() as driver:
                try:
                    driver.answer()
                    late[contender.name] = [driver.ask("ticker", megabytes(settings)) for _ in range(rounds)]
                except UnavailableError:
                    continue  # the table of starts says so
    return late


def megabytes(settings: Settings) -> int:
    """The size of the argument."""
    return QUICK_MEGABYTES if settings.quick else MEGABYTES


# --- Tables -----------------------------------------------------------------------------------------------------


def starts_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who starts how fast, and how that compares with the blocking face."""
    heads = [""]
    for text in ("one at a time", "64 in flight", "500 at once"):
        heads += [f"{text}\na second", "\nx blocking"]
    title = "Starting a process from an event loop: medians of interleaved slices; ratios within a round"

    def cells(name: str) -> list[str]:
        pairs = [(samples.median(name, measure), samples.ratio(name, BLOCKING, measure)) for measure in ASYNC_RATES]
        return [cell for median, ratio in pairs for cell in (rate(median), number(ratio))]

    return contest(title, heads, AIO_CONTENDERS, samples, missing, cells)


def ticker_table(late: Lateness, settings: Settings) -> str:
    """How late the ticker is, beside one in a loop that does nothing."""
    heads = ["", "sending\nworst, ms", "\nmedian, ms", "idle\nworst, ms", "\nmedian, ms"]
    rows = [
        [LABELS[name], *(number(median(column) * 1000, 1) for column in zip(*rounds, strict=True))]
        for name, rounds in late.items()
    ]
    title = f"A ticker of 1 ms while {megabytes(settings)} MB are sent as one argument: how late (medians of rounds)"
    return table(title, heads, rows)


# --- Targets ----------------------------------------------------------------------------------------------------


def start_targets(samples: Samples) -> list[Target]:
    """The rate of the blocking face is to be reached."""
    return [
        at_least(f"{text}, {LABELS[name]} x blocking", 0.8, samples.ratio(name, BLOCKING, measure))
        for name in LOOPS
        for measure, text in ((IN_FLIGHT, "64 in flight"), (MANY, "500 at once"))
    ]


def ticker_targets(late: Lateness) -> list[Target]:
    """A loop that sends much goes on."""
    return [
        at_most(
            f"a ticker of 1 ms is late by, ms, {LABELS[name]}", 20, median(worst for worst, *_ in late[name]) * 1000
        )
        for name in LOOPS
        if name in late
    ]
