"""AnyEvent::Fork::Pool: the behaviour that was measured on it, its own test, and its defects, shown absent.

The eleven defects, found by running it, or by what its users had to work around:

1. the stop logic is inverted: idle workers never leave with idle=0, and with idle=max all but one do
2. zero is replaced by the default, in max, load, start and stop
3. a worker that retires twice makes dropping the pool hang
4. dead workers stay: their jobs are lost, they attract more, and nobody takes their place
5. ncpu counts wrongly, and gives 0 where /proc/cpuinfo has no core ids
6. errors vanish
7. the workers that are started at once may be more than max
8. jobs are copied one level deep only
9. the queue is unbounded
10. a job cannot be given a time limit
11. a job cannot be cancelled, and nobody knows the pids of workers

A docstring that begins with ! says where we differ on purpose.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pool_functions as jobs
import pytest
from conftest import descendants, eventually
from deadlines import DEADLINE
from pool_side import Gate, Seen, ask, ask_in_turn, until

import anyfork
from anyfork import aio
from anyfork._system.limits import usable_cpus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def gate() -> Iterator[Gate]:
    with contextlib.closing(Gate()) as gate:
        yield gate


@pytest.fixture
async def template(anyio_backend) -> AsyncIterator[aio.Template]:
    async with aio.Template() as template:
        yield await template.preload("pool_functions").ready()


@pytest.fixture
async def tasks(anyio_backend) -> AsyncIterator[anyio.abc.TaskGroup]:
    async with anyio.create_task_group() as tasks:
        yield tasks
        tasks.cancel_scope.cancel()


# --- The vectors ----------------------------------------------------------------------------------------------------


async def test_p1_workers_are_added_one_by_one_up_to_max_while_all_are_full(template, gate, tasks):
    # 20 jobs with the original's default: 1, 2, 3, 4 workers. When each comes is a table in test_scheduler.
    seen, grown = Seen(), []
    async with aio.Pool(template, max_workers=4, on_event=seen) as pool:
        asked = [ask(tasks, pool.call, jobs.tell_and_wait, gate.file) for _ in range(20)]
        for count in range(1, 5):
            await until(lambda: pool.stats().started >= len(grown) + 1)
            grown.append(pool.stats().started)
            assert grown[-1] == count
        await seen.wait(4)
        gate.open(20)
        workers = Counter([await one.outcome() for one in asked])
        assert pool.stats().started == 4
    assert len(workers) == 4


async def test_p2_a_worker_that_retires_once_is_replaced(template):
    async with aio.Pool(template, max_workers=1) as pool:
        assert await pool.call(jobs.retire_times, 1) != await pool.call(jobs.pid)


async def test_p3_a_worker_that_retires_with_a_queue_does_what_it_was_sent_and_another_does_the_rest(
    template, gate, tasks
):
    seen = Seen()
    async with aio.Pool(template, max_workers=1, load=2, on_event=seen) as pool:
        asked = await ask_in_turn(tasks, pool, 1, jobs.tell_and_wait, gate.file)
        await seen.wait(1)
        asked += await ask_in_turn(tasks, pool, 1, jobs.retire_times, 1)
        asked += await ask_in_turn(tasks, pool, 6, jobs.pid)
        gate.open()
        pids = [await one.outcome() for one in asked]
    on_first = pids.count(pids[0])
    assert on_first in (2, 3), "a third was sent to it if it came before its farewell"
    assert pids == [pids[0]] * on_first + [pids[-1]] * (8 - on_first)
    assert pids[0] != pids[-1]


async def test_p4_a_pool_that_is_closed_with_ten_jobs_queued_gives_ten_results_and_then_ends(template, gate, tasks):
    pool = aio.Pool(template, max_workers=1)
    asked = await ask_in_turn(tasks, pool, 10, jobs.tell_and_wait, gate.file, on_event=Seen())
    closing = ask(tasks, pool.aclose)
    gate.open(10)
    await closing.outcome()
    assert len([await one.outcome() for one in asked]) == 10
    assert not pool.pids


@pytest.mark.parametrize("idle", [0, 2])
async def test_p5_a_pool_that_was_never_used_ends(template, idle):
    with anyio.fail_after(DEADLINE):
        await aio.Pool(template, min_idle=idle).aclose()


async def test_p6_two_workers_with_a_load_of_two_get_jobs_in_turn(template, gate, tasks):
    async with aio.Pool(template, max_workers=2, min_idle=2, load=2) as pool:
        await until(lambda: pool.stats().idle == 2)
        asked = await ask_in_turn(tasks, pool, 4, jobs.tell_and_wait, gate.file, on_event=Seen())
        at = [pooled_worker.worker.jobs for pooled_worker in pool._pool_loop.pooled_workers]
        await until(lambda: [len(each) for each in at] == [2, 2])  # one may be on its way to the other worker
        gate.open(4)
        a, b, c, d = [await one.outcome() for one in asked]
    assert a != b
    assert {c, d} <= {a, b}  # an idle worker gets what waits in the other one


async def test_p7_when_one_of_two_workers_dies_five_of_six_jobs_are_done(template, gate, tasks):
    seen = Seen()
    async with aio.Pool(template, max_workers=2, min_idle=2, on_event=seen) as pool:
        await until(lambda: pool.stats().idle == 2)
        asked = await ask_in_turn(tasks, pool, 6, jobs.tell_and_wait, gate.file)
        victim, _ = await seen.wait(2)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: pool.stats().died == 1)
        gate.open(6)
        outcomes = [await one.outcome() for one in asked]
    assert sum(isinstance(outcome, anyfork.WorkerDiedError) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 5


async def test_p8_an_async_worker_does_ten_jobs_at_once(template, gate, tasks):
    # ! How many a worker runs at once is its concurrency here; the load is how many it is given.
    seen = Seen()
    async with aio.Pool(template, max_workers=1, concurrency=10, on_event=seen) as pool:
        asked = [ask(tasks, pool.call, jobs.tell_and_wait_later, gate.file) for _ in range(10)]
        await seen.wait(10)
        gate.open(10)
        assert len({await one.outcome() for one in asked}) == 1


async def test_upstream_01_basic(template):
    # 30 jobs, each of which lets its worker retire or not; the pool is closed: 30 runs, 30 results, then the end.
    seen, results = Seen(), []
    chance = random.Random(1)
    pool = aio.Pool(template, on_event=seen)

    async def run(number: int) -> None:
        times = chance.choice([0, 1])
        await pool.call(jobs.say, number)
        results.append(await pool.call(jobs.retire_times, times))

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(run, number)
    await pool.aclose()
    assert sorted(seen.values) == list(range(30))
    assert len(results) == 30
    assert not pool.pids


# --- The defects ----------------------------------------------------------------------------------------------------


async def test_defect_1_idle_workers_leave_unless_they_are_wanted(template):
    async with aio.Pool(template, max_workers=4, load=1, start_after=0, idle_timeout=0.01) as pool:
        await use_all(pool, 4)
        await until(lambda: not pool.pids)
    async with aio.Pool(template, max_workers=2, min_idle=2, load=1, idle_timeout=0.01) as pool:
        await until(lambda: pool.stats().idle == 2)
        pids = set(pool.pids)
        await use_all(pool, 2)
        async with aio.Pool(template, idle_timeout=0.01) as other:
            await use_all(other, 1)
            await until(lambda: not other.pids)  # its worker was not idle for longer
        assert set(pool.pids) == pids


async def use_all(pool: aio.Pool, count: int) -> None:
    """Let so many workers be at work at the same time."""
    seen = Seen()
    with contextlib.closing(Gate()) as gate:
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(lambda: pool.call(jobs.tell_and_wait, gate.file, on_event=seen))
            assert len(set(await seen.wait(count))) == count
            gate.open(count)


async def test_defect_2_zero_means_zero(template, tasks):
    async with aio.Pool(template, max_workers=3, load=1, start_after=0, idle_timeout=0) as pool:
        await use_all(pool, 3)
        await until(lambda: not pool.pids)
    for options in ({"max_workers": 0}, {"load": 0}):
        async with aio.Pool(template, **options) as pool:
            asked = ask(tasks, pool.call, jobs.pid)
            await until(lambda: pool.stats().queued == 1)
            async with aio.Pool(template) as other:
                await other.call(jobs.pid)  # as much as this pool would need for it
            assert pool.stats().queued == 1
            pool.resize(max_workers=1, load=1)
            assert await asked.outcome() in pool.pids


@pytest.mark.parametrize("times", [2, 10])
async def test_defect_3_a_worker_may_retire_again_and_again_and_the_pool_ends(template, times):
    with anyio.fail_after(DEADLINE):
        async with aio.Pool(template, max_workers=2) as pool:
            for _ in range(3):
                await pool.call(jobs.retire_times, times)


async def test_defect_4_dead_workers_are_replaced_and_no_other_job_is_lost(template):
    with anyio.fail_after(DEADLINE):
        async with aio.Pool(template, max_workers=1) as pool:
            for _ in range(3):
                os.kill(await pool.call(jobs.pid), signal.SIGKILL)  # while it is idle
                await until(lambda: pool.stats().workers == 0)
            with pytest.raises(anyfork.WorkerDiedError):
                await pool.call(jobs.die)
            assert await pool.call(jobs.say, 1, on_event=Seen()) == 1
            assert pool.stats().died == 4


async def test_defect_5_how_many_workers_there_are_does_not_depend_on_what_cpuinfo_says(template):
    # ! There is no ncpu: the default is 4, or the CPUs that this process may use if those are fewer.
    async with aio.Pool(template) as pool:
        assert pool._pool_loop.scheduler.limits.max_workers == min(4, usable_cpus())
    async with aio.Pool({template: 2, template.fork(): 3}) as pool:
        assert pool._pool_loop.scheduler.limits.max_workers == 5


async def test_defect_6_every_error_comes_to_whoever_has_asked(template):
    async with aio.Pool(template) as pool:
        with pytest.raises(RuntimeError, match="no luck today"):
            await pool.call(jobs.no_luck)
        with pytest.raises(anyfork.WorkerDiedError, match="SIGKILL|signal 9"):
            await pool.call(jobs.die)
        with pytest.raises(anyfork.FunctionNotFoundError, match="no_such_function"):
            await pool.call("pool_functions:no_such_function")
    async with aio.Pool(template, initializer=jobs.no_luck) as pool:
        with pytest.raises(anyfork.InitializerError, match="no luck today"):
            await pool.call(jobs.pid)


async def test_defect_7_idle_never_means_more_than_max(template):
    async with aio.Pool(template, min_idle=6, max_workers=2) as pool:
        await until(lambda: pool.stats().idle == 2)
        assert pool.stats().started == 2


async def test_defect_8_what_changes_after_the_call_changes_nothing(template, gate, tasks):
    deep = {"a": {"b": [1]}}
    async with aio.Pool(template, max_workers=1, load=1) as pool:
        await ask_in_turn(tasks, pool, 1, jobs.wait, gate.file)
        (asked,) = await ask_in_turn(tasks, pool, 1, jobs.sent, deep)
        deep["a"]["b"].append(2)
        gate.open()
        assert await asked.outcome() == (None, {"a": {"b": [1]}})


async def test_defect_9_the_queue_is_bounded_if_that_is_wanted(template, gate, tasks):
    async with aio.Pool(template, max_workers=1, load=1, max_queued=2) as pool:
        await ask_in_turn(tasks, pool, 3, jobs.wait, gate.file)
        for _ in range(4):
            ask(tasks, pool.call, jobs.wait, gate.file)
        await until(lambda: pool._pool_loop.scheduler.waiters == 4 and pool.stats().running == 1)
        assert pool.stats().queued == 2
        gate.open(7)
    async with aio.Pool(template, max_workers=1, load=1, max_queued=0, when_full="raise") as pool:
        await ask_in_turn(tasks, pool, 1, jobs.wait, gate.file)
        with pytest.raises(anyfork.QueueFullError):
            await pool.call(jobs.pid)
        gate.open()


async def test_defect_10_a_job_has_a_time_limit_if_that_is_wanted(template, gate):
    async with aio.Pool(template, max_workers=1) as pool:
        with pytest.raises(anyfork.CallTimeoutError):
            await pool.call(jobs.wait, gate.file, timeout=0.05)
        assert await pool.call(jobs.pid) in pool.pids


async def test_defect_11_a_job_can_be_cancelled_and_the_pids_of_workers_are_known(template, gate, tasks):
    seen = Seen()
    async with aio.Pool(template, max_workers=1, on_event=seen) as pool:
        running = ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        (pid,) = await seen.wait(1)
        assert pool.pids == [pid]
        running.scope.cancel()
        await running.done.wait()
        eventually(lambda: pid not in descendants(), "the worker is still there")
        assert await pool.call(jobs.pid) != pid
