"""The maps of aio.Pool, under each loop."""

from __future__ import annotations

import contextlib
import operator
import os
import signal
from functools import partial

import anyio
import pool_functions as jobs
import pytest
from deadlines import DEADLINE
from pool_side import ask, until

import anyfork
from anyfork import aio
from anyfork._calls.durations import MOST_ITEMS
from anyfork.aio._map import AsyncMapItems

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pool(template):
    async with aio.Pool(template, max_workers=2, start_after=0) as pool:
        yield pool


async def test_results_come_in_the_order_of_the_items(pool):
    assert [x async for x in pool.map(operator.neg, range(3000))] == [-n for n in range(3000)]
    assert [x async for x in pool.map(operator.neg, [])] == []


async def test_results_come_as_they_are_done(pool, gate):
    def wait_or_not(item):
        if isinstance(item, int):
            return item
        return os.read(item.fileno(), 1)

    async with pool.map(wait_or_not, [gate.file, 1, 2], ordered=False, window=3) as results:
        assert await anext(results) in (1, 2)
        gate.open()
        assert {await anext(results), await anext(results)} <= {b"x", 1, 2}
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_all_results_come_once_in_any_order(pool):
    assert sorted([x async for x in pool.map(operator.neg, range(2000), ordered=False)]) == list(range(-1999, 1))


async def test_items_of_all_kinds_and_sizes_may_be_mixed(pool, gate):
    items = [1, "text", b"x" * 100_000, [1, 2], None, b"y" * 3_000_000, {"a": 1}, 2.5, 1 << (1 << 24), -1]
    assert [x async for x in pool.map(jobs.say, items)] == items
    gate.open(2)
    assert [x async for x in pool.map(jobs.wait, [gate.file, gate.file])] == [None, None]


async def test_items_may_come_from_an_async_iterator(pool):
    async def items():
        for number in range(200):
            await anyio.lowlevel.checkpoint()
            yield number

    assert [x async for x in pool.map(operator.neg, items())] == [-n for n in range(200)]


@pytest.mark.parametrize("ordered", [True, False])
async def test_no_more_items_are_taken_than_the_window_allows(pool, ordered):
    taken = 0

    def items():
        nonlocal taken
        for number in range(200):
            taken += 1
            yield number

    came = 0
    async for _ in pool.map(operator.neg, items(), window=10, ordered=ordered):
        came += 1
        assert taken <= came + 10
    assert (came, taken) == (200, 200)


