"""Nothing of ours grows without bound: a slow worker stops its callers, a slow owner stops its worker."""

from __future__ import annotations

import contextlib
import mmap
import operator
import os
import resource
import threading
import time
from collections import deque
from functools import partial

import anyio
import call_functions
import pytest
from call_makers import MAKERS
from conftest import eventually
from deadlines import DEADLINE
from owner_side import pipe, stopped

import anyfork
from anyfork import aio
from anyfork._calls import calls as _calls
from anyfork._calls import worker_channel
from anyfork._calls.call import State
from anyfork._calls.calls import Calls
from anyfork._calls.map import Batch
from anyfork._calls.worker_channel import sending
from anyfork._processes.undelivered import RETRY

pytestmark = pytest.mark.usefixtures("warm_templates")

PIECE = 1 << 20  # bytes
REFUSALS = 10
ENOUGH = 96 << 20  # bytes that no bounded queue holds


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def worker(request):
    with MAKERS[request.param]() as worker:
        yield worker.ready()


def resident(pid):
    """Return the bytes of a process that are in memory and its own: its heap, not files that it maps."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def test_a_worker_that_emits_without_end_waits_for_its_owner(worker):
    # 10,000 events of 60 kB are far more than the socket holds: none of them may wait in the worker.
    seen = []

    def look(event):
        if len(seen) < 20:
            seen.append(resident(worker.pid))

    before = resident(worker.pid)
    worker.call(call_functions.flood, 2000, 60_000, on_event=look)
    assert max(seen) < before + ENOUGH // 8


def test_an_owner_that_reads_events_keeps_none_of_them(worker):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worker.call(call_functions.flood, 4000, 60_000, on_event=len)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < ENOUGH


def test_a_stream_that_is_not_read_stops_its_generator(worker):
    before = resident(worker.pid)
    with worker.stream(call_functions.pieces, 1000, PIECE) as items:
        assert len(next(items)) == PIECE
        worker.call(call_functions.echo, 1)
        assert resident(worker.pid) < before + ENOUGH // 2


def test_a_long_map_holds_no_more_items_than_its_window(worker):
    taken = []

    def items():
        for number in range(10_000):
            taken.append(number)
            yield os.urandom(1000)

    results = worker.map(call_functions.echo, items(), window=50)
    for _ in range(500):
        next(results)
    assert len(taken) <= 550
    results.close()


def test_a_number_with_very_many_digits_is_sent_alone_so_that_its_size_counts_and_no_loop_writes_it():
    ahead = deque()
    made = Batch(Calls(), operator.neg, 8, ahead)
    (message,) = made.fill(iter([1, 1 << (1 << 24), 2, -(1 << 100)]))
    assert message.fills
    assert made._size > 1 << 21
    message.write_files()
    made.send()
    assert [answer.state for answer in ahead] == 4 * [State.SENT]
    made._calls.drop_out()


def test_callers_wait_where_too_many_calls_are_queued(monkeypatch):
    """Queue more calls than fit: none is encoded twice or lost, and all get results when the worker goes on."""
    monkeypatch.setattr(_calls, "MAX_CALLS", 3)
    with calling(range(20)) as (worker, results):
        eventually(lambda: len(worker._channel.calls._queue) == 3 and len(worker._channel._waiting) >= 18)
        assert worker._channel.calls.outstanding == 4
    assert sorted(results) == list(range(20))


def test_the_bytes_of_queued_calls_are_limited_too(monkeypatch):
    monkeypatch.setattr(_calls, "MAX_BYTES", 100_000)
    data = os.urandom(60_000)
    with calling([data] * 6) as (worker, results):
        eventually(lambda: len(worker._channel._waiting) == 5)
        assert len(worker._channel.calls._queue) == 2
    assert results == [data] * 6


@contextlib.contextmanager
def calling(values):
    """Stop a worker, and let a thread for each value have it echoed; it goes on afterwards, and all get results."""
    results = []
    with anyfork.Worker() as worker:
        worker.ready()
        threads = [
            threading.Thread(target=lambda value=value: results.append(worker.call(call_functions.echo, value)))
            for value in values
        ]
        with stopped(worker.pid):
            for thread in threads:
                thread.start()
            yield worker, results
        for thread in threads:
            thread.join(DEADLINE)


@pytest.mark.anyio
async def test_tasks_wait_where_too_many_calls_are_queued(monkeypatch):
    monkeypatch.setattr(_calls, "MAX_CALLS", 3)
    results = []
    async with aio.Worker() as worker:
        await worker.ready()

        async def call(number):
            results.append(await worker.call(call_functions.echo, number))

        async with anyio.create_task_group() as group:
            with stopped(worker.pid):
                for number in range(50):
                    group.start_soon(call, number)
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                assert worker._channel.calls.outstanding == 4
    assert sorted(results) == list(range(50))


@pytest.mark.anyio
async def test_a_worker_that_does_not_read_never_stops_the_loop():
    # Large arguments of several calls, to a worker that is stopped: other tasks go on.
    data = os.urandom(60_000)
    async with aio.Worker(concurrency=50) as worker:
        await worker.ready()
        results = []

        async def call():
            results.append(await worker.call(call_functions.echo_later, data))

        async with anyio.create_task_group() as group:
            with stopped(worker.pid):
                for _ in range(50):
                    group.start_soon(call)
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                assert results == []
                assert worker._channel.calls.out
    assert results == [data] * 50


def test_both_sides_flood_each_other(worker):
    # Large arguments and large results, many under way: neither waits for the other to read.
    data = os.urandom(60_000)
    for number, result in enumerate(worker.map(call_functions.flood_back, [data] * 300)):
        assert result == data, number


def test_calls_of_many_threads_get_their_own_results():
    with anyfork.Worker() as worker, pipe() as (read, write):
        results = {}

        def calls(thread):
            results[thread] = [worker.call(call_functions.echo, (thread, number)) for number in range(200)]

        threads = [threading.Thread(target=calls, args=(thread,)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert results == {thread: [(thread, number) for number in range(200)] for thread in range(16)}
        assert worker.call(call_functions.echo, read, write) == (read, write)


async def call_in_pool(pid):
    async with aio.Pool(aio.Template(), max_workers=1) as pool:
        assert await pool.call(os.getpid) != pid
        return await pool.call(operator.neg, 1)


def call_in_executor(pid):
    with anyfork.Executor(max_workers=1) as executor:
        assert executor.submit(os.getpid).result() != pid
        return executor.submit(operator.neg, 1).result()


def call_in_worker(pid, face):
    with MAKERS[face]() as worker:
        assert worker.call(os.getpid) != pid
        return worker.call(operator.neg, 1)


CALLS = {
    "worker": partial(call_in_worker, face="blocking"),
    "worker, asyncio": partial(call_in_worker, face="asyncio"),
    "worker, trio": partial(call_in_worker, face="trio"),
    "pool, asyncio": partial(anyio.run, call_in_pool, backend="asyncio"),
    "pool, trio": partial(anyio.run, call_in_pool, backend="trio"),
    "executor": call_in_executor,
}


@pytest.mark.parametrize("face", CALLS)
def test_a_call_that_the_kernel_has_no_memory_for_is_sent_later_and_its_owner_waits_meanwhile(face, monkeypatch):
    # The socket is writable all the time: an owner that only asked it would try again without a pause.
    tries = []

    def refused(*args):
        tries.append(time.monotonic())
        return sending(*args) if len(tries) > REFUSALS else map(mmap.mmap, (-1,), (1 << 62,))  # ENOMEM

    monkeypatch.setattr(worker_channel, "sending", refused)
    monkeypatch.setattr(worker_channel.WorkerChannel, "begin_small", lambda *_: False)
    assert CALLS[face](os.getpid()) == -1
    assert tries[REFUSALS] - tries[0] >= RETRY * REFUSALS / 4  # a wait may end a little early, and some tries are pairs
