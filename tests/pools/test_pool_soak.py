"""Many jobs while workers are killed: every one of them is accounted for exactly once. The long form is in bench."""

from __future__ import annotations

import os
import random
import signal
import tracemalloc

import anyio
import pool_functions as jobs
import pytest

import anyfork
from anyfork import aio

pytestmark = pytest.mark.anyio

JOBS, CALLERS, EVERY = 2000, 40, 25


def kill(pid: int) -> bool:
    """Kill a worker; False when it has ended already, and its pool is about to hear of that."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


async def test_every_job_ends_once_although_workers_are_killed_all_the_time(template, tmp_path):
    # A random worker is killed after every so many results, whatever it is doing.
    path = tmp_path / "ran"
    chance = random.Random(7)
    results: dict[int, int | None] = {}
    numbers = iter(range(JOBS))
    killed = 0

    async def call_again_and_again(pool: aio.Pool) -> None:
        nonlocal killed
        for number in numbers:
            try:
                result: int | None = await pool.call(jobs.note, str(path), number, number)
            except anyfork.WorkerDiedError:
                result = None
            assert number not in results
            results[number] = result
            if len(results) % EVERY == 0 and pool.pids:
                killed += kill(chance.choice(pool.pids))

    async with aio.Pool(template, max_workers=3, load=4, start_after=0.01) as pool:
        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(call_again_and_again, pool)
        stats = pool.stats()
    lost = [number for number, result in results.items() if result is None]
    assert sorted(results) == list(range(JOBS))
    assert all(result == number for number, result in results.items() if result is not None)
    assert (stats.submitted, stats.answered, stats.failed) == (JOBS, JOBS - len(lost), len(lost))
    assert stats.died <= killed
    assert len(lost) <= killed, "each that was killed costs one job at most"
    ran = sorted(map(int, path.read_text().split()))
    assert len(ran) == len(set(ran)), "a job ran twice"
    assert set(range(JOBS)) - set(ran) <= set(lost), "a job that has a result did not run"


async def test_idempotent_jobs_all_have_results_although_workers_are_killed(template):
    async with aio.Pool(template, max_workers=3, load=4, start_after=0.01) as pool:
        count = 0
        async for result in pool.map(jobs.say_nothing, range(1000), idempotent=True, return_exceptions=True):
            assert result == count
            count += 1
            if count % 200 == 0 and pool.pids:
                kill(pool.pids[0])
    assert count == 1000


async def test_many_tiny_jobs_need_no_more_memory_than_few(template):
    async with aio.Pool(template, max_workers=2) as pool:

        async def work(count: int) -> None:
            async for _ in pool.map(jobs.say_nothing, range(count)):
                pass
            for _ in range(count // 50):
                await pool.call(jobs.say_nothing, 1)

        await work(2000)
        tracemalloc.start()
        try:
            await work(2000)
            before, _ = tracemalloc.get_traced_memory()
            await work(20_000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 100_000
