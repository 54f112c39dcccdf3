"""Many jobs, and workers that die all the time: everything is accounted for, and nothing grows."""

from __future__ import annotations

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


def killer(executor, stop, killed):
    """Kill a worker now and then."""
    while not stop.wait(KILL_EVERY):
        pids = executor.pids
        if pids:
            try:
                os.kill(random.choice(pids), signal.SIGKILL)
            except ProcessLookupError:  # it has ended meanwhile
                continue
            killed.append(1)


def test_every_job_is_accounted_for_once_though_workers_are_killed(template, tmp_path):
    path, stop, killed = str(tmp_path / "runs"), threading.Event(), []
    with Executor(template, 2) as executor:
        thread = threading.Thread(target=killer, args=(executor, stop, killed))
        executor.submit(os.getpid).result(20)
        thread.start()
        try:
            jobs = [executor.submit(append_slowly, path, n) for n in range(JOBS)]
            errors = [future.exception(30) for future in jobs]
        finally:
            stop.set()
            thread.join()
        stats = executor.stats()
    assert killed
    assert all(error is None or isinstance(error, anyfork.WorkerDiedError) for error in errors)
    runs = Counter(map(int, (tmp_path / "runs").read_text().split()))
    assert max(runs.values()) == 1
    assert all(runs[n] == 1 for n, error in enumerate(errors) if error is None)
    assert sum(error is not None for error in errors) <= len(killed)
    assert (stats.queued, stats.sent, stats.running) == (0, 0, 0)
    assert stats.answered + stats.failed == stats.submitted


def test_a_map_is_complete_though_workers_are_killed(template, tmp_path):
    path, stop, killed = str(tmp_path / "runs"), threading.Event(), []
    with Executor(template, 2) as executor:
        thread = threading.Thread(target=killer, args=(executor, stop, killed))
        executor.submit(os.getpid).result(20)
        thread.start()
        try:
            again = executor.options(idempotent=True)
            found = list(again.map(append_slowly, [path] * JOBS, range(JOBS)))
        except anyfork.WorkerDiedError:  # the same item was hit three times
            found = None
        finally:
            stop.set()
            thread.join()
    assert killed
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
