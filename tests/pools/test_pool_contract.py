"""What aio.Pool promises, under each loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import operator
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import anyio
import pool_functions as jobs
import pytest
from conftest import descendants, eventually
from deadlines import DEADLINE
from executor_functions import say_pid_and_wait
from pool_side import Seen, ask, ask_in_turn, until

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from anyfork._calls.durations import JobDuration

pytestmark = pytest.mark.anyio


def lines(path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def duration_in(pool: aio.Pool, function: Callable[..., Any]) -> JobDuration:
    """Return what a pool knows about how long calls of a function take."""
    return pool._pool_loop.encoder.functions.find(function).duration


# --- Results --------------------------------------------------------------------------------------------------------


async def test_calls_return_results_and_raise_what_the_function_raises(template):
    async with aio.Pool(template) as pool:
        assert await pool.call(operator.add, 2, 3) == 5
        assert await pool.call("operator:add", "a", "b") == "ab"
        assert await pool.call(lambda x: x + 1, 2) == 3
        with pytest.raises(ZeroDivisionError) as caught:
            await pool.call(operator.truediv, 1, 0)
        assert "ZeroDivisionError" in str(caught.value.__cause__) or "Traceback" in str(caught.value.__cause__)


@pytest.mark.parametrize("size", [1 << 10, 1 << 17, 3 << 20])
async def test_arguments_and_results_of_any_size(template, size):
    data = os.urandom(size)
    async with aio.Pool(template) as pool:
        assert await pool.call(operator.concat, data, b"!") == data + b"!"


async def test_descriptors_travel(template, gate):
    async with aio.Pool(template) as pool:
        gate.open()
        await pool.call(jobs.wait, gate.file)


async def test_arguments_are_taken_as_they_are_at_the_call_however_deep(template, gate, tasks):
    nested = {"a": [1, [2]]}
    async with aio.Pool(template, max_workers=1, load=1) as pool:
        await ask_in_turn(tasks, pool, 1, jobs.wait, gate.file)
        (asked,) = await ask_in_turn(tasks, pool, 1, operator.itemgetter("a"), nested)
        nested["a"][1].append(3)
        gate.open()
        assert await asked.outcome() == [1, [2]]


async def test_what_cannot_travel_is_an_error_of_the_call_and_nothing_else(template):
    async with aio.Pool(template) as pool:
        with pytest.raises(anyfork.ArgumentError, match=r"argument 1 of call\(\)"):
            await pool.call(len, (item for item in ()))
        with pytest.raises(anyfork.ArgumentError, match="needs a function"):
            await pool.call(3)
        assert await pool.call(operator.neg, 1) == -1


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}])
async def test_the_end_of_a_program_is_the_end_of_its_call_alone(template, options):
    async with aio.Pool(template, max_workers=1, **options) as pool:
        pid = await pool.call(jobs.pid)
        with pytest.raises(anyfork.RemoteError, match="SystemExit: 3"):
            await pool.call(sys.exit, 3)
        got = [error async for error in pool.map(sys.exit, [1, 2], return_exceptions=True)]
        assert [type(error) for error in got] == [anyfork.RemoteError] * 2
        assert await pool.call(jobs.pid) == pid


async def test_many_callers_share_the_workers(template):
    async with aio.Pool(template, max_workers=2, start_after=0) as pool:
        results: list[int] = []

        async def call(number):
            results.append(await pool.call(operator.neg, number))

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(call, number)
        assert sorted(results) == sorted(-number for number in range(300))
        stats = pool.stats()
        assert (stats.submitted, stats.answered, stats.queued, stats.running) == (300, 300, 0, 0)


async def test_another_serializer_carries_arguments_and_results(template):
    async with aio.Pool(template, serializer="json") as pool:
        assert await pool.call(operator.add, [1], ["a"]) == [1, "a"]
        assert [x async for x in pool.map(operator.neg, [1, 2])] == [-1, -2]


async def test_without_a_template_workers_come_from_the_default_one(anyio_backend):
    async with aio.Pool() as pool:
        assert await pool.call(operator.neg, 1) == -1


async def test_every_worker_gets_what_was_sent_and_the_initializer(template):
    async with aio.Pool(template.fork().send(5), initializer=jobs.give, max_workers=2, load=1) as pool:
        assert await pool.call(jobs.sent, 1) == (5, 1)
    async with aio.Pool(template, initializer=jobs.give, initargs=[6]) as pool:
        assert await pool.call(jobs.sent, 1) == (6, 1)


# --- Workers --------------------------------------------------------------------------------------------------------


async def test_each_worker_has_at_most_its_load_and_the_least_loaded_gets_the_next(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=2, min_idle=2, load=2, on_event=seen) as pool:
        await until(lambda: pool.stats().idle == 2)
        asked = [ask(tasks, pool.call, jobs.tell_and_wait, gate.file) for _ in range(6)]
        first = await seen.wait(2)
        assert set(first) == set(pool.pids)
        stats = pool.stats()
        assert (stats.running, stats.sent, stats.queued) == (2, 2, 2)
        gate.open(6)
        assert sorted({await one.outcome() for one in asked}) == sorted(first)


@pytest.mark.parametrize(("options", "sent"), [({}, 9), ({"load": 2}, 1), ({"max_memory": 1 << 40}, 1)])
async def test_a_worker_is_given_more_quick_calls_unless_the_load_is_said(
    template, gate, tasks, options, sent, monkeypatch
):
    monkeypatch.setattr("anyfork._pools.worker_table.STALL", DEADLINE)
    async with aio.Pool(template, max_workers=1, **options) as pool:
        await pool.call(jobs.keep_gate, gate.file)
        duration_in(pool, jobs.wait_at_gate).saw(0.0)  # as if it had been quick so far
        await ask_in_turn(tasks, pool, 10, jobs.wait_at_gate)
        await until(lambda: pool.stats().running == 1)
        assert (pool.stats().sent, pool.stats().queued) == (sent, 9 - sent)
        gate.open(10)
        await until(lambda: pool.stats().idle == 1)


@pytest.mark.parametrize("options", [{}, {"max_memory": 1 << 40}])
async def test_no_call_waits_behind_a_long_one(template, gate, tasks, options):
    async with aio.Pool(template, max_workers=2, **options) as pool:
        (long,) = await ask_in_turn(tasks, pool, 1, jobs.tell_and_wait, gate.file)
        behind = await pool.call(jobs.pid)
        gate.open()
        assert behind != await long.outcome()
        assert pool.stats().moved


async def test_a_call_that_waits_in_a_worker_goes_to_one_that_is_idle_even_if_the_load_is_given(
    template, gate, pipes, tasks
):
    _, _, other_gate, other_open = pipes
    async with aio.Pool(template, max_workers=2, min_idle=2, load=2) as pool:
        await until(lambda: pool.stats().idle == 2)
        await ask_in_turn(tasks, pool, 1, jobs.wait, gate.file)
        await ask_in_turn(tasks, pool, 1, jobs.wait, other_gate)
        (behind,) = await ask_in_turn(tasks, pool, 1, jobs.pid)
        await until(lambda: pool.stats().sent == 1)
        other_open.write(b"x")
        assert await behind.outcome() in pool.pids
        gate.open()


async def test_how_quick_calls_are_is_learned(template):
    async with aio.Pool(template, max_workers=1) as pool:
        await pool.call(operator.neg, 1)
        assert duration_in(pool, operator.neg).mean > 0
        await pool.call(time.sleep, 0.01)
        await pool.call(time.sleep, 0.01)
        assert duration_in(pool, time.sleep).depth == 0


async def test_a_worker_runs_several_calls_at_once_when_it_is_told_to(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, concurrency=5, on_event=seen) as pool:
        asked = [ask(tasks, pool.call, jobs.tell_and_wait_later, gate.file) for _ in range(6)]
        assert len(set(await seen.wait(5))) == 1
        assert (pool.stats().running, pool.stats().queued) == (5, 1)
        gate.open(6)
        assert len({await one.outcome() for one in asked}) == 1


async def test_idle_workers_leave_but_for_min_idle(template):
    async with aio.Pool(template, max_workers=3, min_idle=1, load=1, start_after=0, idle_timeout=0.01) as pool:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(pool.call, jobs.pid)
        await until(lambda: len(pool.pids) == 1)
        (kept,) = pool.pids
        assert await pool.call(jobs.pid) == kept


async def test_a_pool_starts_nothing_before_it_is_needed(template):
    async with aio.Pool(template) as pool:
        await anyio.lowlevel.checkpoint()
        assert pool.stats().started == 0


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_worker_retires_as_often_as_it_likes_and_another_takes_its_place(template, times):
    async with aio.Pool(template, max_workers=1) as pool:
        old = await pool.call(jobs.retire_times, times)
        new = await pool.call(jobs.pid)
        assert new != old
        assert await pool.call(jobs.pid) == new
        eventually(lambda: old not in descendants(), "the old worker is still there")
        assert pool.stats().retired == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_concurrent_worker_retires_too(template, backend):
    async with aio.Pool(template, max_workers=1, concurrency=3, backend=backend) as pool:
        old = await pool.call(jobs.retire_later, 3)
        assert await pool.call(jobs.pid_later) != old


async def test_a_worker_that_retires_finishes_what_it_was_given(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, load=3, on_event=seen) as pool:
        asked = [ask(tasks, pool.call, jobs.tell_and_wait, gate.file)]
        await seen.wait(1)
        asked += await ask_in_turn(tasks, pool, 1, jobs.retire_times, 2)
        asked += await ask_in_turn(tasks, pool, 3, jobs.pid)
        gate.open()
        pids = [await one.outcome() for one in asked]
        assert len(set(pids[:3])) == 1
        assert pids[4] != pids[0], "one may have been given to it before it retired"


async def test_an_initializer_that_retires_its_worker_changes_nothing(template):
    async with aio.Pool(template, initializer=jobs.initialize_and_retire, max_workers=1) as pool:
        assert await pool.call(operator.neg, 1) == -1


async def test_retire_is_for_workers():
    with pytest.raises(RuntimeError, match="only in a worker"):
        anyfork.retire()


async def test_a_worker_without_a_pool_goes_on_when_it_retires(template):
    async with aio.Worker(template.fork()) as worker:
        assert await worker.call(jobs.retire_times, 2) == await worker.call(jobs.pid)


@pytest.mark.parametrize(("limit", "each"), [({"max_calls": 2}, 2), ({"max_calls": 0}, 1), ({"max_age": 0}, 1)])
async def test_a_worker_leaves_after_so_many_calls_or_so_long(template, limit, each):
    async with aio.Pool(template, max_workers=1, load=1, **limit) as pool:
        pids = [await pool.call(jobs.pid) for _ in range(2 * each)]
        assert pids[:each] == [pids[0]] * each
        assert pids[each:] == [pids[each]] * each
        assert pids[0] != pids[each]


async def test_no_worker_of_a_map_does_more_than_max_calls(template):
    async with aio.Pool(template, max_workers=2, max_calls=7, start_after=0) as pool:
        pids = [pid async for pid in pool.map(jobs.pid, range(100))]
        assert max(pids.count(pid) for pid in set(pids)) <= 7
        assert len(set(pids)) >= 15


@pytest.mark.parametrize("kind", [{}, {"concurrency": 2}])
@pytest.mark.parametrize("memory", ["private", "pss"])
async def test_a_worker_leaves_when_it_has_grown_too_large(template, memory, kind):
    async with aio.Pool(template, max_workers=1, max_memory=100 << 20, memory=memory, **kind) as pool:
        small = await pool.call(jobs.pid)
        assert await pool.call(jobs.grow, 1) == small
        large = await pool.call(jobs.grow, 150)
        assert large == small
        assert await pool.call(jobs.pid) != small
        assert pool.stats().retired == 1
        assert [x async for x in pool.map(operator.neg, range(5))] == [0, -1, -2, -3, -4]


async def test_other_serializers_do_not_stand_in_the_way_of_max_memory(template):
    async with aio.Pool(template, max_workers=1, max_memory=0, serializer="raw") as pool:
        assert await pool.call(operator.concat, b"a", b"b") == b"ab"
        assert await pool.call(operator.concat, b"a", b"b") == b"ab"
        assert pool.stats().retired == 2


# --- Death ----------------------------------------------------------------------------------------------------------


async def test_only_the_call_that_ran_fails_when_a_worker_is_killed(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, load=3, on_event=seen) as pool:
        running = ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        (pid,) = await seen.wait(1)
        others = [ask(tasks, pool.call, operator.neg, number) for number in range(5)]
        await until(lambda: pool.stats().submitted == 6)
        os.kill(pid, signal.SIGKILL)
        error = await running.outcome()
        assert isinstance(error, anyfork.WorkerDiedError)
        assert (error.pid, error.status.signal, error.may_have_run) == (pid, signal.SIGKILL, True)
        assert [await one.outcome() for one in others] == [0, -1, -2, -3, -4]
        stats = pool.stats()
        assert (stats.died, stats.moved, stats.failed, stats.answered) == (1, 2, 1, 5)


async def test_an_idempotent_call_runs_again_at_most_twice(template, tmp_path):
    async with aio.Pool(template, max_workers=1) as pool:
        assert await pool.call(jobs.die_at_first, str(tmp_path / "two"), 2, idempotent=True) == 3
        with pytest.raises(anyfork.WorkerDiedError):
            await pool.call(jobs.die_at_first, str(tmp_path / "many"), 9, idempotent=True)
        assert len(lines(tmp_path / "many")) == 3
        with pytest.raises(anyfork.WorkerDiedError):
            await pool.call(jobs.die_at_first, str(tmp_path / "once"), 1)
        assert len(lines(tmp_path / "once")) == 1


async def test_an_idle_worker_that_dies_is_not_missed(template):
    async with aio.Pool(template, max_workers=1, min_idle=1) as pool:
        pid = await pool.call(jobs.pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.stats().died == 1)
        assert await pool.call(jobs.pid) != pid


async def test_workers_that_never_live_fail_the_calls_with_their_reason(template):
    async with aio.Pool(template, initializer=jobs.no_luck) as pool:
        with anyio.fail_after(DEADLINE), pytest.raises(anyfork.InitializerError, match="no luck today") as caught:
            await pool.call(operator.neg, 1)
        assert not caught.value.may_have_run
    async with aio.Pool(template, initializer=jobs.leave_at_once) as pool:
        with anyio.fail_after(DEADLINE), pytest.raises(anyfork.WorkerDiedError, match="code 7|7") as died:
            await pool.call(operator.neg, 1)
        assert not died.value.may_have_run


async def test_a_worker_that_lives_at_last_gets_the_calls_that_have_waited(template, tmp_path):
    path = str(tmp_path / "starts")
    async with aio.Pool(template, initializer=jobs.first_process_only, initargs=[path]) as pool:
        assert await pool.call(operator.neg, 1) == -1
        assert pool.stats().not_started == 2


async def test_a_template_that_was_killed_fails_calls_at_once_while_its_workers_go_on(template):
    async with aio.Template.new_exec() as own, aio.Pool(own, max_workers=2) as pool:
        pid = await pool.call(jobs.pid)
        os.kill((await own.ready()).pid, signal.SIGKILL)
        assert await pool.call(jobs.pid) == pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.stats().workers == 0)
        for _ in range(2):
            with anyio.fail_after(DEADLINE), pytest.raises(anyfork.AnyforkError):
                await pool.call(jobs.pid)
        pool.replace_template(template)
        assert await pool.call(jobs.pid) in pool.pids


async def test_a_template_that_was_closed_is_an_error_that_says_so(template):
    other = template.fork()
    async with aio.Pool(other) as pool:
        await other.aclose()
        with pytest.raises(anyfork.HandleError, match="closed"):
            await pool.call(jobs.pid)


# --- Giving up ------------------------------------------------------------------------------------------------------


async def test_a_call_that_runs_too_long_ends_its_worker_and_the_others_are_moved(template, gate, tasks):
    async with aio.Pool(template, max_workers=1, load=2, timeout=0.1) as pool:
        (slow,) = await ask_in_turn(tasks, pool, 1, jobs.forget_the_end, gate.file)
        other = ask(tasks, pool.call, operator.neg, 1)
        error = await slow.outcome()
        assert isinstance(error, anyfork.CallTimeoutError)
        assert isinstance(error, TimeoutError)
        assert error.may_have_run
        assert await other.outcome() == -1
        assert pool.stats().timed_out == 1


async def test_a_timeout_counts_only_while_the_call_runs(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, load=1, timeout=0.2, on_event=seen) as pool:
        long = ask(tasks, pool.call, jobs.tell_and_wait, gate.file, timeout=math.inf)
        await seen.wait(1)
        waiting = ask(tasks, pool.call, jobs.pid)
        with pytest.raises(anyfork.CallTimeoutError):  # as long as the call would have had
            async with aio.Pool(template, timeout=0.2) as other:
                await other.call("signal:pause")
        gate.open()
        assert await long.outcome() == await waiting.outcome()


async def test_a_call_with_no_time_does_not_run(template, tmp_path):
    async with aio.Pool(template) as pool:
        with pytest.raises(anyfork.CallTimeoutError) as caught:
            await pool.call(jobs.note, str(tmp_path / "ran"), "x", timeout=0)
        assert not caught.value.may_have_run
        await pool.call(jobs.pid)
        assert not lines(tmp_path / "ran")


async def test_a_call_of_several_that_takes_too_long_is_cancelled_in_its_worker(template, gate, tasks):
    async with aio.Pool(template, max_workers=1, concurrency=2) as pool:
        slow = ask(tasks, pool.call, jobs.tell_and_wait_later, gate.file, timeout=0.1)
        pid = await pool.call(jobs.pid_later)
        assert isinstance(await slow.outcome(), anyfork.CallTimeoutError)
        assert await pool.call(jobs.pid_later) == pid
        await until(lambda: pool.stats().running == 0)


async def test_a_call_that_is_cancelled_while_it_waits_does_not_run(template, gate, tmp_path, tasks):
    async with aio.Pool(template, max_workers=1, load=1) as pool:
        (running,) = await ask_in_turn(tasks, pool, 1, jobs.note_and_wait, str(tmp_path / "ran"), "first", gate.file)
        waiting = ask(tasks, pool.call, jobs.note, str(tmp_path / "ran"), "second")
        await until(lambda: pool.stats().queued == 1)
        waiting.scope.cancel()
        await waiting.done.wait()
        gate.open()
        assert await running.outcome() == "first"
        await pool.call(jobs.pid)
        assert lines(tmp_path / "ran") == ["first"]
        assert pool.stats().withdrawn == 1


async def test_a_call_that_is_cancelled_before_it_begins_does_not_run(template, tmp_path):
    async with aio.Pool(template) as pool:
        pid = await pool.call(jobs.pid)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pool.call(jobs.note, str(tmp_path / "ran"), "x")
        assert scope.cancelled_caught
        assert await pool.call(jobs.pid) == pid
        assert not lines(tmp_path / "ran")


async def test_a_call_that_is_cancelled_while_it_runs_ends_its_worker_and_no_other_call(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, load=2, on_event=seen) as pool:
        running = ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        (pid,) = await seen.wait(1)
        other = ask(tasks, pool.call, jobs.pid)
        await until(lambda: pool.stats().sent == 1)
        running.scope.cancel()
        await running.done.wait()
        assert await other.outcome() != pid
        eventually(lambda: pid not in descendants(), "the worker is still there")


@pytest.mark.parametrize("way", ["cancel", "timeout"])
@pytest.mark.parametrize("options", [{}, {"max_memory": 1 << 40}])
async def test_a_call_that_is_given_up_when_it_is_done_does_not_end_the_next_one(
    template, gate, pipes, tasks, monkeypatch, way, options
):
    told, tell, other_gate, other_open = pipes
    async with aio.Pool(template, max_workers=1, load=3, **options) as pool:
        pid = await pool.call(jobs.pid)
        first = ask(tasks, pool.call, jobs.wait, gate.file, timeout=600)
        await until(lambda: pool.stats().running == 1)
        second = ask(tasks, pool.call, say_pid_and_wait, tell, other_gate)
        third = ask(tasks, pool.call, jobs.pid)
        await until(lambda: pool.stats().sent == 2)
        gate.open()
        told.readline()  # the worker has begun the second call, and the loop has not seen the answer of the first
        if way == "cancel":
            first.scope.cancel()
            await first.done.wait()
        else:
            monkeypatch.setattr("anyfork._pools.pool.monotonic", lambda: time.monotonic() + 3600)
            pool._pool_loop.decide()
            monkeypatch.undo()
            assert isinstance(await first.outcome(), anyfork.CallTimeoutError)
        other_open.write(b"x")
        assert [await second.outcome(), await third.outcome()] == [pid, pid]
        stats = pool.stats()
        assert (stats.died, stats.failed) == (0, 0)


async def test_a_call_behind_one_whose_worker_dies_runs_in_another_if_memory_is_limited(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, load=2, max_memory=1 << 40, on_event=seen) as pool:
        running = ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        (pid,) = await seen.wait(1)
        behind = ask(tasks, pool.call, jobs.pid)
        await until(lambda: pool.stats().sent == 1)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(await running.outcome(), anyfork.WorkerDiedError)
        assert await behind.outcome() not in (pid, None)
        assert not isinstance(behind.error, Exception)


async def test_a_call_that_is_cancelled_behind_another_one_is_skipped(template, gate, seen, tmp_path, tasks):
    async with aio.Pool(template, max_workers=1, load=2, on_event=seen) as pool:
        running = ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        (pid,) = await seen.wait(1)
        behind = ask(tasks, pool.call, jobs.note, str(tmp_path / "ran"), "x")
        await until(lambda: pool.stats().sent == 1)
        behind.scope.cancel()
        await behind.done.wait()
        gate.open()
        assert await running.outcome() == pid == await pool.call(jobs.pid)
        assert not lines(tmp_path / "ran")


@pytest.mark.parametrize("options", [{}, {"max_queued": 0}, {"concurrency": 2}, {"load": 3}, {"on_cancel": "wait"}])
async def test_calls_that_are_cancelled_at_any_moment_leave_the_pool_as_it_was(template, options):
    async with aio.Pool(template, max_workers=1, **options) as pool:
        for turns in range(12):
            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(pool.call, operator.neg, number)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert await pool.call(operator.neg, turns) == -turns
        stats = pool.stats()
        assert (stats.queued, stats.sent, stats.running) == (0, 0, 0)
        assert stats.failed == 0
        assert pool._pool_loop.scheduler.waiters == pool._pool_loop.scheduler.promised == 0


async def test_a_call_that_is_cancelled_may_be_waited_for_instead_without_its_handler(template, gate, seen, tasks):
    file = gate.file
    async with aio.Pool(template, max_workers=1, on_cancel="wait") as pool:
        running = ask(tasks, pool.call, lambda: jobs.say(jobs.tell_and_wait(file)), on_event=seen)
        (pid,) = await seen.wait(1)
        running.scope.cancel()
        await anyio.lowlevel.checkpoint()
        assert not running.done.is_set()
        gate.open()
        await running.done.wait()
        assert await pool.call(jobs.pid) == pid
    assert seen.values == [pid]


async def test_a_call_that_is_cancelled_while_the_pool_closes_is_waited_for_too(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, on_event=seen, on_cancel="wait") as pool:
        running = ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        await seen.wait(1)
        closing = ask(tasks, pool.aclose)
        await anyio.lowlevel.checkpoint()
        running.scope.cancel()
        await anyio.lowlevel.checkpoint()
        assert not running.done.is_set()
        gate.open()
        await running.done.wait()
        await closing.done.wait()
    assert running.error is None


async def test_a_call_that_is_out_of_time_gives_its_handler_no_further_event(template, seen):
    async with aio.Pool(template, max_workers=1, concurrency=2) as pool:
        with pytest.raises(anyfork.CallTimeoutError):
            await pool.call(jobs.say_before_and_after, timeout=0.1, on_event=seen)
        assert await pool.call(operator.neg, 1) == -1
    assert seen.values in ([], ["before"])


# --- The queue ------------------------------------------------------------------------------------------------------


async def test_a_greater_priority_goes_first(template, gate, tasks, tmp_path):
    path = str(tmp_path / "order")
    async with aio.Pool(template, max_workers=1, load=1) as pool:
        ask(tasks, pool.call, jobs.wait, gate.file)
        await until(lambda: pool.stats().running == 1)
        asked = []
        for name, priority in [("low", -1), ("first", 0), ("second", 0), ("high", 2.5)]:
            asked.append(ask(tasks, pool.call, jobs.note, path, name, priority=priority))
            await until(lambda: pool.stats().queued == len(asked))
        gate.open()
        for one in asked:
            await one.outcome()
    assert lines(tmp_path / "order") == ["high", "first", "second", "low"]


@pytest.mark.parametrize(("max_queued", "taken"), [(0, 2), (3, 5)])
async def test_no_more_calls_wait_than_there_is_room_for(template, gate, tasks, max_queued, taken):
    async with aio.Pool(template, max_workers=1, load=2, max_queued=max_queued) as pool:
        asked = await ask_in_turn(tasks, pool, taken, jobs.wait, gate.file)
        asked += [ask(tasks, pool.call, jobs.wait, gate.file) for _ in range(5)]
        await until(lambda: pool._pool_loop.scheduler.waiters == 5 and pool.stats().running == 1)
        stats = pool.stats()
        assert (stats.running, stats.sent, stats.queued, stats.submitted) == (1, 1, max_queued, taken)
        asked[-1].scope.cancel()
        await asked[-1].done.wait()
        gate.open(len(asked) - 1)
        for one in asked[:-1]:
            assert await one.outcome() is None
        assert pool.stats().submitted == taken + 4


@pytest.mark.parametrize("max_queued", [0, 1])
async def test_a_full_queue_may_refuse_calls_instead(template, gate, tasks, max_queued):
    async with aio.Pool(template, max_workers=1, load=1, max_queued=max_queued, when_full="raise") as pool:
        await ask_in_turn(tasks, pool, 1 + max_queued, jobs.wait, gate.file)
        with pytest.raises(anyfork.QueueFullError) as caught:
            await pool.call(jobs.pid)
        assert not caught.value.may_have_run
        assert isinstance(caught.value, anyfork.CallError)
        gate.open(1 + max_queued)
        await until(lambda: pool.stats().idle == 1)
        assert await pool.call(jobs.pid) in pool.pids


async def test_calls_that_are_refused_make_the_pool_grow(template, gate, tasks):
    async with aio.Pool(template, max_workers=2, load=1, max_queued=0, when_full="raise") as pool:
        await ask_in_turn(tasks, pool, 1, jobs.wait, gate.file)
        with pytest.raises(anyfork.QueueFullError):
            await pool.call(jobs.pid)
        await until(lambda: pool.stats().idle == 1)
        assert await pool.call(jobs.pid) in pool.pids
        gate.open()


async def test_calls_that_wait_for_room_make_the_pool_grow(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=2, load=1, max_queued=0, on_event=seen) as pool:
        for _ in range(2):
            ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
        assert len(set(await seen.wait(2))) == 2
        gate.open(2)


# --- Changes while it runs ------------------------------------------------------------------------------------------


async def test_a_pool_without_workers_runs_its_calls_when_it_gets_some(template, tasks):
    async with aio.Pool(template, max_workers=0) as pool:
        asked = ask(tasks, pool.call, operator.neg, 1)
        await until(lambda: pool.stats().queued == 1)
        pool.resize(2)
        assert await asked.outcome() == -1


async def test_a_pool_grows_and_shrinks_while_it_runs(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, load=1, start_after=0, on_event=seen) as pool:
        asked = [ask(tasks, pool.call, jobs.tell_and_wait, gate.file) for _ in range(5)]
        await seen.wait(1)
        pool.resize(max_workers=3)
        await seen.wait(3)
        pool.resize(max_workers=1)
        gate.open(5)
        for one in asked:
            await one.outcome()
        await until(lambda: len(pool.pids) == 1)
        pool.resize(load=4)
        asked = [ask(tasks, pool.call, jobs.wait, gate.file) for _ in range(5)]
        await until(lambda: pool.stats().sent == 3)
        gate.open(5)


async def test_the_template_is_replaced_while_calls_run_and_none_is_lost_or_run_twice(
    template, gate, seen, tmp_path, tasks
):
    path = str(tmp_path / "ran")
    async with template.fork().prepare(jobs.give, "new") as new:
        async with aio.Pool(template, max_workers=2, load=2, min_idle=2, on_event=seen) as pool:
            await until(lambda: pool.stats().idle == 2)
            held = [ask(tasks, pool.call, jobs.tell_and_wait, gate.file) for _ in range(2)]
            old = set(await seen.wait(2))
            behind = [ask(tasks, pool.call, jobs.note, path, str(number)) for number in range(20)]
            await until(lambda: pool.stats().submitted == 22)
            pool.replace_template(new)
            gate.open(2)
            assert {await one.outcome() for one in held} == old
            for one in behind:
                await one.outcome()
            assert await pool.call(jobs.sent, 1) == ("new", 1)
            await until(lambda: not old & set(pool.pids))
    assert sorted(map(int, lines(tmp_path / "ran"))) == list(range(20))


async def test_what_cannot_replace_a_template_is_an_error(template):
    async with aio.Pool(template) as pool:
        for new, old in [(None, None), (3, None), (template, template.fork())]:
            with pytest.raises(anyfork.ArgumentError, match="replace_template"):
                pool.replace_template(new, old)
        for options in ({"max_workers": -1}, {"load": 1.5}, {"min_idle": "2"}):
            with pytest.raises(anyfork.ArgumentError, match=next(iter(options))):
                pool.resize(**options)
    async with aio.Pool(template, concurrency=2) as pool:
        with pytest.raises(anyfork.ArgumentError, match="concurrency"):
            pool.resize(load=3)


async def test_several_templates_each_up_to_its_limit(template, gate, seen, tasks):
    async with template.fork().prepare(jobs.give, "other") as other:
        async with aio.Pool({template: 1, other: 2}, load=1, start_after=0, on_event=seen) as pool:
            await ask_in_turn(tasks, pool, 9, jobs.tell_and_wait, gate.file)
            await seen.wait(3)
            assert pool.stats().queued == 6
            assert pool.stats().workers == 3
            with pytest.raises(anyfork.ArgumentError, match="needs to know which"):
                pool.replace_template(template)
            pool.replace_template(other, template)
            gate.open(9)


async def test_the_limits_of_templates_change_while_the_pool_runs(template, gate, tasks):
    async with template.fork() as near, template.fork() as far:
        async with aio.Pool({near: 1, far: 1}, load=1, start_after=0) as pool:
            await ask_in_turn(tasks, pool, 9, jobs.wait, gate.file)
            await until(lambda: pool.stats().running == 2)
            pool.resize(limits={far: 3})
            await until(lambda: pool.stats().running == 4)
            pool.resize(limits={near: 0, far: 1})
            assert pool.stats().leaving == 3
            gate.open(9)
            with pytest.raises(anyfork.ArgumentError, match="limits= has a template that is not"):
                pool.resize(limits={template: 1})
            with pytest.raises(anyfork.ArgumentError, match="whole number"):
                pool.resize(limits={far: -1})


async def test_the_figures_are_a_frozen_record(template):
    async with aio.Pool(template) as pool:
        stats = pool.stats()
        assert isinstance(stats, anyfork.PoolStats)
        with pytest.raises(AttributeError):
            stats.queued = 1
        assert not hasattr(stats, "__dict__")
        assert "workers=0" in repr(pool)


# --- Events ---------------------------------------------------------------------------------------------------------


async def test_events_come_before_the_result_of_their_call_with_any_kind_of_handler(template):
    seen = []

    async def handle(value):
        await anyio.lowlevel.checkpoint()
        seen.append(value)

    async with aio.Pool(template, max_workers=1, on_event=handle) as pool:
        for number in range(5):
            assert await pool.call(jobs.say, number) == number
            assert seen[-1] == number
        own = Seen()
        await pool.call(jobs.say, "own", on_event=own)
        assert own.values == ["own"]
        assert seen == list(range(5))


async def test_a_handler_that_raises_fails_its_call_and_no_other(template):
    def handle(_):
        raise RuntimeError("of the handler")

    async with aio.Pool(template, max_workers=1) as pool:
        with pytest.raises(RuntimeError, match="of the handler"):
            await pool.call(jobs.say, 1, on_event=handle)
        assert await pool.call(operator.neg, 1) == -1


async def test_a_handler_may_call_the_same_worker_also_behind_many_events_and_in_other_tasks(template, monkeypatch):
    monkeypatch.setattr("anyfork.aio._pool_loop.MANY_EVENTS", 3)
    found = []
    async with aio.Pool(template, max_workers=1) as pool:

        async def call(value):
            found.append(await pool.call(operator.neg, value))

        async def handle(value):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, value)

        with anyio.fail_after(DEADLINE):
            await pool.call(jobs.say_all, 9, on_event=handle)
        assert found == [-value for value in range(9)]


async def test_a_handler_of_the_pool_may_call_what_calls_it_and_results_of_a_map_wait_for_it(template):
    seen = []

    async def handle(value):
        if value % 10:
            await pool.call(jobs.say, value - 1)
        seen.append(value)

    async with aio.Pool(template, max_workers=1, on_event=handle) as pool:
        with anyio.fail_after(DEADLINE):
            async for value in pool.map(jobs.say, [3, 12, 20]):
                assert value in seen
    assert sorted(seen) == [0, 1, 2, 3, 10, 11, 12, 20]


@pytest.mark.parametrize("on_cancel", ["kill", "wait"])
async def test_a_handler_that_does_not_end_is_cancelled_with_its_call(template, tasks, on_cancel):
    entered, left = anyio.Event(), anyio.Event()

    async def handle(_):
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            left.set()

    async with aio.Pool(template, max_workers=1, on_cancel=on_cancel) as pool:
        asked = ask(tasks, pool.call, jobs.say_all, 2, on_event=handle)
        with anyio.fail_after(DEADLINE):
            await entered.wait()
            asked.scope.cancel()
            await asked.done.wait()
            await left.wait()
            assert await pool.call(operator.neg, 1) == -1


async def test_a_handler_whose_tasks_raise_when_they_are_cancelled_fails_no_other_call(template, tasks):
    entered = anyio.Event()

    async def clean_up():
        try:
            entered.set()
            await anyio.sleep_forever()
        finally:
            raise ValueError

    async def handle(_):
        async with anyio.create_task_group() as group:
            group.start_soon(clean_up)
            group.start_soon(anyio.sleep_forever)

    async with aio.Pool(template, max_workers=1) as pool:
        asked = ask(tasks, pool.call, jobs.say, 1, on_event=handle)
        with anyio.fail_after(DEADLINE):
            await entered.wait()
            asked.scope.cancel()
            await asked.done.wait()
        assert await pool.call(operator.neg, 1) == -1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio cancels a task again and again
async def test_no_further_handler_begins_when_the_loop_ends(template):
    handled = []

    async def handle(value):
        handled.append(value)
        if value == 0:
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep_forever()

    async with aio.Pool(template, max_workers=1, max_calls=1, on_event=handle) as pool:
        async with anyio.create_task_group() as group:
            group.start_soon(pool.call, jobs.say_all, 2)
            await until(lambda: handled)
            tasks = pool._pool_loop.here("call")._tasks
            await until(lambda: len(tasks) == 1)  # the one of the handler: the end of another would kill the pool
            [task] = tasks
            task.cancel()  # as asyncio.run does
        assert handled == [0]


async def test_a_pool_is_killed_in_spite_of_a_handler_that_does_not_end_and_not_closed_in_it(template, tasks):
    refused = []

    async def handle(_):
        try:
            await pool.aclose()
        except anyfork.HandleError as error:
            refused.append(error)
        await anyio.sleep_forever()

    async with aio.Pool(template, max_workers=1, on_event=handle) as pool:
        asked = ask(tasks, pool.call, jobs.say, 1)
        await until(lambda: refused and pool.stats().answered == 1)  # the answer waits for the handler
        pool.kill()
        assert await asked.outcome() == 1
    assert "wait for itself" in str(refused[0])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a task of trio cannot be awaited
async def test_a_call_fails_if_what_its_handler_returns_is_cancelled(template):
    loop = asyncio.get_running_loop()

    def handle(_):
        task = loop.create_task(asyncio.sleep(DEADLINE))
        loop.call_soon(task.cancel)
        return task

    async with aio.Pool(template, max_workers=1) as pool:
        with pytest.raises(anyfork.CallCancelledError, match="on_event"):
            await pool.call(jobs.say, 1, on_event=handle)
        assert await pool.call(operator.neg, 1) == -1


# --- The end --------------------------------------------------------------------------------------------------------


async def test_closing_finishes_what_was_asked(template, gate, tasks):
    pool = aio.Pool(template, max_workers=1, max_queued=4)
    asked = [ask(tasks, pool.call, jobs.wait, gate.file) for _ in range(10)]
    await until(lambda: pool._pool_loop.scheduler.waiters == 4)
    closing = ask(tasks, pool.aclose)
    await until(lambda: "closed" in repr(pool))
    with pytest.raises(anyfork.HandleError, match="closed"):
        await pool.call(jobs.pid)
    gate.open(10)
    assert [await one.outcome() for one in asked] == [None] * 10
    await closing.outcome()
    assert not pool.pids
    await pool.aclose()


@pytest.mark.parametrize("min_idle", [0, 2])
async def test_an_unused_pool_closes_at_once(template, min_idle):
    with anyio.fail_after(DEADLINE):
        async with aio.Pool(template, min_idle=min_idle):
            pass
        await aio.Pool(template, min_idle=min_idle).aclose()


async def test_a_killed_pool_fails_its_calls_and_leaves_nothing(template, gate, seen, tasks):
    async with aio.Pool(template, max_workers=1, on_event=seen) as pool:
        asked = await ask_in_turn(tasks, pool, 4, jobs.tell_and_wait, gate.file)
        await seen.wait(1)
        pool.kill()
        errors = [await one.outcome() for one in asked]
        assert all(isinstance(error, anyfork.CallCancelledError) for error in errors)
        assert [error.may_have_run for error in errors] == [True, False, False, False]
        pool.kill()


async def test_calls_that_wait_for_room_fail_too_when_the_pool_is_killed(template, gate, tasks):
    async with aio.Pool(template, max_workers=1, load=1, max_queued=0) as pool:
        asked = await ask_in_turn(tasks, pool, 1, jobs.wait, gate.file)
        asked += [ask(tasks, pool.call, jobs.wait, gate.file) for _ in range(3)]
        await until(lambda: pool._pool_loop.scheduler.waiters == 3)
        pool.kill()
        errors = [await one.outcome() for one in asked]
        assert all(isinstance(error, anyfork.CallCancelledError) for error in errors)


async def test_leaving_the_block_by_a_cancellation_kills_the_workers(template, gate, seen, tasks):
    with anyio.CancelScope() as scope:
        async with aio.Pool(template, max_workers=1, on_event=seen) as pool:
            ask(tasks, pool.call, jobs.tell_and_wait, gate.file)
            await seen.wait(1)
            scope.cancel()
    assert not pool.pids


async def test_leaving_the_block_by_an_exception_does_not_wait_for_what_others_have_asked(template, gate, tasks):
    with pytest.raises(ValueError, match="mine"):
        async with aio.Pool(template, max_workers=1) as pool:
            asked = ask(tasks, pool.call, jobs.wait, gate.file)
            await until(lambda: pool.stats().running == 1)
            raise ValueError("mine")
    assert isinstance(await asked.outcome(), anyfork.CallCancelledError)


async def test_a_pool_works_without_being_a_context_manager(template):
    pool = aio.Pool(template)
    assert await pool.call(operator.neg, 1) == -1
    await pool.aclose()


async def test_a_pool_that_is_made_before_its_loop_lives_in_that_of_its_first_use():
    pool = aio.Pool(min_idle=1)
    assert await pool.call(operator.neg, 1) == -1
    await pool.aclose()


def test_a_pool_needs_a_loop_and_stays_in_it():
    pool = aio.Pool()

    async def use():
        assert await pool.call(operator.neg, 1) == -1

    with pytest.raises(anyfork.HandleError, match="event loop that runs"):
        pool.map(operator.neg, [])
    anyio.run(use)
    with pytest.raises(anyfork.HandleError, match="another event loop"):
        anyio.run(use)
    anyio.run(pool.aclose)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pool_that_was_not_closed_ends_with_its_loop_and_starts_nothing_more(backend):
    pools = []

    async def use():
        pools.append(aio.Pool(min_idle=2, max_workers=2))
        assert await pools[0].call(operator.neg, 1) == -1
        pools[0].map(operator.neg, range(1000))

    anyio.run(use, backend=backend)
    (pool,) = pools
    assert not pool.pids
    assert pool.stats().started <= 2
    assert "closed" in repr(pool)
    pool.kill()


def test_a_pool_whose_loop_was_closed_with_its_tasks_leaves_nothing():
    loop = asyncio.new_event_loop()

    async def use():
        pool = aio.Pool(max_workers=1)
        assert await pool.call(operator.neg, 1) == -1
        return pool

    pool = loop.run_until_complete(use())
    loop.close()
    worker = pool.pids[0]
    del pool, loop

    def ended():
        gc.collect()  # of what the end of a task frees, the rest comes with the next collection
        return worker not in descendants()

    eventually(ended)


async def test_a_forked_copy_of_the_owner_cannot_use_the_pool(template):
    async with aio.Pool(template) as pool:
        await pool.call(jobs.pid)
        child = os.fork()
        if child == 0:
            try:
                pool.map(operator.neg, [])
            except anyfork.HandleError as error:
                os._exit(0 if "forked copy" in str(error) else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert await pool.call(operator.neg, 1) == -1


# --- Mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_workers": -1}, "max_workers must be a whole number, 0 or more, not -1"),
        ({"max_workers": 1.5}, "whole number"),
        ({"load": True}, "whole number"),
        ({"start_after": "soon"}, "number of seconds"),
        ({"idle_timeout": None}, "number of seconds"),
        ({"idle_timeout": math.nan}, "number of seconds"),
        ({"max_queued": -5}, "0 or more"),
        ({"memory": "rss"}, "'private' or 'pss'"),
        ({"when_full": "drop"}, "'wait' or 'raise'"),
        ({"workers": 3}, "no option 'workers'; there are max_workers"),
        ({"initializer": 3}, "needs a function"),
    ],
)
async def test_options_that_make_no_sense_are_errors_that_name_them(options, text):
    with pytest.raises(anyfork.ArgumentError, match=text):
        aio.Pool(**options)


@pytest.mark.parametrize("template", [3, "python", {}, {3: 4}])
async def test_what_is_no_template_is_an_error(template):
    with pytest.raises(anyfork.ArgumentError, match="needs a"):
        aio.Pool(template)


async def test_users_keyword_arguments_are_no_options(template):
    from functools import partial

    async with aio.Pool(template) as pool:
        with pytest.raises(TypeError, match="key"):
            await pool.call(sorted, [1, 2], key=None)
        assert await pool.call(partial(sorted, [1, 3, 2], reverse=True)) == [3, 2, 1]
