"""What is measured: each scene returns a chart of anyfork beside forkserver and spawn."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from concurrent.futures import as_completed
from contextlib import suppress
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from . import heavy, jobs
from .chart import Bar, Chart
from .progress import progress
from .ways import COLD, time_cold_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from .ways import Way

ROUNDS = 6
SLICE = 0.25  # seconds that a quick way is measured in a round
JOBS, BETWEEN_KILLS = 400, 25
WORKERS = 8


def programs(ways: Sequence[Way]) -> Chart:
    """Show how long the output of a program that imports pandas takes to come, warm and cold."""
    contenders = {way.name: way.time_report for way in ways}
    contenders[f"python {' '.join(COLD[1:])}"] = time_cold_report
    times = measure_by_turns("a program that imports pandas", contenders)
    bars = [Bar(name, median(each), f"{median(each) * 1000:,.0f} ms") for name, each in times.items()]
    return Chart(
        "A program that imports pandas: from its start to its output", bars, "shorter is better; the middle value"
    )


def starts(ways: Sequence[Way]) -> Chart:
    """Show how many processes a second start, with pandas loaded."""
    contenders: dict[str, Callable[[], float]] = {
        way.name: partial(timed, partial(way.run, heavy.do_nothing)) for way in ways
    }
    times = measure_by_turns("processes that have pandas", contenders)
    rates = {name: len(each) / sum(each) for name, each in times.items()}
    bars = [Bar(name, rate, f"{rate:,.1f} a second") for name, rate in rates.items()]
    return Chart("Starts a second of processes that have pandas", bars, "longer is better; one at a time, start to end")


def timed(run: Callable[[], None]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure_by_turns(what: str, contenders: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return the seconds of each run of each contender. They run by turns, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for name, run in contenders.items():
        progress(f"{what}: {name}, the first time, which is not counted")
        run()
    for turn in range(ROUNDS):
        for name, run in contenders.items():
            if turn % 2 and times[name][-1] > SLICE:
                continue  # it takes seconds, and has had its turn
            end = time.perf_counter() + SLICE
            while True:
                times[name].append(run())
                progress(f"{what}: {name}, {len(times[name])} so far, the last in {times[name][-1] * 1000:,.1f} ms")
                if time.perf_counter() > end:
                    break
    return times


def killed_workers(ways: Sequence[Way]) -> Chart:
    """Show how many jobs a pool of two workers does while its workers are killed."""
    bars = []
    for way in ways:
        done, kills = run_and_kill(way)
        bars.append(Bar(way.name, done, f"{done} of {JOBS} jobs, {kills} killed"))
    note = f"longer is better; a worker is killed each time {BETWEEN_KILLS} jobs have ended; nothing is done twice"
    return Chart("A pool of 2 workers, of which one is killed again and again", bars, note)


def run_and_kill(way: Way) -> tuple[int, int]:
    """Return how many jobs had a result, and how many workers were killed."""
    done = kills = 0
    with way.pool(2) as pool:
        futures = [pool.submit(jobs.work, number) for number in range(JOBS)]
        for ended, future in enumerate(as_completed(futures), 1):
            done += future.exception() is None
            if ended % BETWEEN_KILLS == 0 and ended < JOBS:
                kills += kill_one(way, pool)
            progress(f"a pool whose workers are killed: {way.name}, {done} jobs done, {kills} workers killed")
    return done, kills


def kill_one(way: Way, pool: Executor) -> bool:
    """Kill a worker, if there is one."""
    for pid in random.sample(pids := way.pids(pool), len(pids)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def memory(ways: Sequence[Way]) -> Chart:
    """Show how much memory eight workers have that have pandas."""
    bars = []
    for way in ways:
        progress(f"the memory of {WORKERS} workers: {way.name}")
        size = memory_of_workers(way) / 2**20
        bars.append(Bar(way.name, size, f"{size:,.0f} MB"))
    note = "shorter is better; PSS, all of them together, after a garbage collection in each"
    return Chart(f"Memory of {WORKERS} workers that have pandas", bars, note)


def memory_of_workers(way: Way) -> int:
    """Return the bytes of all workers of a pool. Fails if a preloaded module was loaded again."""
    with tempfile.TemporaryDirectory() as there, way.pool(WORKERS) as pool:
        answers = [pool.submit(heavy.footprint, there, WORKERS) for _ in range(WORKERS)]
        found = [answer.result() for answer in answers]
    assert all(loaded == (way.name == "spawn") for loaded, _ in found), f"{way.name} has not preloaded the module"
    return sum(size for _, size in found)
