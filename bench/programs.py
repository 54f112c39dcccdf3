"""The benchmark ``programs``: whole Python programs, cold beside warm."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from .driver import UnavailableError
from .program_cases import CASES, VARIABLES, write_files
from .program_runs import Run, Runner, stop_keepers, write_client
from .report import Report, Settings, progress
from .tables import number, table
from .targets import Target, at_least, at_most, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from .program_cases import Case

    Runs: TypeAlias = dict[str, list[Run]]  # by the way of running it, in the order of the rounds

ROUNDS, QUICK_ROUNDS = 15, 2
COLD, TEMPLATE, SUBPROCESS, RUN = "cold", "template", "subprocess", "run"
LABELS = {COLD: "cold", TEMPLATE: "Template.run_*", SUBPROCESS: "anyfork.subprocess", RUN: "anyfork run"}
NAMES = tuple(case.name for case in CASES)
FIRST_LINE = 10.0  # milliseconds: the wish for the first line of a warm program
MORE_THAN_BARE = 30.0  # milliseconds: the wish for the command line, beside a bare interpreter
MEGABYTE = 1 << 20


def run(settings: Settings) -> Report:
    """Measure one program after the other: in each round it runs once in each way, a bare interpreter before."""
    results: dict[str, Runs] = {}
    memory: dict[str, tuple[int, int]] = {}
    notes = []
    for case in [case for case in CASES if settings.wants(case.name)]:
        if case.is_missing:
            notes.append(f"not measured: {case.label}, because {case.needs} is not installed")
            continue
        progress(f"programs: {case.label}")
        try:
            results[case.name], memory[case.name] = _measure(case, QUICK_ROUNDS if settings.quick else ROUNDS)
        except UnavailableError as error:
            notes.append(f"not measured: {case.label}: {error}")
    targets = [*_targets(results)]
    data = {"programs": _data(results), "memory": memory, "notes": notes, "targets": targets_data(targets)}
    tables = [_time_table(results), _cost_table(results, memory), *notes, targets_table(targets)]
    return Report(tables, data)


def _measure(case: Case, rounds: int) -> tuple[Runs, tuple[int, int]]:
    """Return the runs of a program, with those of a bare interpreter, and its memory. Raises UnavailableError."""
    found: defaultdict[str, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="anyfork-bench-") as name:
        directory = Path(name)
        write_files(directory)
        write_client(directory)
        env = {**os.environ, **VARIABLES, "XDG_RUNTIME_DIR": name}
        try:
            bare = Runner(CASES[0], directory, env)
            with Runner(case, directory, env) as runner:
                runner.wait_for_keeper()
                for turn in range(-1, rounds):  # the first one warms up: files, byte code
                    ways = {"bare": bare.ways[COLD], **runner.ways}
                    for way in sorted(ways, reverse=bool(turn % 2)):
                        one = ways[way]()
                        if turn >= 0:
                            found[way].append(one)
                return dict(found), runner.memory()
        finally:
            stop_keepers(directory, env)


def _middle(runs: Sequence[Run], what: Callable[[Run], float | None]) -> float | None:
    values = [value for run in runs if (value := what(run)) is not None]
    return 1000 * median(values) if values else None


def _first(run: Run) -> float | None:
    return run.first


def _end(run: Run) -> float | None:
    return run.end


def _cpu(run: Run) -> float | None:
    return run.cpu


def _time_table(results: dict[str, Runs]) -> str:
    rows = [
        [_case(name).label, *(number(_middle(runs[way], what), 1) for what in (_first, _end) for way in LABELS)]
        for name, runs in results.items()
    ]
    heads = [f"{what}\n{label}" for what in ("first line", "end") for label in LABELS.values()]
    return table("Milliseconds from the call to the first output and to the end: medians", ["", *heads], rows)


def _cost_table(results: dict[str, Runs], memory: dict[str, tuple[int, int]]) -> str:
    rows = [
        [
            _case(name).label,
            *(number(_middle(runs[way], _cpu), 1) for way in (COLD, TEMPLATE, RUN)),
            *(number(size / MEGABYTE, 1) for size in memory[name]),
        ]
        for name, runs in results.items()
    ]
    heads = ["CPU, ms\ncold", "CPU, ms\nwarm", "CPU, ms\nthe client's", "memory, MB\ncold", "memory, MB\nwarm"]
    return table("CPU of the process, and its private memory at its end: medians", ["", *heads], rows)


def _targets(results: dict[str, Runs]) -> Iterator[Target]:
    for name, runs in results.items():
        case = _case(name)
        if case.begins_with_line:
            for way in (TEMPLATE, SUBPROCESS):
                yield at_most(f"first line, ms: {case.label}, {LABELS[way]}", FIRST_LINE, _middle(runs[way], _first))
        if case.begins_with_line or name == CASES[0].name:
            more = _more_than_bare(runs)
            yield at_most(f"ms more than a bare interpreter: {case.label}, {LABELS[RUN]}", MORE_THAN_BARE, more)
    for name, runs in results.items():
        ends = zip(runs[COLD], runs[TEMPLATE], strict=True)
        yield at_least(f"cold / warm, to the end: {_case(name).label}", 1, median(c.end / w.end for c, w in ends))


def _more_than_bare(runs: Runs) -> float:
    """Return by how much the first line, or the end of a program without any, comes later by the command line."""
    pairs = zip(runs[RUN], runs["bare"], strict=True)
    return 1000 * median((ours.end if ours.first is None else ours.first) - bare.end for ours, bare in pairs)


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def _data(results: dict[str, Runs]) -> dict[str, object]:
    return {
        name: {way: [[one.first, one.end, one.cpu] for one in runs[way]] for way in runs}
        for name, runs in results.items()
    }
