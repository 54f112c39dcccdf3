"""Calls in an event loop: cancellation at every checkpoint, and what only the async face has."""

from __future__ import annotations

import asyncio
import operator
import os

import anyio
import call_functions
import numpy as np
import pytest
from cancelling import at_every_checkpoint, cancelled_at
from conftest import descendants, eventually
from deadlines import DEADLINE
from owner_side import pipe

import anyfork
from anyfork import aio

pytestmark = pytest.mark.anyio


@pytest.fixture
async def template(anyio_backend):
    """Yield a template whose forks become workers quickly, and close it at the end."""
    async with aio.Template() as template:
        yield await template.preload("anyio._backends._asyncio", "call_functions", "numpy").ready()


async def test_a_cancelled_call_of_a_concurrent_worker_leaves_it_as_it_was(template):
    async with aio.Worker(template.fork(), concurrency=5) as worker:

        async def cancel(number):
            with cancelled_at(number) as scope:
                await worker.call(call_functions.echo_later, number)
            assert await worker.call(call_functions.echo, number) == number
            return scope.cancel_called

        assert await at_every_checkpoint(cancel) >= 2
        assert worker._channel.calls.outstanding <= 5


async def test_a_cancelled_call_ends_its_worker_or_has_not_begun(template):
    async def cancel(number):
        async with aio.Worker(template.fork()) as worker:
            with cancelled_at(number) as scope:
                assert await worker.call(call_functions.echo, number) == number
            with anyio.fail_after(DEADLINE):
                found = await outcome(worker, number)
            assert found in (number, True, False)
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 4


async def outcome(worker, number):
    """Return the result of a call, or whether it may have run before the worker died."""
    try:
        return await worker.call(call_functions.echo, number)
    except anyfork.WorkerDiedError as error:
        return error.may_have_run


async def test_a_cancelled_call_in_a_process_of_its_own_leaves_no_process(template):
    before = set(descendants(template.pid))

    async def cancel(number):
        with cancelled_at(number) as scope:
            assert await aio.call(call_functions.echo, number, template=template) == number
        eventually(lambda: set(descendants(template.pid)) <= before, "a process is left")
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 4


async def test_cancelled_streams_and_maps_leave_their_worker_as_it_was(template):
    async with aio.Worker(template.fork()) as worker:

        async def cancel(number):
            with cancelled_at(number) as scope:
                async with await worker.stream(call_functions.count, 50) as items:
                    assert [item async for item in items] == list(range(50))
                async with worker.map(operator.neg, range(50)) as results:
                    assert [result async for result in results] == [-number for number in range(50)]
            assert await worker.call(call_functions.echo, number) == number
            return scope.cancel_called

        assert await at_every_checkpoint(cancel) >= 5


async def test_a_cancelled_call_with_much_data_leaves_nothing_open(template):
    array = np.ones(1 << 20)
    async with aio.Worker(template.fork(), concurrency=2) as worker:

        async def cancel(number):
            with cancelled_at(number) as scope:
                assert (await worker.call(call_functions.echo, array)).nbytes == array.nbytes
            assert await worker.call(call_functions.echo, number) == number
            return scope.cancel_called

        assert await at_every_checkpoint(cancel) >= 8  # the writing goes on piece by piece


async def test_with_wait_a_running_call_is_not_cancelled(template):
    async with aio.Worker(template.fork(), on_cancel="wait") as worker:
        await worker.ready()
        with pipe() as (read, write):
            async with anyio.create_task_group() as group:
                results = []

                async def call():
                    results.append(await worker.call(call_functions.wait_for, anyfork.Descriptor(read)))

                group.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
                os.write(write, b"late")
            assert results == [b"late"]
        assert await worker.call(call_functions.echo, 1) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_a_cancelled_task_of_asyncio_ends_its_call(template):
    async with aio.Worker(template.fork(), concurrency=2) as worker:
        task = asyncio.ensure_future(worker.call("anyio:sleep", 1000))
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await worker.call(call_functions.echo, 1) == 1


async def test_handlers_of_events_may_be_async(template):
    said = []

    async def hear(event):
        await anyio.lowlevel.checkpoint()
        said.append(event)

    async with aio.Worker(template.fork()) as worker:
        assert await worker.call(call_functions.say, 20, on_event=hear) == "said"
    assert said == list(range(20))


