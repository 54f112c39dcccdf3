"""Pools keep a function that takes much data with it once, and give it to each worker once."""

from __future__ import annotations

import logging
import os
from concurrent import futures

import pytest
from conftest import eventually
from large_functions import FUNCTIONS, of_a_closure, of_a_global_array, of_a_list, of_a_method

import anyfork
from anyfork import Executor, aio

SOON = 20.0  # seconds: a deadline, for what is there at once
NUMBERS = list(range(5))


def memory_files():
    """Return how many bytes are in the files in memory that this process has open, and how many files."""
    sizes = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:anyfork" in os.readlink(f"/proc/self/fd/{name}"):
                sizes.append(os.stat(f"/proc/self/fd/{name}").st_size)
        except OSError:  # the descriptor of listdir itself
            continue
    return len(sizes)


@pytest.fixture
def executor():
    with Executor(max_workers=2) as executor:
        yield executor


def test_an_executor_runs_functions_with_large_data_of_every_kind(executor):
    for make in FUNCTIONS.values():
        assert list(executor.map(make(), NUMBERS)) == NUMBERS, make.__name__
        assert list(executor.map(make(), NUMBERS, chunksize=2)) == NUMBERS, make.__name__
        assert executor.submit(make(), 3).result(SOON) == 3, make.__name__


def test_keyword_arguments_go_to_a_large_function(executor):
    data = bytearray(100_000)

    def look_up(number, *, more):
        return len(data) + number + len(more)

    found = [executor.submit(look_up, number, more=b"x" * 100_000) for number in range(3)]
    found += [executor.submit(look_up, number, more=b"x") for number in range(3)]
    assert [one.result(SOON) for one in found] == [200_000, 200_001, 200_002, 100_001, 100_002, 100_003]
    with pytest.raises(TypeError):
        executor.submit(look_up, 1, other=2).result(SOON)


def test_items_that_are_large_go_to_a_large_function(executor):
    add = of_a_closure()

    def weigh(item):
        return len(item) + add(1)

    items = [bytearray(100_000 + number) for number in range(4)]
    assert list(executor.map(weigh, items)) == [100_001, 100_002, 100_003, 100_004]
    assert list(executor.map(weigh, items, chunksize=3)) == [100_001, 100_002, 100_003, 100_004]


def test_submit_takes_the_data_of_its_function_at_each_call(executor):
    data = bytearray(100_000)
    found = []
    for number in range(3):
        data[0] = number
        found += [executor.submit(lambda: data[0]) for _ in range(5)]
    assert [one.result(SOON) for one in found] == [0] * 5 + [1] * 5 + [2] * 5


def test_a_job_of_a_large_function_does_not_see_what_another_one_has_changed(executor):
    data = bytearray(100_000)

    def count():
        data[0] += 1
        return data[0]

    assert [one.result(SOON) for one in [executor.submit(count) for _ in range(10)]] == [1] * 10


@pytest.mark.parametrize("make", [of_a_closure, of_a_global_array, of_a_list, of_a_method])
def test_a_queue_holds_a_large_function_once(pipes, make):
    gate, start, _, _ = pipes
    before = memory_files()
    with Executor(max_workers=1) as executor:
        first = executor.submit(gate_read, gate)
        waiting = [executor.submit(make(), number % 5) for number in range(300)]
        assert memory_files() <= before + 2
        start.write(b"x")
        first.result(SOON)
        assert [one.result(SOON) for one in waiting] == NUMBERS * 60
        assert futures.wait(waiting, SOON).not_done == set()
        del waiting
        executor.submit(abs, 1).result(SOON)
        assert memory_files() == before


def gate_read(gate):
    return gate.read(1)


def test_the_items_of_a_map_share_a_large_function(executor):
    before = memory_files()
    found = executor.map(of_a_global_array(), range(1000))
    assert memory_files() <= before + 1
    assert list(found) == list(range(1000))


def test_workers_forget_the_functions_of_maps_that_are_over():
    with Executor(max_workers=1) as executor:
        for _ in range(3):
            assert list(executor.map(of_a_closure(), NUMBERS)) == NUMBERS
        eventually(lambda: executor.submit(functions_kept).result(SOON) == 0)


def functions_kept():
    """Return how many functions by value this worker keeps."""
    from _anyfork_child.wire import emitter

    return sum(number >= 1 << 24 for number in emitter.current.functions)


def test_a_function_that_takes_more_than_10_megabytes_is_told_once_in_the_log(executor, caplog):
    table = bytearray(11 << 20)

    def look_up(number):
        return table[number]

    with caplog.at_level(logging.WARNING, "anyfork"):
        assert list(executor.map(look_up, NUMBERS)) == [0] * len(NUMBERS)
        assert [executor.submit(look_up, 1).result(SOON) for _ in range(2)] == [0, 0]
    (record,) = [record for record in caplog.records if record.name == "anyfork"]
    assert "look_up takes 12 MB" in record.getMessage()


def test_a_function_that_cannot_travel_is_an_error_of_the_map(executor):
    data, lock = bytearray(100_000), __import__("threading").Lock()
    with pytest.raises(anyfork.ArgumentError, match="map"):
        executor.map(lambda number: (data, lock), NUMBERS)
    with pytest.raises(anyfork.ArgumentError):
        executor.submit(lambda number: (data, lock), 1).result(SOON)


# --- aio.Pool ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("options", [{}, {"serializer": "json"}, {"concurrency": 3}])
async def test_a_pool_runs_functions_with_large_data(template, options):
    before = memory_files()
    async with aio.Pool(template, max_workers=2, **options) as pool:
        for make in (of_a_closure, of_a_global_array, of_a_list, of_a_method):
            assert [one async for one in pool.map(make(), NUMBERS)] == NUMBERS
            assert await pool.call(make(), 3) == 3
        assert await pool.call(functions_kept) <= 1
    assert memory_files() == before


@pytest.mark.anyio
async def test_a_pool_keeps_a_large_function_once(template, tasks):
    from pool_side import ask

    before = memory_files()
    async with aio.Pool(template, max_workers=1) as pool:
        data = bytearray(100_000)
        asked = [ask(tasks, pool.call, lambda number: data[number], number) for number in range(50)]
        files = []
        for one in asked:
            files.append(memory_files())
            assert await one.outcome() == 0
        assert max(files) <= before + 1
        found = pool.map(of_a_global_array(), range(300))
        assert memory_files() <= before + 2
        assert [one async for one in found] == list(range(300))
