"""Workers run functions that take much data with them, in each operation and with each serializer."""

from __future__ import annotations

import logging
import os

import pytest
from call_makers import MAKERS
from conftest import eventually
from large_functions import FUNCTIONS, of_a_closure, of_a_global, of_a_global_array

import anyfork

pytestmark = pytest.mark.usefixtures("warm_templates")

NUMBERS = list(range(5))


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def new_worker(request):
    return MAKERS[request.param]


def memory_files():
    """Return how many files in memory a process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += "memfd:anyfork" in os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of listdir itself
            continue
    return found


def test_a_worker_runs_functions_with_large_data_of_every_kind(new_worker):
    with new_worker() as worker:
        for make in FUNCTIONS.values():
            assert list(worker.map(make(), NUMBERS)) == NUMBERS, make.__name__
            assert worker.call(make(), 3) == 3, make.__name__
    with new_worker(concurrency=4) as worker:
        for make in (of_a_closure, of_a_global_array):
            assert list(worker.map(make(), NUMBERS)) == NUMBERS
            assert worker.call(make(), 3) == 3


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_other_serializers_do_not_stand_in_the_way_of_large_functions(new_worker, serializer):
    with new_worker(serializer=serializer) as worker:
        for make in (of_a_closure, of_a_global_array):
            assert list(worker.map(make(), NUMBERS)) == NUMBERS
            assert worker.call(make(), 3) == 3


def test_a_stream_may_have_a_large_function(new_worker):
    data = bytes(range(256)) * 1000

    def some(first):
        yield from data[first : first + 3]

    with new_worker() as worker:
        assert list(worker.stream(some, 1)) == [1, 2, 3]


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_map_takes_its_function_at_the_beginning(new_worker, serializer):
    data = bytearray(100_000)
    with new_worker(serializer=serializer) as worker:
        found = worker.map(lambda number: data[number], range(300), window=4)
        data[:] = b"x" * len(data)
        assert set(found) == {0}
        assert set(worker.map(lambda number: data[number], range(300), window=4)) == {ord("x")}


def test_a_map_sends_its_function_once_and_the_worker_forgets_it(new_worker):
    before = memory_files()
    with new_worker() as worker:
        assert worker.call(memory_files) == 0
        found = worker.map(of_a_global_array(), iter(range(200)), window=4)
        assert next(found) == 0
        assert memory_files() == before + 1
        assert list(found) == list(range(1, 200))
        found.close()
        del found
        eventually(lambda: memory_files() == before)
        assert worker.call(functions_kept) == 0


def functions_kept():
    """Return how many functions by value this worker keeps."""
    from _anyfork_child.wire import emitter

    return sum(number >= 1 << 24 for number in emitter.current.functions)


def test_maps_of_equal_functions_may_go_on_at_the_same_time(new_worker):
    with new_worker() as worker:
        first, second = (worker.map(of_a_closure(), range(100), window=3) for _ in range(2))
        assert next(first) == next(second) == 0
        first.close()
        del first
        assert list(second) == list(range(1, 100))


def test_a_function_that_cannot_be_decoded_is_the_error_of_each_of_its_calls(new_worker):
    class Bad:
        def __init__(self):
            self.data = of_a_global()

        def __reduce__(self):
            return int, ("no number", len(self.data.__globals__["TABLE"]))

    bad = Bad()
    with new_worker() as worker:
        for _ in range(2):
            with pytest.raises(anyfork.ArgumentDecodeError):
                list(worker.map(lambda number: bad, NUMBERS))
        assert list(worker.map(of_a_global(), NUMBERS)) == NUMBERS


def test_a_function_that_takes_more_than_10_megabytes_is_told_once_in_the_log(new_worker, caplog):
    table = bytes(11 << 20)

    def look_up(number):
        return table[number]

    with caplog.at_level(logging.WARNING, "anyfork"), new_worker() as worker:
        for _ in range(2):
            assert list(worker.map(look_up, NUMBERS)) == [0] * len(NUMBERS)
    (record,) = [record for record in caplog.records if record.name == "anyfork"]
    text = record.getMessage()
    assert "look_up takes 12 MB" in text
    assert "the closure's 'table'" in text
    assert "template.prepare" in text