async def test_a_handler_may_call_the_worker_for_each_of_many_events_and_in_other_tasks(template):
    found = []
    async with aio.Worker(template.fork()) as worker:

        async def ask(value):
            found.append(await worker.call(abs, -value))

        async def ask_beside(value):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, value)

        with anyio.fail_after(DEADLINE):
            assert await worker.call(call_functions.say, 400, on_event=ask) == "said"
            assert await worker.call(call_functions.say, 3, on_event=ask_beside) == "said"
    assert found == [*range(400), 0, 1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a task of trio cannot be awaited
async def test_a_call_fails_alone_if_what_its_handler_returns_is_cancelled(template):
    loop = asyncio.get_running_loop()

    def handle(_):
        task = loop.create_task(asyncio.sleep(DEADLINE))
        loop.call_soon(task.cancel)
        return task

    async with aio.Worker(template.fork()) as worker:

        async def fail():
            with pytest.raises(anyfork.CallCancelledError, match="on_event"):
                await worker.call(call_functions.say, 1, on_event=handle)

        async with anyio.create_task_group() as tasks:  # one of them awaits what is for the other
            tasks.start_soon(fail)
            tasks.start_soon(fail)
        assert await worker.call(call_functions.echo, 1) == 1


async def test_a_handler_that_does_not_end_is_cancelled_with_its_call_and_gets_no_further_event(template):
    found = []
    async with aio.Worker(template.fork(), concurrency=2) as worker:
        with anyio.fail_after(DEADLINE):
            with anyio.CancelScope() as scope:

                async def hang(value):
                    found.append(value)
                    await worker.call(call_functions.echo, 1)  # this reads the other events
                    scope.cancel()
                    await anyio.sleep_forever()

                await worker.call(call_functions.say, 2, on_event=hang)
            assert scope.cancelled_caught
            assert await worker.call(call_functions.echo, 1) == 1
    assert found == [0]


async def test_a_handler_that_raises_fails_its_call(template):
    def refuse(event):
        raise ValueError(event)

    async with aio.Worker(template.fork(), concurrency=2) as worker:
        with pytest.raises(ValueError, match="0"):
            await worker.call(call_functions.say, 20, on_event=refuse)
        assert await worker.call(call_functions.echo, 1) == 1


async def test_map_takes_items_of_an_async_iterator(template):
    async def items():
        for number in range(50):
            await anyio.lowlevel.checkpoint()
            yield number

    async with aio.Worker(template.fork()) as worker:
        assert [result async for result in worker.map(operator.neg, items())] == [-number for number in range(50)]


@pytest.mark.parametrize("kind", [aio.Worker, aio.Pool])
async def test_two_tasks_cannot_wait_for_results_of_one_map(template, kind):
    with pipe() as (read, write):
        async with kind(template=template.fork()) as workers:
            results = workers.map(call_functions.wait_for, [anyfork.Descriptor(read)])
            taken = []

            async def take():
                taken.extend([result async for result in results])

            async with anyio.create_task_group() as group:
                group.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyfork.HandleError, match="while another task waits"):
                    await anext(results)
                os.write(write, b"late")
    assert taken == [b"late"]


async def test_many_tasks_call_one_worker(template):
    async with aio.Worker(template.fork(), concurrency=20) as worker:
        results = {}

        async def call(number):
            results[number] = await worker.call(call_functions.echo_later, number)

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(call, number)
        assert results == {number: number for number in range(300)}


async def test_a_task_group_that_is_left_ends_the_workers_in_it(template):
    before = set(descendants(template.pid))
    pids = []

    async def work():
        async with aio.Worker(template.fork()) as worker:
            pids.append((await worker.ready()).pid)
            await worker.call("time:sleep", 1000)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(work)
        with anyio.fail_after(DEADLINE):
            while len(pids) < 3:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert set(descendants(template.pid)) <= before


async def test_the_waiting_for_the_end_of_a_worker_handles_events(template):
    said = []
    async with aio.Worker(template.fork(), on_event=said.append) as worker:
        await worker.ready()
        with anyio.move_on_after(0):
            await worker.wait()
        worker.kill()
        with anyio.fail_after(DEADLINE):
            assert (await worker.wait()).signal == 9


async def test_what_a_worker_said_before_it_ended_is_heard_although_its_end_was_known_first(template):
    worker = aio.Worker(template.fork(), initializer=call_functions.fail, initargs=("early",))
    await worker._channel.process.wait()
    with pytest.raises(anyfork.InitializerError, match="early"):
        await worker.ready()
    await worker.aclose()
