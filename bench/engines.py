"""The benchmark ``engines``: tasks of Dask that need pandas and must not share a process, one after the other."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median
from time import perf_counter

from .report import Report, Settings, progress
from .tables import number, rate, table
from .targets import Target, at_least, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS = 300.0  # for one task: on a busy machine, the worker that the nanny restarts needs a minute
# By default, a LocalCluster ends the nanny, and with it the cluster, when the worker is not back after 15 seconds.
LOST_AFTER = "distributed.deploy.lost-worker-timeout"
COLD, NANNY, ANYFORK = "cold", "nanny", "anyfork-dask"
LABELS = {
    COLD: "a new interpreter for each task",
    NANNY: "the nanny restarts the worker before each task",
    ANYFORK: "anyfork's TemplatePlugin, max_calls=1",
}
NAMES = tuple(LABELS)
CODE = "import pandas; print(pandas.DataFrame({'x': range(1000)}).x.sum())"
RESULT = 499500


def work(_turn: int) -> int:
    """Do the task in this process."""
    import pandas

    return int(pandas.DataFrame({"x": range(1000)}).x.sum())


def work_elsewhere(_turn: int) -> int:
    """Do the task in an interpreter of its own."""
    return int(subprocess.run([sys.executable, "-c", CODE], check=True, stdout=subprocess.PIPE).stdout)


def run(settings: Settings) -> Report:
    """Measure one task of each contender in every round. Two clusters of one worker each are there for all of them."""
    if missing := [name for name in ("distributed", "pandas") if find_spec(name) is None]:
        return Report([f"not measured: {', '.join(missing)} is not installed"])
    wanted = [name for name in NAMES if settings.wants(name)]
    seconds: dict[str, list[float]] = {name: [] for name in wanted}
    missing_here: dict[str, str] = {}
    rounds = QUICK_ROUNDS if settings.quick else ROUNDS
    with ExitStack() as stack:
        tasks = _contenders(stack)
        for turn in range(-1, rounds):  # the first one warms up: files, the first template
            progress(f"engines: round {turn + 1} of {rounds}")
            for name in [name for name in wanted if name not in missing_here]:
                began = perf_counter()
                try:
                    assert tasks[name](turn) == RESULT
                except TimeoutError as error:
                    missing_here[name] = f"stopped in round {turn + 1}: {error}"
                    continue
                if turn >= 0:
                    seconds[name].append(perf_counter() - began)
    medians = {name: median(samples) for name, samples in seconds.items() if samples}
    targets = _targets(medians)
    data = {"engines": seconds, "missing": missing_here, "targets": targets_data(targets)}
    notes = [f"{LABELS[name]}: {why}" for name, why in missing_here.items()]
    return Report([_table(medians), *notes, targets_table(targets)], data)


def _contenders(stack: ExitStack) -> dict[str, Callable[[int], Any]]:
    """Start the clusters. Return what does one task, by contender."""
    import dask
    from distributed import Client, LocalCluster

    from anyfork.contrib.dask import TemplatePlugin

    def client() -> Any:
        made = stack.enter_context(LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None))
        return stack.enter_context(Client(made))

    stack.enter_context(dask.config.set({LOST_AFTER: f"{SECONDS}s"}))
    plain, restarted = client(), client()
    plain.register_plugin(TemplatePlugin("pandas", max_calls=1))

    def by_nanny(turn: int) -> Any:
        # Without waiting for the new worker: Dask looks for it five times a second, and the task waits for it anyway.
        restarted.restart(timeout=SECONDS, wait_for_workers=False)
        return restarted.submit(work, turn).result(SECONDS)

    def by_template(turn: int) -> Any:
        with dask.annotate(executor="anyfork"):
            return plain.submit(work, turn).result(SECONDS)

    return {
        COLD: lambda turn: plain.submit(work_elsewhere, turn).result(SECONDS),
        NANNY: by_nanny,
        ANYFORK: by_template,
    }


def _table(medians: dict[str, float]) -> str:
    ours = medians.get(ANYFORK)
    rows = [
        [LABELS[name], number(1000 * middle, 1), rate(1 / middle), number(None if ours is None else middle / ours, 1)]
        for name, middle in medians.items()
    ]
    title = "Dask tasks that need pandas, each in a process of its own, one after the other: medians"
    return table(title, ["", "ms a task", "tasks a second", "x anyfork's time"], rows)


def _targets(medians: dict[str, float]) -> list[Target]:
    """Ahead of both."""
    ours = medians.get(ANYFORK)
    return [
        at_least(f"tasks a second, x {LABELS[name]}", 1, None if ours is None else medians[name] / ours)
        for name in (COLD, NANNY)
        if name in medians
    ]
