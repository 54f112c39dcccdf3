"""anyfork.Executor keeps the contract of concurrent.futures, and what it promises beyond that."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import operator
import os
import queue
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError

import call_functions
import executor_functions
import pytest
from conftest import descendants, eventually, eventually_freed

import anyfork
from anyfork import Executor, Template

SOON = 20.0  # seconds: a deadline, for what is there at once


@pytest.fixture
def executor():
    with Executor(max_workers=2) as executor:
        yield executor


@pytest.fixture
def pipe():
    """Yield both ends of a pipe as files, and close them at the end."""
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as reading, os.fdopen(write, "wb", 0) as writing:
        yield reading, writing


@pytest.fixture
def other_pipe(pipe):
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as reading, os.fdopen(write, "wb", 0) as writing:
        yield reading, writing


def line(reading):
    """Return the next line from a pipe of which each write is a line."""
    found = b""
    while not found.endswith(b"\n"):
        found += os.read(reading.fileno(), 1)
    return int(found)


# --- submit -----------------------------------------------------------------------------------------------------


def test_what_is_submitted_runs_in_another_process(executor):
    assert executor.submit(os.getpid).result(SOON) != os.getpid()
    assert executor.submit(pow, 2, 8).result(SOON) == 256


def test_keyword_arguments_are_all_the_functions(executor):
    given = {"self": 1, "fn": 2, "function": 3, "timeout": 4, "priority": 5}
    assert executor.submit(executor_functions.capture, 0, **given).result(SOON) == ((0,), given)
    found = executor.submit(executor_functions.capture, a=executor_functions.Odd(1)).result(SOON)
    assert found == ((), {"a": executor_functions.Odd(1)})
    with pytest.raises(TypeError):
        executor.submit(fn=pow)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        b"bytes",
        [1, (2, {"three": {4}})],
        {"a": [1.5, None]},
        bytearray(b"x"),
        "long" * 50_000,
        b"x" * 3_000_000,
        executor_functions.Odd([1]),
        [executor_functions.Odd(2)] * 3,
        math.inf,
        len,
        executor_functions.Odd,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_arrive_and_come_back_as_they_are(executor, value):
    assert executor.submit(call_functions.echo, value).result(SOON) == value


def test_functions_of_every_kind(executor):
    factor = 3
    submit = executor.submit
    assert submit(lambda value: factor * value, 2).result(SOON) == 6
    assert submit("executor_functions:odd", 2).result(SOON) == executor_functions.Odd(2)
    assert submit(executor_functions.Odd(4).doubled).result(SOON) == 8
    assert submit(str.upper, "a").result(SOON) == "A"
    assert submit(executor_functions.Odd, 1).result(SOON) == executor_functions.Odd(1)


def test_a_closure_that_changes_is_sent_anew(executor):
    value = 0

    def current():
        return value

    found = []
    for value in (1, 1, 1, 2, 2, 3):  # noqa: B007  # the closure sees it
        found.append(executor.submit(current).result(SOON))  # noqa: PERF401  # the variable is the closure's
    assert found == [1, 1, 1, 2, 2, 3]


def test_a_list_in_a_closure_is_sent_as_it_is_now(executor):
    values = []

    def count():
        return len(values)

    found = []
    for _ in range(4):
        values.append(0)
        found.append(executor.submit(count).result(SOON))
    assert found == [1, 2, 3, 4]


def test_what_a_function_raises_comes_with_its_traceback(executor):
    with pytest.raises(call_functions.PlainError, match="no luck") as raised:
        executor.submit(call_functions.fail).result(SOON)
    assert "in fail" in str(raised.value.__cause__)


def test_what_cannot_travel_is_the_error_of_its_future_alone(executor):
    for bad in (threading.Lock(), call_functions.Unpicklable()):
        error = executor.submit(call_functions.echo, bad).exception(SOON)
        assert isinstance(error, anyfork.ArgumentError)
        assert isinstance(error, PicklingError)
        assert "argument 1 of submit()" in str(error)
    assert executor.submit(pow, 2, 3).result(SOON) == 8


@pytest.mark.parametrize("options", [{}, {"buffersize": 1}, {"chunksize": 2}], ids=str)
def test_what_cannot_travel_is_a_pickling_error_of_a_map_too(executor, options):
    lock = threading.Lock()
    for function, items in ((call_functions.echo, [1, lock]), (lambda _: lock, [1])):
        with pytest.raises(anyfork.ArgumentError) as raised:
            list(executor.map(function, items, **options))
        assert isinstance(raised.value, PicklingError)


def test_what_cannot_be_decoded_is_the_error_of_its_future_alone(executor):
    pid = executor.submit(os.getpid).result(SOON)
    with pytest.raises(anyfork.ArgumentDecodeError, match="this does not want to arrive"):
        executor.submit(call_functions.echo, call_functions.Undecodable()).result(SOON)
    for function in (call_functions.undecodable, executor_functions.exits_when_decoded):
        with pytest.raises(anyfork.ResultError, match="cannot be decoded here"):
            executor.submit(function).result(SOON)
    with pytest.raises(anyfork.ResultError) as raised:
        executor.submit(call_functions.unpicklable).result(SOON)
    assert isinstance(raised.value, PicklingError)
    assert executor.submit(os.getpid).result(SOON) == pid


def test_the_end_of_a_program_is_the_end_of_its_job_alone(executor):
    pid = executor.submit(os.getpid).result(SOON)
    with pytest.raises(SystemExit):
        executor.submit(call_functions.leave, 3).result(SOON)
    assert executor.submit(os.getpid).result(SOON) == pid


def test_what_is_no_function_is_refused_at_once(executor):
    with pytest.raises(TypeError, match=r"submit\(\) needs a function or 'module:name', not int"):
        executor.submit(5)
    with pytest.raises(TypeError, match=r"map\(\) needs a function"):
        executor.map(5, [1])
    with pytest.raises(anyfork.FunctionNotFoundError):
        executor.submit("executor_functions:not_there").result(SOON)


def test_functions_that_change_go_to_a_map_as_they_are(executor):
    values = [1]
    first = executor.map(lambda x: x + len(values), range(100))
    assert list(first) == list(range(1, 101))
    values.append(2)
    assert list(executor.map(lambda x: x + len(values), range(100))) == list(range(2, 102))


def test_more_functions_than_have_numbers():
    with Executor(max_workers=1) as executor:
        made = [executor.submit(eval(f"lambda x: x + {n}"), 1) for n in range(1100) for _ in range(2)]
        assert [future.result(SOON) for future in made[::2]] == [n + 1 for n in range(1100)]
        assert executor.submit(operator.neg, 1).result(SOON) == -1


def test_an_initializer_may_ignore_ctrl_c():
    with Executor(max_workers=1, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as executor:
        pid = executor.submit(os.getpid).result(SOON)
        os.kill(pid, signal.SIGINT)
        assert executor.submit(os.kill, pid, signal.SIGINT).result(SOON) is None
        assert executor.submit(os.getpid).result(SOON) == pid


# --- Futures ----------------------------------------------------------------------------------------------------


def test_a_job_that_waits_can_be_cancelled_and_one_that_runs_cannot(pipe, other_pipe):
    with Executor(max_workers=1) as executor:
        running = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        line(pipe[0])
        waiting = executor.submit(pow, 2, 2)
        assert waiting.cancel()
        assert waiting.cancelled()
        assert running.running()
        assert not running.cancel()
        assert futures.wait([waiting], SOON).done == {waiting}
        with pytest.raises(futures.CancelledError):
            waiting.result(SOON)
        os.write(other_pipe[1].fileno(), b"x")
        running.result(SOON)
        assert executor.stats().withdrawn == 1


def test_results_are_there_in_the_order_in_which_they_come(executor, pipe, other_pipe):
    late = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
    early = executor.submit(pow, 1, 1)
    done = futures.as_completed([late, early], SOON)
    assert next(done) is early
    assert futures.wait([late, early], SOON, futures.FIRST_COMPLETED).done == {early}
    with pytest.raises(TimeoutError):
        late.result(0)
    os.write(other_pipe[1].fileno(), b"x")
    assert next(done) is late


def test_callbacks_may_submit_and_shut_down():
    executor = Executor(max_workers=1)
    seen = []
    ended = threading.Event()

    def second(future):
        seen.append(future.result())
        executor.shutdown()
        ended.set()

    def first(future):
        seen.append(future.result())
        executor.submit(pow, 3, 2).add_done_callback(second)

    executor.submit(pow, 2, 2).add_done_callback(first)
    assert ended.wait(SOON)
    executor.shutdown()
    assert seen == [4, 9]


def test_a_callback_that_raises_is_logged_and_harms_nobody(executor, caplog):
    future = executor.submit(pow, 2, 2)
    future.add_done_callback(lambda _: 1 / 0)
    assert future.result(SOON) == 4
    assert executor.submit(pow, 2, 3).result(SOON) == 8
    eventually(lambda: "ZeroDivisionError" in caplog.text)


def test_loops_use_it_as_an_executor(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, 2, n) for n in range(100)))

    assert asyncio.run(main()) == [2**n for n in range(100)]


def test_any_number_of_threads_may_submit(executor):
    found = Counter()
    lock = threading.Lock()

    def use(number):
        jobs = [executor.submit(operator.add, number, n) for n in range(100)]
        mapped = list(executor.map(operator.neg, range(100)))
        with lock:
            found.update(future.result(SOON) for future in jobs)
            found.update(mapped)

    threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = Counter(1000 * n + m for n in range(1, 9) for m in range(100))
    expected.update({-m: 8 for m in range(100)})
    assert found == expected


# --- map --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_a_map_gives_the_results_in_order(executor, chunksize):
    assert list(executor.map(pow, range(100), range(99), chunksize=chunksize)) == list(map(pow, range(100), range(99)))
    odd = list(executor.map(executor_functions.odd, map(executor_functions.Odd, range(20)), chunksize=chunksize))
    assert odd == [executor_functions.Odd(executor_functions.Odd(n)) for n in range(20)]
    assert list(executor.map(lambda x: x + 1, range(20), chunksize=chunksize)) == list(range(1, 21))
    assert list(executor.map(pow, [], [], chunksize=chunksize)) == []


def test_a_map_takes_items_of_all_sizes(executor):
    items = ["x" * (1 << shift) for shift in range(22)] + [b"y", 1, None, [1], executor_functions.Odd(1)] * 50
    assert list(executor.map(call_functions.echo, items)) == items


def test_a_map_raises_where_the_function_has(executor):
    found = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(found) == (0, 1)
    assert next(found) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(found)
    with pytest.raises(anyfork.ArgumentError):
        executor.map(call_functions.echo, [1, threading.Lock()])
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(pow, [1], [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(pow, [1], [1], buffersize=0)
    for wrong in ("1", 2.0):
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            executor.map(pow, [1], [1], buffersize=wrong)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_a_map_may_return_exceptions_in_place_of_results(executor, chunksize):
    long = "x" * 2000  # an item that is sent alone
    got = list(executor.map(int, ["1", "two", "3", long], chunksize=chunksize, return_exceptions=True))
    assert got[::2] == [1, 3]
    assert [type(error) for error in got[1::2]] == [ValueError] * 2
    with pytest.raises(SystemExit):
        list(executor.map(call_functions.leave, [3], return_exceptions=True))


def test_a_map_may_give_results_as_they_are_done(pipe):
    with anyfork.Executor(max_workers=2) as executor:
        found = executor.map(executor_functions.read_or_return, [pipe[0], 1, 2, 3], ordered=False)
        assert sorted(next(found) for _ in range(3)) == [1, 2, 3]
        pipe[1].write(b"x")
        assert next(found) == b"x"
        with pytest.raises(StopIteration):
            next(found)
    with anyfork.Executor(max_workers=2) as executor:
        for options in ({}, {"chunksize": 3}, {"buffersize": 4}):
            assert sorted(executor.map(operator.neg, range(50), ordered=False, **options)) == list(range(-49, 1))


def test_a_map_has_a_deadline(executor, pipe):
    found = executor.map(call_functions.wait_for, [pipe[0]], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(found)
    pipe[1].write(b"x")


def test_a_map_collects_its_items_at_once_or_as_they_are_wanted(executor):
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    found = executor.map(operator.neg, items())
    assert len(taken) == 1000
    assert list(found) == [-n for n in range(1000)]
    taken.clear()
    found = executor.map(operator.neg, items(), buffersize=10)
    assert len(taken) == 10
    assert [next(found) for _ in range(5)] == [0, -1, -2, -3, -4]
    assert 13 <= len(taken) <= 15  # at most ten are under way
    assert list(found) == [-n for n in range(5, 1000)]


def test_results_that_came_before_the_shutdown_are_taken_before_further_items_are_refused():
    with anyfork.Executor(max_workers=1) as executor:
        found = executor.map(operator.neg, range(10), buffersize=4)
        assert next(found) == 0
    got = []
    with pytest.raises(RuntimeError, match="after shutdown"):
        got.extend(found)
    assert got == [-1, -2, -3, -4]


def test_a_map_that_is_given_up_does_not_go_on(pipe, other_pipe, tmp_path):
    path = str(tmp_path / "done")
    with Executor(max_workers=1) as executor:
        running = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        line(pipe[0])
        found = executor.map(executor_functions.append, [path] * 100, range(100))
        next_of = threading.Thread(target=lambda: next(found, None))
        next_of.start()
        os.write(other_pipe[1].fileno(), b"x")
        running.result(SOON)
        next_of.join()
        found.close()
    assert len((tmp_path / "done").read_text().split()) <= 100


def test_a_map_keeps_no_result_that_was_taken(executor):
    for found in executor.map(executor_functions.odd, range(20)):
        gone = weakref.ref(found)
        del found
        eventually_freed(
            lambda gone=gone: gone() is None, "a result is kept"
        )  # its thread may still be in the same step


# --- Who runs what ----------------------------------------------------------------------------------------------


def test_jobs_that_need_each_other_run_at_the_same_time(executor, pipe, other_pipe):
    list(executor.map(operator.neg, range(5000)))  # so that workers are given many at once
    filling = [executor.submit(operator.neg, n) for n in range(1000)]
    one = executor.submit(executor_functions.write_and_read, pipe[1], other_pipe[0])
    more = [executor.submit(operator.neg, n) for n in range(100)]
    two = executor.submit(executor_functions.write_and_read, other_pipe[1], pipe[0])
    assert (one.result(SOON), two.result(SOON)) == (b"x", b"x")
    assert [future.result(SOON) for future in filling] == [-n for n in range(1000)]
    assert [future.result(SOON) for future in more] == [-n for n in range(100)]


def test_nothing_waits_behind_a_long_job(executor, pipe, other_pipe):
    list(executor.map(operator.neg, range(5000)))
    long = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
    line(pipe[0])
    assert [executor.submit(operator.neg, n).result(SOON) for n in range(100)] == [-n for n in range(100)]
    assert list(executor.map(operator.neg, range(500))) == [-n for n in range(500)]
    assert not long.done()
    os.write(other_pipe[1].fileno(), b"x")
    long.result(SOON)


def test_nothing_waits_behind_a_long_job_whose_deadline_is_far_away(pipe, other_pipe):
    with Executor(max_workers=2, timeout=10 * SOON) as executor:
        executor.submit(operator.neg, 1).result(SOON)  # a quick job, so that the worker is given several
        long = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        line(pipe[0])
        try:
            assert executor.submit(operator.neg, 2).result(SOON) == -2
            assert not long.done()
        finally:
            os.write(other_pipe[1].fileno(), b"x")


def test_a_long_item_of_a_map_does_not_stop_the_others(pipe, other_pipe):
    items = [0.0] * 2000
    items[1200] = 0.3
    with Executor(max_workers=2) as executor:
        list(executor.map(time.sleep, [0] * 2000))
        assert list(executor.map(time.sleep, items)) == [None] * 2000


def test_as_many_workers_as_jobs_that_run(pipe, other_pipe):
    with Executor(max_workers=4) as executor:
        list(executor.map(operator.neg, range(1000)))
        running = [executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0]) for _ in range(4)]
        assert len({line(pipe[0]) for _ in running}) == 4
        os.write(other_pipe[1].fileno(), b"xxxx")
        futures.wait(running, SOON)


def test_an_idle_worker_is_used_again():
    with Executor(max_workers=4) as executor:
        assert len({executor.submit(os.getpid).result(SOON) for _ in range(20)}) == 1
        assert executor.stats().workers == 1


# --- Options ----------------------------------------------------------------------------------------------------


def test_a_job_that_runs_too_long_is_ended_with_its_worker(executor, pipe):
    with pytest.raises(anyfork.CallTimeoutError) as raised:
        executor.options(timeout=0.05).submit(call_functions.wait_for, pipe[0]).result(SOON)
    assert raised.value.may_have_run
    assert executor.submit(pow, 2, 2).result(SOON) == 4
    with pytest.raises(TimeoutError):
        list(executor.options(timeout=0.05).map(call_functions.wait_for, [pipe[0]]))
    with Executor(max_workers=1, timeout=0.05) as strict:
        with pytest.raises(TimeoutError):
            strict.submit(call_functions.wait_for, pipe[0]).result(SOON)


def test_a_job_of_a_callback_that_fails_at_once_ends(executor):
    submitted = queue.SimpleQueue()
    late = executor.options(timeout=0)
    executor.submit(abs, -1).add_done_callback(lambda _: submitted.put(late.submit(abs, -1)))
    with pytest.raises(anyfork.CallTimeoutError):
        submitted.get(timeout=SOON).result(SOON)


class RaisingHandler(logging.Handler):
    """A handler that raises in the program that logs."""

    def emit(self, record):
        raise ValueError(record)


@pytest.mark.parametrize("logs", [False, True], ids=["of the Executor", "of a job"])
def test_a_log_handler_that_raises_is_reported_and_ends_no_executor(logs, monkeypatch, caplog):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda given: reported.append(given.exc_type))
    logger, handler = logging.getLogger("anyfork"), RaisingHandler()
    logger.addHandler(handler)
    caplog.set_level(logging.WARNING if logs else logging.DEBUG, "anyfork")
    try:
        with Executor(max_workers=1, logs=logs) as executor:
            assert executor.submit(executor_functions.warn, "anyfork.job").result(SOON) is None
            assert executor.submit(abs, -1).result(SOON) == 1
    finally:
        logger.removeHandler(handler)
    assert set(reported) == {ValueError}


def test_the_greatest_priority_goes_first(pipe, other_pipe, tmp_path):
    path = tmp_path / "order"
    with Executor(max_workers=1) as executor:
        executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        line(pipe[0])
        for priority in (0, 1, -1, 2):
            executor.options(priority=priority).submit(executor_functions.append, str(path), priority)
        os.write(other_pipe[1].fileno(), b"x")
    assert path.read_text().split() == ["2", "1", "0", "-1"]


def test_what_may_run_again_does_when_its_worker_dies(executor, tmp_path):
    path = str(tmp_path / "runs")
    again = executor.options(idempotent=True).submit(executor_functions.append_and_die_at_first, path, "run")
    assert again.result(SOON) == "survived"
    assert executor.stats().run_again == 1
    with pytest.raises(anyfork.WorkerDiedError):
        executor.options(idempotent=True).submit(executor_functions.die).result(SOON)


def test_events_of_a_job_are_for_its_handler(executor):
    seen = []
    assert executor.options(on_event=seen.append).submit(call_functions.say, 3).result(SOON) == "said"
    assert seen == [0, 1, 2]
    with Executor(max_workers=1, on_event=seen.append) as other:
        assert other.submit(call_functions.say, 2).result(SOON) == "said"
    assert seen == [0, 1, 2, 0, 1]


def test_a_handler_that_raises_fails_its_job_and_no_other(executor):
    job = executor.options(on_event=lambda value: 1 // value).submit(call_functions.say, 3)
    with pytest.raises(ZeroDivisionError):
        job.result(SOON)
    assert executor.submit(operator.neg, 1).result(SOON) == -1


def test_a_map_goes_on_although_each_item_ends_its_worker():
    with Executor(max_workers=1) as executor:
        errors = list(executor.map(call_functions.vanish, range(1, 7), return_exceptions=True, timeout=SOON))
    assert [error.status.code for error in errors] == [1, 2, 3, 4, 5, 6]


def test_another_serializer_carries_arguments_and_results():
    with Executor(max_workers=1, serializer="json") as executor:
        assert executor.submit(sorted, ["b", "a"], reverse=True).result(SOON) == ["b", "a"]
        assert list(executor.map(operator.neg, [1, 2])) == [-1, -2]
        assert list(executor.map(operator.neg, [1, 2, 3], chunksize=2)) == [-1, -2, -3]
        assert isinstance(executor.submit(abs, object()).exception(SOON), anyfork.ArgumentError)


def test_a_worker_runs_several_jobs_at_once_when_it_is_told_to(pipes):
    gate, start, told, tell = pipes
    with Executor(max_workers=1, concurrency=20) as executor:
        waiting = [executor.submit(executor_functions.tell_and_wait_later, tell, gate=gate) for _ in range(20)]
        pids = {told.readline() for _ in range(20)}
        assert executor.submit(abs, -1).running() is False
        start.write(b"x" * 20)
        assert {b"%d\n" % job.result(SOON) for job in waiting} == pids
        assert list(executor.map(executor_functions.double_later, range(50), chunksize=5)) == list(range(0, 100, 2))
        late = executor.options(timeout=0.1).submit(executor_functions.tell_and_wait_later, tell, gate=gate)
        assert isinstance(late.exception(SOON), anyfork.CallTimeoutError)
        assert executor.stats().started == 1


def test_options_are_an_executor_of_their_own(executor):
    options = executor.options(priority=1)
    assert isinstance(options, futures.Executor)
    assert list(options.map(operator.neg, range(3))) == [0, -1, -2]
    with options as same:
        assert same.submit(pow, 2, 2).result(SOON) == 4
    assert executor.submit(pow, 2, 2).result(SOON) == 4


def test_a_full_queue_makes_wait_or_raises(pipe, other_pipe):
    with Executor(max_workers=1, max_queued=1, when_full="raise") as executor:
        executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        line(pipe[0])
        executor.submit(pow, 1, 1)
        with pytest.raises(anyfork.QueueFullError) as raised:
            executor.submit(pow, 1, 1)
        assert not raised.value.may_have_run
        os.write(other_pipe[1].fileno(), b"x")
    with Executor(max_workers=1, max_queued=1) as executor:
        executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        line(pipe[0])
        first, late = executor.submit(pow, 1, 1), []
        thread = threading.Thread(target=lambda: late.append(executor.submit(pow, 2, 2)))
        thread.start()
        eventually(lambda: executor._dispatcher.scheduler.waiters == 1)
        assert not late
        os.write(other_pipe[1].fileno(), b"x")
        thread.join()
        assert (first.result(SOON), late[0].result(SOON)) == (1, 4)


def test_workers_leave_after_their_calls_or_when_they_want_to():
    with Executor(max_workers=1, max_calls=3) as executor:
        pids = [executor.submit(os.getpid).result(SOON) for _ in range(9)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]
        pids = list(executor.map(call_functions.pid, range(6)))
        assert max(map(pids.count, pids)) <= 3  # fewer if the machine is busy, and items are taken back
    with Executor(max_workers=1) as executor:
        first = executor.submit(executor_functions.retire_and_tell).result(SOON)
        assert executor.submit(os.getpid).result(SOON) != first


def test_a_worker_that_has_grown_leaves():
    with Executor(max_workers=1, max_memory=60 << 20) as executor:
        first = executor.submit(os.getpid).result(SOON)
        assert executor.submit(executor_functions.fill, 100 << 20).result(SOON) == first
        assert executor.submit(os.getpid).result(SOON) != first
        assert list(executor.map(operator.neg, range(50))) == [-n for n in range(50)]


def test_a_worker_that_has_done_its_last_job_no_longer_counts(pipe):
    options = {"initializer": executor_functions.end_when_told, "initargs": (pipe[0],)}
    with Executor(max_workers=1, max_calls=2, **options) as executor:
        first, again, second = (executor.submit(os.getpid).result(SOON) for _ in range(3))
        assert first == again != second
        assert executor.pids == [second]  # though the process of the first is still there
        assert executor.stats().workers == 1
        assert first in descendants()
        pipe[1].write(b"xx")


def test_idle_workers_leave_when_that_is_wanted():
    with Executor(max_workers=2, idle_timeout=0) as executor:
        pids = {executor.submit(os.getpid).result(SOON) for _ in range(3)}
        assert len(pids) == 3
        eventually(lambda: not executor.pids)


def test_it_can_be_resized_while_it_runs(pipe, other_pipe):
    with Executor(max_workers=1) as executor:
        running = [executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0]) for _ in range(3)]
        line(pipe[0])
        assert executor.stats().queued == 2
        executor.resize(3)
        assert len({line(pipe[0]), line(pipe[0])}) == 2
        os.write(other_pipe[1].fileno(), b"xxx")
        futures.wait(running, SOON)
        executor.resize(1)
        eventually(lambda: executor.stats().workers == 1)
        with pytest.raises(anyfork.ArgumentError):
            executor.resize(-1)


def test_its_template_can_be_replaced_while_jobs_run(pipe, other_pipe):
    old, new = Template(), Template()
    old.execute("import os; os.environ['WHICH'] = 'old'")
    new.execute("import os; os.environ['WHICH'] = 'new'")
    with old, new, Executor(old, max_workers=2) as executor:
        assert executor.submit(executor_functions.environment, "WHICH").result(SOON) == "old"
        running = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
        pid = line(pipe[0])
        executor.replace_template(new)
        assert executor.submit(executor_functions.environment, "WHICH").result(SOON) == "new"
        os.write(other_pipe[1].fileno(), b"x")
        assert running.result(SOON) == pid


def test_workers_come_from_the_template_which_stays():
    with Template().execute("import os; os.environ['WHICH'] = 'given'") as template:
        with Executor(template, 2) as executor:
            assert executor.submit(executor_functions.environment, "WHICH").result(SOON) == "given"
        with Executor({template: 1}) as executor:
            assert executor.submit(executor_functions.environment, "WHICH").result(SOON) == "given"
        template.ready()


@pytest.mark.untraced
def test_workers_may_be_on_another_machine():
    with anyfork.RemoteTemplate([sys.executable]) as remote, Executor(remote, max_workers=2) as executor:
        assert executor.submit(os.getpid).result(SOON) != os.getpid()
        assert list(executor.map(operator.neg, range(50))) == [-n for n in range(50)]
        assert list(executor.map(lambda x: x + 1, range(50), chunksize=3)) == list(range(1, 51))
        assert len(executor.submit(operator.mul, b"x", 3_000_000).result(SOON)) == 3_000_000
        with pytest.raises(anyfork.WorkerDiedError):
            executor.submit(os._exit, 3).result(SOON)
        assert executor.submit(pow, 2, 2).result(SOON) == 4
        with pytest.raises(anyfork.ArgumentError, match="one job at a time"):
            executor.resize(load=2)


def test_each_worker_is_initialized():
    with Executor(max_workers=1, initializer=executor_functions.initialize, initargs=(1, "two")) as executor:
        assert executor.submit(executor_functions.what_was_initialized).result(SOON) == [1, "two"]


def test_an_initializer_that_raises_is_told_to_all(caplog):
    with Executor(max_workers=2, initializer=executor_functions.fail_to_initialize) as executor:
        first = executor.submit(pow, 2, 2)
        error = first.exception(SOON)
        assert isinstance(error, anyfork.InitializerError)
        assert isinstance(error, futures.BrokenExecutor)
        with pytest.raises(futures.BrokenExecutor, match="error in initializer"):
            executor.submit(pow, 2, 2)
    assert "error in initializer" in caplog.text


def test_a_template_that_fails_is_told_to_those_who_wait():
    with Template().preload("no_such_module") as template, Executor(template, 2) as executor:
        with pytest.raises(anyfork.PreloadError, match="no_such_module"):
            executor.submit(pow, 2, 2).result(SOON)


def test_what_makes_no_sense_is_refused_with_a_reason():
    with pytest.raises(TypeError, match=r"Executor\(\) needs a template.*max_workers=4"):
        Executor(4)
    with pytest.raises(TypeError, match="has no option 'workers'"):
        Executor(workers=3)
    with pytest.raises(TypeError, match="max_workers"):
        Executor(max_workers="3")
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        Executor(max_workers=0)
    with pytest.raises(TypeError, match="the initializer"):
        Executor(initializer=3)


def test_the_default_is_a_worker_for_each_cpu():
    with Executor() as executor:
        assert executor._max_workers == len(os.sched_getaffinity(0))


def test_an_executor_cannot_be_sent_to_its_workers(executor):
    with pytest.raises(anyfork.ArgumentError, match="belongs to the process that has made it"):
        executor.submit(call_functions.echo, executor).result(SOON)


def test_workers_may_have_executors_of_their_own(executor):
    def inner(count):
        with Executor(max_workers=1) as own:
            return list(own.map(operator.neg, range(count)))

    assert executor.submit(inner, 3).result(SOON) == [0, -1, -2]


# --- The end ----------------------------------------------------------------------------------------------------


def test_nothing_is_taken_after_the_end():
    executor = Executor(max_workers=1)
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 2)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(pow, [2], [2])


def test_what_was_submitted_is_done_before_the_end():
    with Executor(max_workers=2) as executor:
        waiting = [executor.submit(operator.neg, n) for n in range(500)]
        mapped = executor.map(operator.neg, range(500))
    assert all(future.done() for future in waiting)
    assert list(mapped) == [-n for n in range(500)]
    assert not executor.pids


def test_what_has_not_begun_can_be_cancelled_at_the_end(pipe, other_pipe):
    executor = Executor(max_workers=1)
    running = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
    line(pipe[0])
    waiting = [executor.submit(pow, 2, n) for n in range(10)]
    mapped = executor.map(pow, range(10), range(10))
    executor.shutdown(wait=False, cancel_futures=True)
    assert futures.wait(waiting, SOON).not_done == set()
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(futures.CancelledError):
        next(mapped)
    os.write(other_pipe[1].fileno(), b"x")
    assert running.result(SOON)
    executor.shutdown()


def test_it_can_be_killed(pipe, other_pipe):
    executor = Executor(max_workers=1)
    running = executor.submit(executor_functions.say_pid_and_wait, pipe[1], other_pipe[0])
    line(pipe[0])
    waiting = executor.submit(pow, 2, 2)
    executor.kill()
    for future in (running, waiting):
        with pytest.raises(anyfork.CallCancelledError):
            future.result(SOON)
    executor.shutdown()
    assert not executor.pids


def test_an_executor_that_nobody_has_ends_when_its_jobs_are_done():
    executor = Executor(max_workers=2)
    results = executor.map(abs, range(-50, 50))
    last = executor.submit(pow, 2, 2)
    thread = executor._dispatcher.watch.thread
    del executor
    gc.collect()
    thread.join(SOON)
    assert not thread.is_alive()
    assert list(results) == list(map(abs, range(-50, 50)))
    assert last.result(0) == 4


def test_no_argument_is_kept(executor):
    value = executor_functions.Odd(1)
    gone = threading.Event()
    weakref.finalize(value, gone.set)
    executor.submit(value.doubled)
    del value
    assert gone.wait(SOON)


def test_a_forked_copy_of_the_owner_is_told_that_it_cannot_use_it(executor):
    assert executor.submit(pow, 2, 2).result(SOON) == 4
    with contextlib.suppress(BlockingIOError):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                executor.submit(pow, 2, 2)
            except anyfork.HandleError as error:
                os.write(write, str(error).encode())
            finally:
                executor.shutdown()
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        with os.fdopen(read) as reading:
            assert "in a forked copy of its owner" in reading.read()
    assert executor.submit(pow, 2, 3).result(SOON) == 8


# --- Deaths -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_only_the_job_of_a_worker_that_dies_fails(executor, number):
    others = [executor.submit(operator.neg, n) for n in range(300)]
    dead = executor.submit(executor_functions.die, number)
    others += [executor.submit(operator.neg, n) for n in range(300)]
    with pytest.raises(anyfork.WorkerDiedError, match=signal.Signals(number).name) as raised:
        dead.result(SOON)
    assert raised.value.pid
    assert raised.value.status.signal == number
    assert isinstance(raised.value, BrokenProcessPool)
    assert [future.result(SOON) for future in others] == [-n for n in [*range(300)] * 2]


def test_a_worker_that_vanishes_is_told(executor):
    with pytest.raises(anyfork.WorkerDiedError, match="exit code 7"):
        executor.submit(call_functions.vanish, 7).result(SOON)


@pytest.mark.parametrize("chunksize", [1, 10])
def test_an_item_that_kills_its_worker_takes_no_other_with_it(executor, chunksize):
    found = executor.map(executor_functions.die_if, range(1000), [500] * 1000, chunksize=chunksize)
    taken = []
    with pytest.raises(anyfork.WorkerDiedError):
        for value in found:
            taken.append(value)  # noqa: PERF402  # those before the error are wanted
    assert taken == list(range(500))
    assert list(executor.map(executor_functions.die_if, range(100), [-1] * 100)) == list(range(100))


def test_idle_workers_may_die(executor):
    for _ in range(3):
        list(executor.map(operator.neg, range(200)))
        for pid in executor.pids:
            os.kill(pid, signal.SIGKILL)
    assert list(executor.map(operator.neg, range(200))) == [-n for n in range(200)]


def test_the_default_template_may_die(executor):
    from anyfork._processes.default_template import default_template

    assert executor.submit(pow, 2, 2).result(SOON) == 4
    os.kill(default_template.get().session.pid, signal.SIGKILL)
    found = [executor.submit(operator.neg, n) for n in range(50)]
    for n, future in enumerate(found):
        error = future.exception(SOON)
        assert error is None or isinstance(error, anyfork.WorkerDiedError)
        assert error is not None or future.result() == -n
    assert executor.submit(pow, 2, 2).result(SOON) == 4


def test_a_template_that_dies_is_told_to_those_who_wait():
    with Template().ready() as template, Executor(template, 1) as executor:
        assert executor.submit(pow, 2, 2).result(SOON) == 4
        pid = template.pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in descendants())
        for worker in executor.pids:
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(anyfork.TemplateDiedError):
            while True:
                executor.submit(pow, 2, 2).exception(SOON)  # the first may still be given to the worker
        with Template() as other:
            executor.replace_template(other)
            assert executor.submit(pow, 2, 2).result(SOON) == 4
