"""The command line: ``python -m bench create memory soak``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import (
    calls,
    create,
    create_aio,
    data,
    engines,
    growth,
    machine,
    memory,
    pools,
    programs,
    remote,
    soak,
    soak_pool,
)
from .report import Settings, progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .report import Report

BENCHMARKS: dict[str, Callable[[Settings], Report]] = {
    "create": create.run,
    "calls": calls.run,
    "data": data.run,
    "engines": engines.run,
    "growth": growth.run,
    "memory": memory.run,
    "pool": pools.run,
    "programs": programs.run,
    "remote": remote.run,
    "soak": soak.run,
    "soak-pool": soak_pool.run,
}
FACES: dict[str, Callable[[Settings], Report]] = {"blocking": create.run, "aio": create_aio.run}  # of create
RESULTS = Path("bench-results")


def main() -> int:
    """Run what is asked; return 1 when something must not be as it is (only ``soak`` and ``soak-pool`` say so)."""
    parser = _parser()
    options = parser.parse_args()
    names = {
        name
        for benchmark in (create, create_aio, calls, data, engines, growth, memory, pools, programs, remote)
        for name in benchmark.NAMES
    }
    if unknown := set(options.only) - names:
        parser.error(f"--only knows no {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    machine.compile_packages()
    cpu = machine.pin() if options.pin else None
    settings = Settings(options.quick, options.pin, frozenset(options.only), options.count)
    results: dict[str, object] = {}
    files: list[Path] = []
    failed = False
    about = machine.description(cpu)  # once: the load of the first benchmark is no disturbance of the second
    for name in options.benchmark:
        report = (FACES[options.face] if name == "create" else BENCHMARKS[name])(settings)
        progress("")
        results[name + ("" if options.face == "blocking" else f"-{options.face}")] = {
            "machine": about,
            "quick": options.quick,
            **report.data,
        }
        files = write(results, options.json)  # before anything is printed: the reader of a pipe may leave early
        print(f"\n=== {name}{' (quick)' if options.quick else ''}\n{machine.heading(about)}\n")
        print("\n\n".join(report.tables), flush=True)
        failed |= report.failed
    print(f"\nraw samples: {', '.join(map(str, files))}")
    if options.plot:
        from . import plots  # matplotlib is needed for nothing else

        print(f"pictures: {', '.join(map(str, plots.draw(results)))}")
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench", description="Benchmarks of anyfork; see bench/README.md.")
    parser.add_argument("benchmark", nargs="+", choices=BENCHMARKS)
    parser.add_argument("--face", choices=FACES, default="blocking", help="of create (%(default)s)")
    parser.add_argument("--pin", action="store_true", help="run everything on one CPU")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it runs")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders to measure")
    parser.add_argument("--count", type=int, default=soak.COUNT, help="processes of soak (%(default)s)")
    parser.add_argument("--plot", action="store_true", help="draw the pictures of the documentation (calls, growth)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="one file for all results")
    return parser


def write(results: dict[str, object], file: Path | None) -> list[Path]:
    """Write the results, by benchmark, into this file, or each into one of its own; return where."""
    whole = {file: results} if file else {RESULTS / f"{name}.json": {name: found} for name, found in results.items()}
    for path, content in whole.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    return list(whole)


if __name__ == "__main__":
    sys.exit(main())
