"""Cancellation, at every checkpoint of every operation: nothing is half done, and what was cancelled can be done again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import sys

import anyio
import child_side
import pytest
from cancelling import at_every_checkpoint, cancelled_at
from conftest import descendants, eventually, wait_for_end
from deadlines import DEADLINE
from owner_side import pipe, stopped

import anyfork
from anyfork import aio
from anyfork.aio import _waiting

pytestmark = pytest.mark.anyio


@pytest.fixture
async def template(anyio_backend):
    """Yield a template, and close it at the end."""
    async with aio.Template() as template:
        yield await template.preload("child_side").ready()


async def test_a_cancelled_run_leaves_no_process(template):
    before = set(descendants(template.pid))

    async def cancel(number):
        with pipe() as (read, write), cancelled_at(number) as scope:
            process = await template.fork().run(child_side.until_closed, anyfork.Descriptor(write))
            process.kill()
            await process.aclose()
        # The process had a copy of the pipe's writing end; this one is closed by now.
        eventually(lambda: set(descendants(template.pid)) <= before, "a process is left")
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 2


async def test_the_function_of_a_run_that_was_cancelled_before_it_was_ready_is_never_entered(template):
    with pipe() as (listen, said), pipe() as (read, write):
        value = child_side.Decoding(child_side.stay_when_decoded, anyfork.Descriptor(read))
        with os.fdopen(os.dup(said), "wb", 0) as file:
            os.close(said)
            with anyio.move_on_after(0.05) as scope:
                await template.fork().run(child_side.write_to, file, value)
            assert scope.cancelled_caught
        os.close(write)
        await anyio.wait_readable(listen)
        assert os.read(listen, 10) == b""


async def test_a_run_that_is_cancelled_while_its_template_is_stopped_never_enters(template):
    with pipe() as (listen, said):
        with stopped(template.pid), os.fdopen(os.dup(said), "wb", 0) as file:
            os.close(said)
            with anyio.move_on_after(0.05) as scope:
                await template.fork().run(child_side.write_to, file, b"entered")
            assert scope.cancelled_caught
        await anyio.wait_readable(listen)
        assert os.read(listen, 10) == b""


async def test_a_cancelled_run_program_leaves_no_process(template):
    before = set(descendants(template.pid))

    async def cancel(number):
        with cancelled_at(number) as scope:
            process = await template.fork().run_program(["sleep", "1000"])
            process.kill()
            await process.aclose()
        eventually(lambda: set(descendants(template.pid)) <= before, "a program is left")
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 2


async def test_a_program_that_runs_before_its_template_has_said_so_ends_with_a_cancelled_run(template):
    # The template is held between the fork and its report, so that only the process itself has said who it is.
    before = set(descendants(template.pid))
    code = "import os\nos.register_at_fork(after_in_parent=lambda: os.read(args[0].fileno(), 1))"
    with pipe() as (held, release), pipe() as (said, out):
        template.execute(code, anyfork.Descriptor(held))
        async with anyio.create_task_group() as group:
            group.start_soon(template.fork(stdout=out).run_program, ["sh", "-c", "echo it runs; exec sleep 1000"])
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            assert select.select([said], [], [], DEADLINE)[0]  # without the loop, which shall not hear of it before
            group.cancel_scope.cancel()
        os.write(release, b"x")
        eventually(lambda: set(descendants(template.pid)) <= before, "the program is left")


async def test_a_cancelled_ready_of_a_template_can_be_awaited_again(template):
    async def cancel(number):
        async with template.fork() as fork:
            with cancelled_at(number) as scope:
                await fork.ready()
            assert (await fork.ready()).pid
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 2


async def test_a_cancelled_ready_of_a_template_that_fails_tells_the_failure_later(template):
    async def cancel(number):
        async with template.fork().preload("no_such_module") as fork:
            with cancelled_at(number) as scope, contextlib.suppress(anyfork.PreloadError):
                await fork.ready()
            with pytest.raises(anyfork.PreloadError):
                await fork.ready()
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 2


async def test_a_cancelled_ready_of_a_process_can_be_awaited_again(template):
    async def cancel(number):
        process = template.fork().start(child_side.echo)
        with cancelled_at(number) as scope:
            await process.ready()
        async with await process.ready():
            await process.channel.send(b"alive")
            assert await process.channel.receive() == b"alive"
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 2


async def test_a_cancelled_wait_is_harmless(template):
    async def cancel(number):
        process = await template.fork().run(child_side.leave, 5)
        with cancelled_at(number) as scope:
            await process.wait()
        assert (await process.wait()).code == 5
        await process.aclose()
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 1


async def test_a_cancelled_detach_leaves_the_handle_usable(template):
    async def cancel(number):
        fork = template.fork().send(1)
        with cancelled_at(number) as scope:
            (await fork.detach()).close()
        if scope.cancelled_caught:
            async with aio.Template.from_socket(await fork.detach()) as moved:
                assert await peek(moved) == b"1"
        return scope.cancel_called

    assert await at_every_checkpoint(cancel) >= 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_detach_that_asyncio_itself_cancels_leaves_the_handle_usable(template):
    # Such a cancellation comes even to a shielded checkpoint. None may follow once the socket is known.
    task, cancelled = asyncio.current_task(), []

    def cancel_task(_):
        cancelled.append(task.cancel())

    async def cancel(number):
        fork, came = template.fork().send(1), len(cancelled)
        try:
            with cancelled_at(number, cancel_task):
                (await fork.detach()).close()
        except asyncio.CancelledError:
            task.uncancel()
            async with aio.Template.from_socket(await fork.detach()) as moved:
                assert await peek(moved) == b"1"
        return len(cancelled) > came

    assert await at_every_checkpoint(cancel) >= 1


async def peek(template):
    async with await template.run(child_side.count_arguments) as process:
        return await process.channel.receive()


async def test_a_detach_that_is_cancelled_with_its_queue_not_delivered_leaves_the_handle_usable(template):
    fork = await template.fork().ready()
    with stopped(fork.pid):
        for _ in range(800):
            fork.send(b"x" * 60_000)
        with anyio.move_on_after(0.05) as scope:
            await fork.detach()
        assert scope.cancelled_caught
    fork.send(1)
    async with fork:
        assert await peek(fork) == b"801"


async def test_a_cancelled_aclose_closes_all_the_same(template):
    async def cancel(number):
        fork = await template.fork().ready()
        pid = fork.pid
        with cancelled_at(number) as scope:
            await fork.aclose()
        wait_for_end(pid)
        return scope.cancel_called

    await at_every_checkpoint(cancel)


async def test_a_block_that_is_cancelled_ends_its_process(template):
    async def cancel(number):
        with cancelled_at(number) as scope:
            async with await template.fork().run(child_side.until_closed):
                pass
        eventually(lambda: set(descendants(template.pid)) <= before, "a process is left")
        return scope.cancel_called

    before = set(descendants(template.pid))
    assert await at_every_checkpoint(cancel) >= 3


async def test_leaving_a_task_group_ends_what_was_started_in_it(template):
    started = []

    async def one():
        async with await template.fork().run(child_side.stay_whatever_comes) as process:
            started.append(process)
            await process.wait()

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one)
        while len(started) < 10:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert {process.returncode for process in started} == {-9}


async def test_a_block_that_is_cancelled_does_not_wait_for_a_template_that_is_stopped(template):
    process = await template.fork().run(child_side.stay_whatever_comes)
    pidfd = os.pidfd_open(process.pid)
    with stopped(template.pid):
        with anyio.CancelScope() as scope:
            async with process:
                scope.cancel()
                await process.wait()
        await anyio.wait_readable(pidfd)
    os.close(pidfd)


class InterruptAtLine:
    """Raises KeyboardInterrupt at the n-th line of a function that this thread executes in a block."""

    def __init__(self, function, number):
        self._code, self.left = function.__code__, number

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _trace(self, frame, event, _argument):
        if frame.f_code is self._code and event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self._trace if frame.f_code is self._code else None


@pytest.mark.parametrize(
    ("function", "use"),
    [
        (aio.Worker.call, lambda worker: worker.call(abs, -1, timeout=DEADLINE)),
        (_waiting.within, lambda worker: worker.aclose()),
    ],
)
async def test_an_interrupt_at_the_exit_of_a_cancel_scope_leaves_it_and_those_around_it(template, function, use):
    kept = []  # with all that their tracebacks refer to
    for number in itertools.count(1):
        worker = await aio.Worker(template.fork()).ready()
        line = InterruptAtLine(function, number)
        with anyio.CancelScope():
            try:
                with line:
                    await use(worker)
            except KeyboardInterrupt as interrupt:
                kept.append(interrupt)
        await worker.aclose()
        if line.left > 0:
            return
