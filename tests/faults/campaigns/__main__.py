"""The command line of the campaigns: choose what to strike at, and print what came of it."""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from . import async_scenes, fuzz, load, shim
from .limits import judge, stale
from .scenes import SCENES
from .supervisor import WITH_SHIM, Tally, Trial, run
from .weapons import WEAPONS, variants_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .limits import Limit
    from .supervisor import Outcome

assert async_scenes  # which registers its scenes
MANY = 1_000_000  # points: more than any operation has
STRUCK = f"of {', '.join(WEAPONS)}: {', '.join(SCENES)}"

EXAMPLES = """
examples:
  scripts/campaign interrupt                                     every line of every operation of every face
  scripts/campaign interrupt --face worker --operation call      every line of one operation
  scripts/campaign reenter --face template --variant call        call anyfork.call() there
  scripts/campaign failure --variant 'template EMFILE'           one error, in one process, everywhere
  scripts/campaign kill --step 3 --seed 7                        each third message, beginning with one by chance
  scripts/campaign load --face executor --jobs 200000            jobs under kills of workers and templates
  scripts/campaign owners --rounds 1000                          owners are killed, idle and busy
  scripts/campaign fuzz --seconds 600                            random bytes for each decoder
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "scripts/campaign", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("campaign", choices=[*WEAPONS, "load", "owners", "fuzz"])
    parser.add_argument("--face", action="append", help=f"may be repeated; of load: {', '.join(load.FACES)}; {STRUCK}")
    parser.add_argument("--operation", action="append", help="a scene, or a decoder of fuzz; may be repeated")
    parser.add_argument("--variant", action="append", help="what is done there; may be repeated")
    parser.add_argument("--point", type=int, help="this point alone, to repeat a failure")
    parser.add_argument("--step", type=int, default=1, help="try each n-th point only, from one that the seed chooses")
    parser.add_argument("--seed", type=int, default=0, help="what is chosen by chance follows from it")
    parser.add_argument("--seconds", type=float, help="begin nothing new after so long (load, owners, fuzz)")
    parser.add_argument("--rounds", type=int, default=1000, help="owners to kill (default: 1000)")
    parser.add_argument("--jobs", type=int, default=200_000, help="jobs of the load (default: 200000)")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds for what an operation leaves to end")
    parser.add_argument("--verbose", action="store_true", help="say what came of each trial")
    parser.add_argument("--at-once", type=int, default=2, help="programs at a time (default: 2)")
    options = parser.parse_args(arguments)
    for name, possible in choices(options).items():
        for value in getattr(options, name) or ():
            if value not in possible:
                has = ", ".join(possible) or "none"
                parser.error(f"{options.campaign} has no {name} {value!r}; it has: {has}")
    return options


def choices(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return what a campaign can be told to be about: faces, and the operations and variants of the chosen ones."""
    match options.campaign:
        case "load":
            return {"face": [*load.FACES], "operation": [], "variant": []}
        case "fuzz":
            return {"face": [], "operation": [*fuzz.DECODERS], "variant": []}
        case "owners":
            return {"face": [], "operation": [], "variant": []}
    faces = [face for face in options.face or SCENES if face in SCENES]
    operations = dict.fromkeys(name for face in faces for name in SCENES[face])
    variants = dict.fromkeys(name for face in faces for name in variants_of(options.campaign, face) if name)
    return {"face": [*SCENES], "operation": [*operations], "variant": [*variants]}


def strike_everywhere(options: argparse.Namespace) -> int:
    """Run a campaign of strikes; return how many have failed beyond the table of limits."""
    if options.campaign in WITH_SHIM and shim.missing():
        print(f"Skipped: {shim.missing()}.")
        return 0
    wanted = [
        (face, operation)
        for face in options.face or SCENES
        for operation in SCENES[face]
        if not options.operation or operation in options.operation
    ]
    chance = random.Random(options.seed)
    began = time.monotonic()
    with ThreadPoolExecutor(options.at_once) as pool:
        jobs = [
            pool.submit(_one, options, face, operation, chance.randrange(options.step)) for face, operation in wanted
        ]
        tallies = [job.result() for job in jobs]
    return _report(options, tallies, time.monotonic() - began)


def _one(options: argparse.Namespace, face: str, operation: str, offset: int) -> Tally:
    first, last = (options.point, options.point + 1) if options.point else (1 + offset, MANY)
    variants = options.variant or variants_of(options.campaign, face)
    trials = [Trial(operation, variant, (first, last, options.step)) for variant in variants]
    tally = run(options.campaign, face, trials, partial(_tell, options, face), options.patience)
    print(f"{tally} [{operation}]", flush=True)
    return tally


def _tell(options: argparse.Namespace, face: str, outcome: Outcome) -> None:
    """Show a failure at once; and all else, if that is wanted."""
    if outcome.kind in ("failed", "broken") and not judge(options.campaign, outcome):
        command = Tally(options.campaign, face).command(outcome)
        print(f"    FAILED {command}\n        at {outcome.place}: {outcome.text}", flush=True)
    elif options.verbose:
        print(f"    {outcome.kind} {outcome.operation} {outcome.variant} {outcome.at} {outcome.place} {outcome.text}")


def _report(options: argparse.Namespace, tallies: list[Tally], seconds: float) -> int:
    tried = sum(tally.tried for tally in tallies)
    failures = [outcome for tally in tallies for outcome in tally.failures]
    known = [outcome for outcome in failures if judge(options.campaign, outcome)]
    places = set().union(*(tally.places for tally in tallies))
    print(f"\n{options.campaign}: {tried} tried at {len(places)} places in {seconds:.0f} s;", end=" ")
    print(f"{tried - len(failures)} survived, {len(known)} known limits, {len(failures) - len(known)} failed")
    rows: list[Limit] = []
    if not (options.operation or options.variant or options.point or options.step > 1):
        rows = stale(options.campaign, options.face or ("", *SCENES), known)
    for row in rows:
        print(f"    FAILED: no failure needs this row of limits.py: {row}")
    return len(failures) - len(known) + len(rows)


def main() -> int:
    """Run what the command line asks for; 0 when nothing has failed."""
    options = parse()
    match options.campaign:
        case "load":
            return load.main(options)
        case "owners":
            return load.kill_owners(options)
        case "fuzz":
            return fuzz.main(options)
        case _:
            return int(strike_everywhere(options) > 0)


if __name__ == "__main__":
    sys.exit(main())
