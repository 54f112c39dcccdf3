"""Jobs with large data are sent to one worker at a time, taken back, cancelled, and never lost."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent import futures

import pytest
from conftest import eventually
from executor_functions import Block, say_pid_and_wait

from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import SMALL_CALL
from anyfork import CallTimeoutError, Executor
from anyfork._pools.encoder import JobEncoder
from anyfork._pools.jobs import EncodedJob, write_files
from anyfork._pools.worker_queue import JobCalls
from anyfork._system.import_path import ORDINARY

SOON = 20.0  # seconds: a deadline, for what is there at once
ROUNDS = 3


def blocks():
    return [Block(bytearray(100_000 + number)) for number in range(40)]


def test_no_job_is_lost_whose_arguments_have_large_buffers():
    for _ in range(ROUNDS):
        with Executor(max_workers=2) as executor:
            jobs = [executor.submit(len, block) for block in blocks()]
            assert [job.result(SOON) for job in jobs] == list(range(100_000, 100_040))


def test_no_item_of_a_map_is_lost_that_has_large_buffers():
    for _ in range(ROUNDS):
        with Executor(max_workers=2) as executor:
            assert list(executor.map(len, blocks())) == list(range(100_000, 100_040))


def test_no_job_is_lost_whose_function_has_large_data():
    table = Block(bytearray(range(256)) * 1000)

    def look_up(number):
        return table.data[number]

    for _ in range(ROUNDS):
        with Executor(max_workers=2, min_idle=2) as executor:
            jobs = [executor.submit(look_up, number) for number in range(40)]
            assert [job.result(SOON) for job in jobs] == list(range(40))


def test_a_descriptor_is_open_as_long_as_a_message_can_be_sent_with_it():
    message = Message(b"")
    fd = message.add_file([b"content"], 7)
    message.write_files()
    message.fds = [fd]
    other = message.again(b"header")
    message.close()
    message.close()
    assert os.fstat(fd).st_size == 7
    assert (message.fds, other.fds) == ((), [fd])
    other.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_job_that_was_taken_back_leaves_nothing_in_the_queue_of_its_worker():
    encoder = JobEncoder("submit", None, ORDINARY)
    calls = JobCalls("Pool", None, ORDINARY)
    first, second = (encoder.encode(len, (Block(bytearray(100_000)),)) for _ in range(2))
    write_files(first)
    write_files(second)
    first, second = EncodedJob(first), EncodedJob(second)
    calls.queue_jobs([first, second, EncodedJob(encoder.encode(abs, (1,)))])
    calls.write()
    numbers = {job: number for number, job in calls.jobs.items()}
    assert calls.taken_back([numbers[second]]) == ([second], [])
    assert [bool(message.fds) for message in calls.out] == [False, True, False]  # the function, one, and the small one
    first.release()
    calls.drop_out()
    assert second.kind != SMALL_CALL
    assert second.body.fds
    second.release()


# --- cancel -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[3, 200_000], ids=["small", "large"])
def taken_back(request, pipes):
    """Yield an Executor whose only worker does not come back, and futures whose jobs it has had and has not begun."""
    gate, start, told, tell = pipes
    with Executor(max_workers=1) as executor:
        for _ in range(8):  # jobs are known to be quick, and the worker is given many
            executor.submit(abs, 1).result(SOON)
        first = executor.submit(say_pid_and_wait, tell, gate)
        behind = [executor.submit(len, b"x" * request.param) for _ in range(30)]
        told.readline()
        eventually(lambda: executor.stats().queued == len(behind))
        yield executor, behind
        start.write(b"\n")
        first.result(SOON)
    assert all(future.done() for future in behind)


def test_a_job_that_was_taken_back_from_its_worker_can_be_cancelled(taken_back):
    executor, behind = taken_back
    calls = []
    behind[0].add_done_callback(calls.append)
    assert [future.cancel() for future in behind] == [True] * len(behind)
    assert futures.wait(behind, SOON).not_done == set()
    assert calls == [behind[0]]
    assert behind[0].cancel()
    with pytest.raises(futures.CancelledError):
        behind[0].result(SOON)


def test_a_job_that_was_taken_back_is_cancelled_by_shutdown(taken_back):
    executor, behind = taken_back
    executor.shutdown(wait=False, cancel_futures=True)
    assert futures.wait(behind, SOON).not_done == set()
    assert all(future.cancelled() for future in behind)


def test_a_job_that_was_taken_back_is_cancelled_with_a_task(taken_back):
    _, behind = taken_back

    async def main():
        wrapped = [asyncio.wrap_future(future) for future in behind]
        for one in wrapped:
            one.cancel()
        await asyncio.wait(wrapped, timeout=SOON)

    asyncio.run(main())
    assert all(future.cancelled() for future in behind)


@pytest.mark.parametrize("size", [3, 200_000], ids=["small", "large"])
def test_a_job_that_was_sent_ahead_and_has_not_begun_can_be_cancelled(size, pipes):
    gate, start, told, tell = pipes
    with Executor(max_workers=1, load=30) as executor:
        first = executor.submit(say_pid_and_wait, tell, gate)
        behind = [executor.submit(len, b"x" * size) for _ in range(20)]
        told.readline()
        eventually(lambda: executor.stats().sent > 1)  # the socket does not take all large ones
        assert [future.cancel() for future in behind[1::2]] == [True] * 10
        assert not first.cancel()
        start.write(b"\n")
        assert first.result(SOON)
        assert [future.result(SOON) for future in behind[::2]] == [size] * 10
        assert executor.stats().answered == 11


def test_items_of_a_map_that_were_sent_ahead_are_cancelled_when_it_is_closed(pipes):
    gate, start, told, tell = pipes
    with Executor(max_workers=1, load=30) as executor:
        results = executor.map(say_pid_and_wait, [tell] * 4, [gate] * 4)
        told.readline()
        start.write(b"\n")
        next(results)
        told.readline()
        results.close()
        eventually(lambda: executor.stats().withdrawn)
        start.write(b"\n")
        assert executor.submit(abs, -1).result(SOON) == 1  # otherwise the next item would wait at the gate


@pytest.mark.parametrize("size", [3, 200_000], ids=["small", "large"])
def test_cancel_says_yes_or_no_at_every_moment(size):
    with Executor(max_workers=2) as executor:
        found = [executor.submit(len, b"x" * size) for _ in range(60)]
        answers = [future.cancel() for future in found]
    assert [future.cancelled() for future in found] == answers
    assert all(future.done() for future in found)


def test_a_job_that_is_done_when_its_time_is_over_does_not_end_the_next_one(pipes, other_pipes, monkeypatch):
    gate, start, told, tell = pipes
    other_gate, other_start, other_told, other_tell = other_pipes
    with Executor(max_workers=1, load=3) as executor:
        first = executor.options(timeout=600).submit(say_pid_and_wait, tell, gate)
        told.readline()
        second = executor.submit(say_pid_and_wait, other_tell, other_gate)
        third = executor.submit(os.getpid)
        dispatcher = executor._dispatcher
        eventually(lambda: executor.stats().sent == 2)
        with dispatcher.lock:
            start.write(b"x")
            other_told.readline()  # the worker has begun the second job; nobody has seen the answer of the first
            monkeypatch.setattr("anyfork._pools.pool.monotonic", lambda: time.monotonic() + 3600)
            dispatcher.decide()
            monkeypatch.undo()
        with pytest.raises(CallTimeoutError):
            first.result(SOON)
        other_start.write(b"x")
        assert second.result(SOON) == third.result(SOON)
        assert executor.stats().died == 0
