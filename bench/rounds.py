"""Rounds: each contender gets one slice of each measure, next to the others, again and again."""

from __future__ import annotations

from contextlib import ExitStack

from .contenders import AT_ONCE, MANY, Contender
from .driver import Driver, UnavailableError
from .report import Settings, progress
from .samples import Samples

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS, QUICK_ROUNDS = 8, 2
SLICE, QUICK_SLICE = 0.3, 0.12  # seconds


def measure_in_rounds(
    benchmark: str, contenders: Sequence[Contender], measures: Sequence[str], settings: Settings
) -> tuple[Samples, dict[str, str]]:
    """Start all owners, then give each of them a short slice in every round; also say who could not run, and why.

    The first of the contenders always takes part: all ratios are against it.
    """
    samples, missing = Samples(), dict[str, str]()
    wanted = [c for c in contenders if settings.wants(c.name)]
    if not wanted:
        return samples, missing
    if wanted[0] is not contenders[0]:
        wanted.insert(0, contenders[0])
    rounds, seconds = (QUICK_ROUNDS, QUICK_SLICE) if settings.quick else (ROUNDS, SLICE)
    with ExitStack() as stack:
        progress(f"{benchmark}: starting {len(wanted)} owners")
        drivers = _launch(wanted, stack, missing)
        for turn in range(rounds):
            progress(f"{benchmark}: round {turn + 1} of {rounds}")
            _round(turn, wanted, measures, seconds, drivers, samples, missing)
    return samples, missing


def _launch(wanted: list[Contender], stack: ExitStack, missing: dict[str, str]) -> dict[str, Driver]:
    """Start all owners at once, and wait for each of them."""
    started: dict[str, Driver] = {}
    for contender in wanted:
        try:
            started[contender.name] = stack.enter_context(contender.launch())
        except OSError as error:  # perl is not installed
            missing[contender.name] = str(error)
    for name, driver in list(started.items()):
        try:
            driver.answer()
        except UnavailableError as error:
            missing[name] = str(error)
            del started[name]
    return started


def _round(
    turn: int,
    wanted: list[Contender],
    measures: Sequence[str],
    seconds: float,
    drivers: dict[str, Driver],
    samples: Samples,
    missing: dict[str, str],
) -> None:
    """One slice of each measure for everybody, every other round in the reverse order."""
    order = wanted if turn % 2 == 0 else wanted[::-1]
    for measure in measures:
        for contender in order:
            name = contender.name
            if name not in drivers or measure not in contender.measures or turn % contender.every:
                continue
            try:
                amount = AT_ONCE if measure == MANY else seconds
                samples.add(name, measure, turn, drivers[name].ask(measure, amount))
            except UnavailableError as error:
                missing[name] = str(error)
                del drivers[name]