async def test_a_map_raises_what_a_call_raises_and_ends_with_that(pool):
    results = pool.map(jobs.fail_at_5, range(100))
    got = []
    with pytest.raises(ValueError, match="five"):
        async for result in results:
            got.append(result)  # noqa: PERF401  # it raises in between
    assert got == [0, 1, 2, 3, 4]
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_exceptions_may_take_the_place_of_results(pool):
    got = [x async for x in pool.map(jobs.fail_at_5, range(10), return_exceptions=True)]
    assert isinstance(got[5], ValueError)
    assert got[:5] + got[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


async def test_what_raises_stop_async_iteration_does_not_end_a_map_silently(pool):
    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        await anext(pool.map(jobs.raise_stop_async_iteration, [1]))


async def test_an_item_that_cannot_travel_ends_the_map(pool):
    with pytest.raises(anyfork.ArgumentError, match="argument 1"):
        await anext(pool.map(operator.neg, [1, (x for x in ())]))
    assert await pool.call(operator.neg, 1) == -1
    await until(lambda: pool.stats().running + pool.stats().sent + pool.stats().queued == 0)


async def test_items_that_raise_end_the_map_with_that(pool):
    def items():
        yield 1
        raise RuntimeError("no more items")

    with pytest.raises(RuntimeError, match="no more items"):
        await anext(pool.map(operator.neg, items()))


async def test_closing_a_map_cancels_what_has_not_begun(template, gate, tmp_path):
    path = str(tmp_path / "ran")
    async with aio.Pool(template, max_workers=1, load=2) as pool:

        def note_or_wait(item):
            if isinstance(item, int):
                return jobs.note(path, item)
            jobs.wait(item)
            return sum(range(1_000_000)) and None  # behind calls of some length only a worker looks what was cancelled

        async with pool.map(note_or_wait, [0, gate.file, 2, 3, 4], window=5) as results:
            assert await anext(results) is None
        pids = pool.pids
        gate.open()
        assert [await pool.call(jobs.pid)] == pids
        assert (tmp_path / "ran").read_text().split() == ["0"]


async def test_a_map_that_is_dropped_is_closed(pool):
    results = pool.map(operator.neg, iter(int, 1))
    await anext(results)
    del results
    await until(lambda: pool.stats().running + pool.stats().sent + pool.stats().queued == 0)


async def test_only_the_item_that_ran_is_lost_with_its_worker(pool, tmp_path):
    got = [x async for x in pool.map(jobs.die_at_13, range(40), return_exceptions=True)]
    assert isinstance(got[13], anyfork.WorkerDiedError)
    assert got[:13] + got[14:] == [n for n in range(40) if n != 13]


async def test_every_item_runs_once_although_workers_are_killed(template, tmp_path):
    path, count = tmp_path / "ran", 400
    async with aio.Pool(template, max_workers=3, start_after=0) as pool:
        results = []
        items = (f"{path}:{number}" for number in range(count))
        async for result in pool.map(jobs.note_item, items, return_exceptions=True):
            results.append(result)
            if len(results) % 40 == 0 and pool.pids:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    os.kill(pool.pids[0], signal.SIGKILL)
    lost = [n for n, result in enumerate(results) if isinstance(result, anyfork.WorkerDiedError)]
    assert [result for result in results if isinstance(result, int)] == [n for n in range(count) if n not in lost]
    ran = sorted(map(int, path.read_text().split()))
    assert len(ran) == len(set(ran)), "an item ran twice"
    assert set(range(count)) - set(ran) <= set(lost)


async def test_no_item_waits_behind_a_long_one_that_it_was_sent_with(template, gate):
    def wait_or_not(item):
        return item or jobs.wait_at_gate() or 0

    async with aio.Pool(template, max_workers=2, min_idle=2, initializer=jobs.keep_gate, initargs=[gate.file]) as pool:
        items = [1] * 500 + [0] + [1] * 500  # quick items travel together by then
        async with pool.map(wait_or_not, items, ordered=False) as results:
            got = [await anext(results) for _ in range(1000)]
            assert set(got) == {1}
            gate.open()
            assert await anext(results) == 0
        assert pool.stats().moved


async def test_idempotent_items_survive_their_workers(template, tmp_path):
    async with aio.Pool(template, max_workers=2) as pool:
        got = [x async for x in pool.map(die_once_each, [str(tmp_path / str(n)) for n in range(6)], idempotent=True)]
    assert got == [2] * 6


def die_once_each(path):
    return jobs.die_at_first(path, 1)


async def test_items_share_the_workers_with_calls(pool):
    async with pool.map(operator.neg, iter(int, 1)) as results:
        for _ in range(50):
            await anext(results)
            assert await pool.call(operator.neg, 2) == -2


@pytest.mark.parametrize("max_queued", [0, 1, 5])
async def test_a_map_stays_within_a_bounded_queue(template, max_queued):
    async with aio.Pool(template, max_workers=1, load=2, max_queued=max_queued) as pool:  # no job is taken back
        got, queued = [], 0
        async for x in pool.map(operator.neg, range(500)):
            got.append(x)
            queued = max(queued, pool.stats().queued)
        assert got == [-n for n in range(500)]
        assert queued <= max_queued


@pytest.mark.parametrize("options", [{"concurrency": 3}, {"timeout": 60}, {"max_memory": 1 << 40}, {"max_calls": 3}])
async def test_maps_with_every_kind_of_worker(template, options):
    async with aio.Pool(template, max_workers=2, **options) as pool:
        assert [x async for x in pool.map(operator.neg, range(30))] == [-n for n in range(30)]


async def test_an_item_that_takes_too_long_ends_its_worker_alone(template, gate):
    async with aio.Pool(template, max_workers=1, timeout=1) as pool:

        def wait_or_not(item):
            return item if isinstance(item, int) else jobs.wait(item)

        got = [x async for x in pool.map(wait_or_not, [1, gate.file, 2, 3], return_exceptions=True)]
        assert got[:1] + got[2:] == [1, 2, 3]
        assert isinstance(got[1], anyfork.CallTimeoutError)


@pytest.mark.parametrize("further", [0, 1])
async def test_results_that_came_before_a_pool_was_closed_are_taken_before_it_refuses_further_items(template, further):
    pool = aio.Pool(template, max_workers=1)
    results = pool.map(operator.neg, range(4 + further), window=4)
    assert await anext(results) == 0
    await pool.aclose()
    assert [await anext(results) for _ in range(3)] == [-1, -2, -3]
    with pytest.raises(anyfork.HandleError if further else StopAsyncIteration):
        await anext(results)
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_a_map_waits_for_an_item_that_its_closing_pool_finishes(template, gate, tasks):
    file = gate.file
    pool = aio.Pool(template, max_workers=1)
    results = pool.map(lambda item: item or jobs.wait(file), [1, 0])
    assert await anext(results) == 1
    closing = ask(tasks, pool.aclose)
    await until(lambda: pool._pool_loop.refuses)
    waiting = ask(tasks, anext, results)
    gate.open()
    assert await waiting.outcome() is None
    await closing.outcome()


@pytest.mark.parametrize("window", [0, -3])
async def test_a_window_that_makes_no_sense_is_an_error(pool, window):
    with pytest.raises(anyfork.ArgumentError, match="1 or more"):
        pool.map(operator.neg, [], window=window)


async def test_quick_items_travel_together_and_slow_ones_alone(pool):
    results = pool.map(operator.neg, range(5000), window=1000)
    sizes = set()
    async for _ in results:
        sizes |= {job.size for job in results._work.jobs}
    assert max(sizes) > 1
    assert max(sizes) <= MOST_ITEMS
    results._work.durations.saw(20_000.0)
    assert results._work.durations.items == 1


async def test_a_pool_that_a_signal_handler_kills_just_before_the_wait_for_an_item_ends_that_wait(
    template, monkeypatch
):
    async with aio.Pool(template, max_workers=1) as pool:
        results = pool.map(operator.neg, [1])
        found = []

        def look(work):
            found.append(item := AsyncMapItems.next(work))
            if len(found) == 2:
                pool.kill()
            return item

        monkeypatch.setattr(results._work, "next", partial(look, results._work))
        with anyio.fail_after(DEADLINE), pytest.raises(anyfork.CallCancelledError):
            await anext(results)


async def test_the_items_behind_a_long_one_count_as_withdrawn_when_the_map_is_closed(template, gate, monkeypatch):
    monkeypatch.setattr("anyfork._pools.worker_table.STALL", DEADLINE)
    file = gate.file
    async with aio.Pool(template, max_workers=1) as pool:
        async with pool.map(lambda item: item or jobs.wait(file), [*[1] * 600, 0, *[1] * 300]) as results:
            for _ in range(600):
                assert await anext(results) == 1
        gate.open()
    stats = pool.stats()
    assert stats.submitted == stats.answered + stats.withdrawn
