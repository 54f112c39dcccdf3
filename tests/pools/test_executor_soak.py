"""Many jobs, and workers that die all the time: everything is accounted for, and nothing grows."""

from __future__ import annotations

import contextlib
import operator
import os
import random
import resource
import signal
import threading
from collections import Counter

import pytest
from executor_functions import append_slowly

import anyfork
from anyfork import Executor, Template

JOBS, KILL_EVERY = 3000, 0.05  # seconds
MANY = 60_000


@pytest.fixture(scope="module")
def template():
    """Yield a template whose workers need not import anything: that would take longer than they live here."""
    with Template().preload("executor_functions").ready(20) as template:
        yield template


@contextlib.contextmanager
def workers_killed(executor):
    """Kill a worker now and then, within the block."""
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=kill_workers, args=(executor, stop, killed))
    executor.submit(os.getpid).result(20)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()
    assert killed


def kill_workers(executor, stop, killed):
    while not stop.wait(KILL_EVERY):
        pids = executor.pids
        if pids:
            try:
                os.kill(random.choice(pids), signal.SIGKILL)
            except ProcessLookupError:  # it has ended meanwhile
                continue
            killed.append(1)


def test_every_job_is_accounted_for_once_though_workers_are_killed(template, tmp_path):
    path = str(tmp_path / "runs")
    with Executor(template, 2) as executor:
        with workers_killed(executor) as killed:
            jobs = [executor.submit(append_slowly, path, n) for n in range(JOBS)]
            errors = [future.exception(30) for future in jobs]
        stats = executor.stats()
    assert all(error is None or isinstance(error, anyfork.WorkerDiedError) for error in errors)
    runs = Counter(map(int, (tmp_path / "runs").read_text().split()))
    assert max(runs.values()) == 1
    assert all(runs[n] == 1 for n, error in enumerate(errors) if error is None)
    assert sum(error is not None for error in errors) <= len(killed)
    assert (stats.queued, stats.sent, stats.running) == (0, 0, 0)
    assert stats.answered + stats.failed == stats.submitted


def test_a_map_is_complete_though_workers_are_killed(template, tmp_path):
    path, found = str(tmp_path / "runs"), None
    with Executor(template, 2) as executor, workers_killed(executor):
        # A WorkerDiedError: the same item was hit three times.
        with contextlib.suppress(anyfork.WorkerDiedError):
            found = list(executor.options(idempotent=True).map(append_slowly, [path] * JOBS, range(JOBS)))
    assert found in (None, list(range(JOBS)))


@pytest.mark.slow
def test_a_bounded_queue_bounds_the_memory():
    with Executor(max_workers=2, max_queued=500) as executor:
        done = Counter()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for n in range(MANY):
            executor.submit(operator.neg, n).add_done_callback(lambda future: done.update([future.exception()]))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert done == {None: MANY}
    assert most - before < 20 << 10  # KiB
    with Executor(max_workers=2) as executor:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(1 for _ in executor.map(operator.neg, range(MANY), buffersize=500)) == MANY
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10
