"""How soon a function is entered after a pause, for ``create``: with and without spares, bare and with pandas."""

from __future__ import annotations

from contextlib import ExitStack

from .contenders import HEAVY, Contender
from .driver import Driver, UnavailableError
from .report import Settings, progress
from .tables import number, table
from .targets import Target, at_most

CONTENDERS = (
    Contender("entered", "anyfork: fork().run()", "anyfork"),
    Contender("entered-spares", "the same with keep_spares(1)", "anyfork-spares"),
    Contender("entered-heavy", "fork().run(), numpy+pandas loaded", "anyfork", preload=HEAVY),
    Contender("entered-heavy-spares", "the same with keep_spares(1)", "anyfork-spares", preload=HEAVY),
)
WITH_SPARES = {"bare": "entered-spares", "numpy+pandas": "entered-heavy-spares"}
ROUNDS, QUICK_ROUNDS = 5, 2
STARTS = 40  # in each round
LIMITS = {"5th percentile": 0.3, "median": 0.5}  # ms

Entries = dict[str, list[float]]  # by contender: seconds, sorted


def measure(settings: Settings, missing: dict[str, str]) -> Entries:
    """Give each contender some starts next to those of the others."""
    found: Entries = {}
    with ExitStack() as stack:
        drivers = _launch(stack, missing)
        for turn in range(rounds := QUICK_ROUNDS if settings.quick else ROUNDS):
            progress(f"create: starts after a pause, round {turn + 1} of {rounds}")
            for name, driver in drivers.items():
                found.setdefault(name, []).extend(driver.ask("entered", STARTS))
    return {name: sorted(seconds) for name, seconds in found.items()}


def _launch(stack: ExitStack, missing: dict[str, str]) -> dict[str, Driver]:
    started = {}
    for contender in CONTENDERS:
        try:
            driver = stack.enter_context(contender.launch())
            driver.answer()
        except (OSError, UnavailableError) as error:
            missing[contender.name] = str(error)
            continue
        started[contender.name] = driver
    return started


def entered_table(entries: Entries) -> str:
    """Each contender's quick starts, and its usual ones."""
    rows = [
        [contender.label, *(number(_figure(entries, contender.name, which)) for which in LIMITS)]
        for contender in CONTENDERS
        if contender.name in entries
    ]
    return table("From the call until the function is entered, with a pause between starts: ms", ["", *LIMITS], rows)


def entered_targets(entries: Entries) -> list[Target]:
    """What is wanted of starts with spares."""
    return [
        at_most(f"entered with spares, {load}, {which}, ms", limit, _figure(entries, name, which))
        for load, name in WITH_SPARES.items()
        for which, limit in LIMITS.items()
    ]


def _figure(entries: Entries, name: str, which: str) -> float | None:
    seconds = entries.get(name)
    if not seconds:
        return None
    return seconds[len(seconds) // 20 if which == "5th percentile" else len(seconds) // 2] * 1e3
