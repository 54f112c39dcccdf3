"""Show what anyfork is for: the survey of the standard library three ways, then ten servers on one socket."""

from __future__ import annotations

import os
import platform
import runpy
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from .survey import Findings, modules
from .ways import Way, all_ways

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 3  # modules for one process: few, so that what a start costs is seen
AT_ONCE = 2 * (os.cpu_count() or 1)
ROUNDS = 10
STARTS = 3  # of processes that do nothing, in each round
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@dataclass
class Result:
    """What one way of starting processes took so far, and what its workers found."""

    findings: Findings = field(default_factory=Findings)
    starts: list[float] = field(default_factory=list)  # seconds
    seconds: float = 0.0
    private: list[int] = field(default_factory=list)  # bytes
    shared_fairly: list[int] = field(default_factory=list)


def measure(way: Way, chunks: Sequence[list[str]], result: Result) -> None:
    """Have a part of the survey done one way."""
    result.starts.extend(timed(way) for _ in range(STARTS))
    began = time.perf_counter()
    for answer in way.answers(chunks, AT_ONCE):
        result.findings.add(answer.findings)
        result.private.append(answer.private)
        result.shared_fairly.append(answer.shared_fairly)
        seconds = result.seconds + time.perf_counter() - began
        done, found = len(result.private), result.findings
        progress(f"  {way.name}: {done} processes in {seconds:.1f} s, {found.functions} functions found")
    result.seconds += time.perf_counter() - began


def measure_all(chunks: Sequence[list[str]]) -> dict[str, Result]:
    """Have the survey done by each way, a part of it at a time and in turn, so that all meet the same machine."""
    results = {}
    with ExitStack() as stack:
        ways = [stack.enter_context(way) for way in all_ways()]
        for way in ways:
            results[way.name] = Result()
            timed(way)  # starts the template and the fork server, which is not counted
        for part in range(ROUNDS):
            for way in ways:
                measure(way, chunks[part::ROUNDS], results[way.name])
    progress("")
    return results


def timed(way: Way) -> float:
    """Seconds from the request for a process until its end is known."""
    began = time.perf_counter()
    way.start_and_end()
    return time.perf_counter() - began


def progress(text: str) -> None:
    """Show a line that the next one replaces, where somebody is looking."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)


def show_findings(found: Findings) -> None:
    """Say what the workers found."""
    print(f"They found {found.functions:,} functions and {found.classes:,} classes in {found.lines:,} lines.")
    print(f"The deepest nesting is {found.deepest[0]} blocks, at {found.deepest[1]}.")
    print(f"The longest function is {found.longest[1]}, with {found.longest[0]:,} lines.\n")


def show_table(results: dict[str, Result]) -> None:
    """Say what each way took."""
    best = next(iter(results.values()))
    print(f"{'processes by':26}{'one start':>11}{'whole job':>12}{'':>8}{'own memory':>13}{'PSS':>11}")
    for name, one in results.items():
        print(
            f"{name:26}{median(one.starts) * 1000:>8.1f} ms{one.seconds:>10.1f} s{one.seconds / best.seconds:>6.1f} x"
            f"{mean(one.private) / 2**20:>10.1f} MB{mean(one.shared_fairly) / 2**20:>8.1f} MB"
        )
    print(
        "\nOne start: from the request for a process that does nothing until its end is known, the middle of "
        f"{len(best.starts)}.\nOwn memory: what a worker shares with nobody at its end, on average.\n"
        "PSS: that, and its part of what it shares.\n"
    )


def main() -> None:
    """Run both demonstrations."""
    paths = [str(path) for path in modules()]
    chunks = [paths[at : at + CHUNK] for at in range(0, len(paths), CHUNK)]
    print(f"1. A survey of the standard library of Python {platform.python_version()}\n")
    print(
        f"{len(paths)} modules are parsed by {len(chunks)} processes, {AT_ONCE} at a time, which send their findings;"
    )
    print("all of it three times, with the processes started in three ways.\n", flush=True)
    results = measure_all(chunks)
    findings = [result.findings for result in results.values()]
    if any(other != findings[0] for other in findings):
        sys.exit("The three ways did not find the same: that is a bug.")
    show_findings(findings[0])
    show_table(results)
    print("2. Ten processes of one template, all accepting on one listening socket, answer web requests\n", flush=True)
    runpy.run_path(str(EXAMPLES / "ten_servers.py"), run_name="__main__")


if __name__ == "__main__":
    main()
