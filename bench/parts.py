"""The parts of a start, for ``create``: page faults and CPU of owner, template and process, under several loads."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median

from .accounting import Account, Shares
from .contenders import HEAVY, IN_FLIGHT, RATES, SEQUENTIAL, Contender
from .driver import Driver, UnavailableError
from .report import Settings, progress
from .tables import number, table
from .targets import Target, at_most

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STANDARD = ("threading", "logging", "random", "concurrent.futures", "asyncio")
LOADS = {"": (), "five modules": STANDARD, "numpy": ("numpy",), "numpy+pandas": HEAVY}
ROUNDS, QUICK_ROUNDS = 5, 3
SLICE, QUICK_SLICE = 0.4, 0.2  # seconds
WARM_UP = 0.1  # seconds of starts before: the first ones touch what later ones do not


def _contenders(kind: str, label: str) -> list[Contender]:
    return [
        Contender(f"{kind} {load}".strip(), f"{label}, {load}" if load else label, kind, preload=modules)
        for load, modules in LOADS.items()
    ]


CONTENDERS = (
    Contender("floor", "floor", "floor"),
    Contender("perl-new", "Perl AnyEvent::Fork: new", "perl-new"),
    *_contenders("anyfork", "anyfork"),
    *_contenders("mp-forkserver", "multiprocessing forkserver"),
)

# Limits of page faults in the template and in the process, for CPython 3.11: compiled, and in Python.
FAULT_LIMITS = {"anyfork": ((5, 65), (85, 155)), "anyfork five modules": ((5, 105), (95, 205))}
TIMES_PERL = (0.9, None)

Slices = dict[str, dict[str, list[Shares]]]  # by contender and measure


def is_compiled() -> bool:
    """Whether templates are served by the compiled part."""
    return os.environ.get("ANYFORK_COMPILED") != "0" and find_spec("_anyfork_child.template._fast") is not None


def measure(settings: Settings, missing: dict[str, str]) -> Slices:
    """Give each contender slices next to those of the others, and account for them."""
    found: Slices = {}
    rounds, seconds = (QUICK_ROUNDS, QUICK_SLICE) if settings.quick else (ROUNDS, SLICE)
    with ExitStack() as stack:
        drivers = _launch(stack, missing)
        for turn in range(rounds):
            progress(f"create: parts of a start, round {turn + 1} of {rounds}")
            for name, (driver, account) in drivers.items():
                for rate in RATES:
                    account.begin()
                    count, _ = driver.ask(rate, seconds)
                    found.setdefault(name, {}).setdefault(rate, []).append(account.end(count))
    return found


def _launch(stack: ExitStack, missing: dict[str, str]) -> dict[str, tuple[Driver, Account]]:
    started = {}
    for contender in CONTENDERS:
        try:
            driver = stack.enter_context(contender.launch())
            driver.answer()
            driver.ask(SEQUENTIAL, WARM_UP)
        except (OSError, UnavailableError) as error:
            missing[contender.name] = str(error)
            continue
        started[contender.name] = driver, stack.enter_context(Account(driver.pid))
    return started


# --- Tables and targets -----------------------------------------------------------------------------------------


def parts_table(slices: Slices) -> str:
    """Each contender's faults, one at a time, and CPU, 64 in flight."""
    heads = ["", "page faults\nowner", "\ntemplate", "\nprocess", "CPU, ms\nowner", "\ntemplate", "\nprocess", "\nall"]
    rows = []
    for contender in CONTENDERS:
        if contender.name in slices:
            faults = [number(_figure(slices, contender.name, SEQUENTIAL, get), 1) for get in FAULTS]
            cpu = [number(_figure(slices, contender.name, IN_FLIGHT, get), 3) for get in CPU]
            ratios = [number(_ratio(slices, contender.name, other)) for other in ("floor", "perl-new")]
            rows.append([contender.label, *faults, *cpu, *ratios])
    title = f"The parts of a start, {'with the compiled part' if is_compiled() else 'in Python'}: medians"
    return table(title, [*heads, "\nx floor", "\nx Perl"], rows)


FAULTS: tuple[Callable[[Shares], float], ...] = (
    lambda shares: shares.owner.faults,
    lambda shares: shares.template.faults,
    lambda shares: shares.process.faults,
)
CPU: tuple[Callable[[Shares], float], ...] = (
    lambda shares: shares.owner.cpu * 1e3,
    lambda shares: shares.template.cpu * 1e3,
    lambda shares: shares.process.cpu * 1e3,
    lambda shares: shares.cpu * 1e3,
)


def _figure(slices: Slices, name: str, rate: str, get: Callable[[Shares], float]) -> float | None:
    shares = slices.get(name, {}).get(rate)
    return median(map(get, shares)) if shares else None


def _ratio(slices: Slices, name: str, other: str) -> float | None:
    """The CPU of one contender's start over another's: the median of the ratios within each round."""
    ours, theirs = (slices.get(one, {}).get(IN_FLIGHT, []) for one in (name, other))
    ratios = [one.cpu / another.cpu for one, another in zip(ours, theirs, strict=False) if another.cpu]
    return median(ratios) if ratios else None


def parts_targets(slices: Slices) -> list[Target]:
    """The limits of page faults, which hold for CPython 3.11, and of CPU."""
    targets = []
    for name, limits in FAULT_LIMITS.items() if sys.version_info[:2] == (3, 11) else ():
        for get, limit, where in zip(FAULTS[1:], limits[not is_compiled()], ("template", "process"), strict=True):
            targets.append(
                at_most(f"page faults of a start in the {where}, {name}", limit, _figure(slices, name, SEQUENTIAL, get))
            )
    limit = TIMES_PERL[not is_compiled()]
    if limit is not None:
        targets.append(at_most("CPU of a start in flight, x Perl's new", limit, _ratio(slices, "anyfork", "perl-new")))
    return targets


def parts_data(slices: Slices) -> dict[str, object]:
    """Everything, for JSON: page faults and seconds."""
    return {
        name: {rate: [[*(get(one) for get in (*FAULTS, *CPU))] for one in shares] for rate, shares in rates.items()}
        for name, rates in slices.items()
    }
