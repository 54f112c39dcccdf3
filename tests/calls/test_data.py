"""Large data: beside the messages, without copies, and gone with the last that looks at it."""

from __future__ import annotations

import gc
import operator
import os
import sys

import call_functions
import numpy as np
import pyarrow as pa
import pytest
from call_makers import MAKERS
from conftest import descriptors, eventually

import anyfork
from _anyfork_child.values.message import Message

pytestmark = pytest.mark.usefixtures("warm_templates")

MAPPED = 4 << 20  # bytes: above what is read instead of mapped


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def worker(request):
    with MAKERS[request.param]() as worker:
        yield worker


@pytest.mark.parametrize(
    "value",
    [0, -1, 1 << 40, -(1 << 5000), 1.5, -0.0, float("inf"), True, None, 1 - 2j, 1 << (1 << 20), 1 << (1 << 24)],
    ids=lambda value: type(value).__name__,
)
def test_scalars_of_any_size_go_and_come(worker, value):
    sent = operator.add(value, 0) if type(value) is int else value  # not the same object
    found = [worker.call(call_functions.echo, sent), *worker.map(call_functions.echo, [sent, sent])]
    with anyfork.Executor(max_workers=1) as executor:
        found += [executor.submit(call_functions.echo, sent).result(), *executor.map(call_functions.echo, [sent])]
    assert found == [value] * 5
    assert {type(one) for one in found} == {type(value)}
    if not isinstance(value, int):
        assert {repr(one) for one in found} == {repr(value)}


def test_a_nan_is_still_one(worker):
    assert str(worker.call(call_functions.echo, float("nan"))) == "nan"


def maps():
    """Return how many files in memory are mapped here."""
    return call_functions.memory_maps()


@pytest.mark.parametrize("size", [1 << 10, (1 << 16) - 8, 1 << 16, (1 << 16) + 8, 1 << 20, (1 << 20) + 8, MAPPED])
def test_arrays_go_and_come(worker, size):
    array = np.arange(size // 8, dtype=np.int64)
    found = worker.call(call_functions.echo, array)
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype


def test_an_array_may_be_written_to_on_both_sides_and_nobody_else_sees_it(worker):
    array = np.ones(MAPPED // 8)
    found = worker.call(call_functions.double, array)
    assert (found == 2).all()
    assert (array == 1).all()
    found += 1
    assert (found == 3).all()


def test_several_arrays_of_all_kinds(worker):
    arrays = {
        "columns": np.asfortranarray(np.arange(1 << 16).reshape(256, 256)),
        "every other": np.arange(1 << 18)[::2],
        "read only": np.frombuffer(bytes(1 << 17), dtype=np.uint8),
        "records": np.zeros(1 << 14, dtype=[("a", "i8"), ("b", "f8")]),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "empty": np.zeros((0, 5)),
    }
    found = worker.call(call_functions.echo, arrays)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array), name


def test_more_arrays_than_may_travel_beside(worker):
    arrays = [np.full(1 << 14, number) for number in range(100)]
    found = worker.call(call_functions.echo, arrays)
    assert all(np.array_equal(one, other) for one, other in zip(found, arrays, strict=True))


def test_arrow_tables(worker):
    table = pa.table({"number": np.arange(1 << 18), "text": ["some"] * (1 << 18)})
    assert worker.call(call_functions.echo, table).equals(table)


def test_bytes_and_bytearrays(worker):
    for data in (bytes(MAPPED), bytearray(MAPPED), [bytes(MAPPED), bytearray(1 << 17)]):
        assert worker.call(call_functions.echo, data) == data


def test_arrays_are_mapped_and_the_memory_goes_with_the_last_view(worker):
    worker.ready()
    before, open_before = maps(), len(descriptors())
    found = worker.call(operator.mul, np.ones(MAPPED // 8), 2)
    assert maps() == before + 1
    view = found[10:20]
    del found
    gc.collect()
    assert maps() == before + 1
    assert (view == 2).all()
    del view
    eventually(lambda: gc.collect() >= 0 and maps() == before)
    assert len(descriptors()) <= open_before


def test_in_the_worker_too(worker):
    assert worker.call(call_functions.hold, np.ones(MAPPED // 8)) == 1
    assert worker.call(call_functions.hold, np.ones(MAPPED // 8)) == 2
    assert worker.call(call_functions.let_go) == 0


def test_a_stream_of_arrays_holds_no_more_than_is_looked_at(worker):
    before = maps()
    worker.call("builtins:exec", "import numpy")
    for number, array in enumerate(worker.stream(lambda: (np.full(MAPPED // 8, n) for n in range(30)))):
        assert (array == number).all()
        assert maps() <= before + 2
        del array
    eventually(lambda: gc.collect() >= 0 and maps() == before)


def test_events_carry_arrays(worker):
    said = []
    worker.call("_anyfork_child.wire.emitter:emit", np.arange(1 << 18), on_event=said.append)
    assert np.array_equal(said[0], np.arange(1 << 18))


def test_one_call_too(tmp_path):
    array = np.arange(1 << 20)
    assert np.array_equal(anyfork.call(operator.mul, array, 2), array * 2)


# Elsewhere there is a file on a disk in the place of one in memory, and nothing to seal.
@pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
def test_what_is_sent_is_sealed():
    sent = Message(b"")
    fd = sent.add_file([b"content"], 7)
    sent.write_files()
    with open(os.dup(fd), "r+b", 0) as file, pytest.raises(PermissionError):
        file.write(b"other")
    sent.close()


def test_without_files_in_memory_shared_ones_do(monkeypatch, worker):
    monkeypatch.delattr("os.memfd_create")
    array = np.arange(MAPPED // 8)
    assert np.array_equal(worker.call(call_functions.echo, array), array)
    assert worker.call(call_functions.echo, bytes(MAPPED)) == bytes(MAPPED)


def test_what_does_not_fit_into_memory_is_an_error_of_the_call(monkeypatch, worker):
    def full(fd, data):
        raise OSError(28, "No space left on device")

    worker.ready()
    before = len(descriptors())
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(OSError, match="No space left"):
            worker.call(call_functions.echo, np.ones(MAPPED // 8))
    assert len(descriptors()) <= before
    assert worker.call(call_functions.echo, 1) == 1
