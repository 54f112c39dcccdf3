"""Pools whose templates are killed, and pools whose owner is killed in the middle: nothing stays, nothing hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial

import anyio
import pytest
from deadlines import DEADLINE
from programs import Program

import anyfork
from anyfork import aio
from anyfork._pools.scheduler import Scheduler
from anyfork._pools.worker_queue import JobCalls
from anyfork._processes.default_template import default_template

POOL = """
    import anyio
    from anyfork import aio

    async def main():
        read, write = os.pipe()
        gate = os.fdopen(read, "rb", buffering=0)
        template = {template}
        async with aio.Pool(template, max_workers=3, load=1, start_after=0, **{options}) as pool:
            async with anyio.create_task_group() as group:
                for _ in range({count}):
                    group.start_soon(pool.call, faulty.wait_at, gate)
                while len(pool.pids) < {expected} or pool.stats().starting:
                    await anyio.sleep(0.001)
                {then}

    anyio.run(main, backend="{backend}")
"""
OPTIONS = [
    ("workers that are busy, and a queue", {"options": "{}", "count": 9, "expected": 3}),
    ("idle workers", {"options": "dict(min_idle=3)", "count": 0, "expected": 3}),
    ("workers that ignore signals", {"options": "dict(initializer=faulty.ignore_signals)", "count": 9, "expected": 3}),
]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("what", "given"), OPTIONS, ids=[what for what, _ in OPTIONS])
@pytest.mark.parametrize("template", ["None", "aio.Template.new_exec()"])
def test_nothing_is_left_of_a_pool_whose_owner_is_killed(what, given, template, backend):
    source = POOL.format(template=template, backend=backend, then="say(pool.pids); hear()", **given)
    with Program(source) as program:
        pids = program.read()
        assert len(pids) == 3
        assert set(pids) <= set(program.everyone())
        program.kill()
        program.wait_for(())


@pytest.mark.parametrize("number", [1, 2, 5, 20])
def test_nothing_is_left_of_a_pool_whose_owner_is_killed_while_workers_come_and_go(number):
    source = f"""
    import anyio
    from anyfork import aio

    async def main():
        async with aio.Pool(max_workers=4, load=1, start_after=0, max_calls=1) as pool:
            count = 0
            async for _ in pool.map(faulty.same, range(1000), window=8):
                count += 1
                if count == {number}:
                    os.kill(os.getpid(), signal.SIGKILL)

    anyio.run(main)
    """
    with Program(source) as program:
        assert program.wait() == -signal.SIGKILL
        program.wait_for(())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_ends_without_closing_its_pool_says_nothing_and_leaves_nothing(backend):
    source = f"""
    import anyio
    from anyfork import aio

    async def main():
        global pool
        pool = aio.Pool(min_idle=2)
        print(await pool.call(faulty.same, 5), flush=True)

    anyio.run(main, backend="{backend}")
    """
    with Program(source) as program:
        assert program.read() == 5
        assert program.wait() == 0
        assert program.errors() == ""
        program.wait_for(())


@pytest.mark.anyio
async def test_the_default_template_may_be_killed_at_any_time():
    async with aio.Pool(max_workers=1) as pool:
        for _ in range(3):
            pid = await pool.call(os.getpid)
            link = default_template._link
            assert link is not None
            os.kill(link.session.pid, signal.SIGKILL)
            assert await pool.call(os.getpid) == pid, "workers outlive their template"
            os.kill(pid, signal.SIGKILL)
            while pool.stats().workers:
                await anyio.sleep(0.001)


@pytest.mark.anyio
async def test_jobs_that_wait_are_told_when_their_template_has_gone():
    async with aio.Template.new_exec() as template, aio.Pool(template, max_workers=2) as pool:
        os.kill((await template.ready()).pid, signal.SIGKILL)
        errors = []

        async def call():
            with pytest.raises(anyfork.AnyforkError) as caught:
                await pool.call(os.getpid)
            errors.append(caught.value)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(call)
        assert len({id(error) for error in errors}) == 5, "each has an error of its own"


def test_an_answer_is_delivered_although_an_interrupt_comes_before_its_worker_is_measured(monkeypatch):
    def strike(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    async def main() -> None:
        async with aio.Pool(max_workers=1, concurrency=2, max_memory=1 << 40) as pool:
            assert await pool.call(abs, -1) == 1
            monkeypatch.setattr(JobCalls, "measure", strike)
            assert await asyncio.wait_for(pool.call(abs, -2), DEADLINE) == 2

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        loop.run_until_complete(task)


def fail_after_an_answer(monkeypatch, once):
    """Let decisions of schedulers fail, once or always, when the first answer has come."""
    decide = Scheduler.decide

    def decide_or_fail(scheduler: Scheduler, now: float) -> object:
        if scheduler.stats().answered:
            if once:
                monkeypatch.undo()
            raise ZeroDivisionError
        return decide(scheduler, now)

    monkeypatch.setattr(Scheduler, "decide", decide_or_fail)


@pytest.fixture
def failing(monkeypatch):
    """Let the next pool fail once, when the first answer has come."""
    fail_after_an_answer(monkeypatch, once=True)


@pytest.fixture
def broken(monkeypatch):
    """Let each decision of a scheduler fail as soon as it has seen an answer."""
    fail_after_an_answer(monkeypatch, once=False)


@pytest.mark.anyio
@pytest.mark.usefixtures("failing")
async def test_an_answer_whose_worker_is_being_measured_is_delivered_when_the_pool_fails():
    with anyio.fail_after(DEADLINE):
        async with aio.Pool(max_workers=1, max_memory=1 << 40) as pool:
            assert await pool.call(abs, -1) == 1
            with pytest.raises(anyfork.PeerError, match="a pool has failed: ZeroDivisionError"):
                await pool.call(abs, -1)


@pytest.mark.anyio
@pytest.mark.usefixtures("failing")
async def test_a_pool_that_fails_can_be_closed_although_a_map_has_items_that_were_in_no_job():
    with anyio.fail_after(DEADLINE):
        async with aio.Pool(max_workers=1, max_memory=1 << 40) as pool:
            results = pool.map(abs, range(9), return_exceptions=True)
            assert await anext(results) == 0
        rest = [await anext(results) for _ in range(8)]
        assert isinstance(rest[-1], anyfork.PeerError)


@pytest.mark.anyio
@pytest.mark.usefixtures("broken")
async def test_a_pool_whose_every_decision_fails_ends_its_calls_and_can_be_closed():
    with anyio.fail_after(DEADLINE):
        async with aio.Pool(max_workers=1, load=1) as pool, anyio.create_task_group() as group:

            async def wait_for_failure() -> None:
                with pytest.raises(anyfork.PeerError, match="a pool has failed: ZeroDivisionError"):
                    await pool.call(signal.pause)

            group.start_soon(partial(pool.call, abs, -1, priority=1))
            for _ in range(2):
                group.start_soon(wait_for_failure)
        stats = pool.stats()
        assert (stats.queued, stats.running, stats.submitted) == (0, 0, stats.answered + stats.failed)


@pytest.mark.usefixtures("broken")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_an_executor_whose_every_decision_fails_ends_its_futures_and_can_be_shut_down():
    read, write = os.pipe()
    with anyfork.Executor(max_workers=1, load=1) as executor:
        executor.submit(lambda gate: os.read(gate.fileno(), 1), anyfork.Descriptor(read))
        futures = [executor.submit(signal.pause) for _ in range(2)]
        os.write(write, b"x")  # the first answer comes when all are submitted
        for future in futures:
            with pytest.raises(anyfork.PeerError, match="an Executor has failed: ZeroDivisionError"):
                future.result(DEADLINE)
    os.close(read)
    os.close(write)
    stats = executor.stats()
    assert (stats.queued, stats.running, stats.submitted) == (0, 0, stats.answered + stats.failed)


@pytest.mark.usefixtures("failing")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_an_answer_whose_worker_is_being_measured_is_delivered_when_an_executor_fails():
    with anyfork.Executor(max_workers=1, max_memory=1 << 40) as executor:
        assert executor.submit(abs, -1).result(DEADLINE) == 1


def test_a_map_ends_whose_queued_job_has_all_its_answers():
    """An interrupt may leave that: the job is dropped when a worker gets it."""
    read, write = os.pipe()
    executor = anyfork.Executor(max_workers=1, load=1)
    try:
        running = executor.submit(lambda gate: os.read(gate.fileno(), 1), anyfork.Descriptor(read))
        while executor.stats().running < 1:
            os.sched_yield()
        results = executor.map(abs, [-1])
        dispatcher = executor._dispatcher
        with dispatcher.lock:
            [work] = dispatcher.works
            while work.items:
                index, _ = work.items.popitem()
                work.settle(index, 1)
        os.write(write, b"x")
        assert running.result(DEADLINE) == b"x"
        executor.submit(abs, -1).result(DEADLINE)
        assert not dispatcher.works
        assert list(results) == [1]
    finally:
        os.close(read)
        os.close(write)
        executor.shutdown(wait=False)
