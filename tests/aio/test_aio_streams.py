"""Standard streams of a process that are pipes: byte streams of its handle, and communicate(), in the async face."""

from __future__ import annotations

import asyncio
import os
from functools import partial

import anyio
import pytest
from owner_side import stopped

import anyfork
from anyfork import PIPE, STDOUT, aio

pytestmark = pytest.mark.anyio

ALL = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
ECHO = "import os, sys; text = sys.stdin.read(); sys.stdout.write(text * 2); sys.stderr.write(text)"


@pytest.fixture
async def template(anyio_backend):
    """Yield a template, and close it at the end."""
    async with aio.Template() as template:
        yield template


async def test_more_than_pipes_hold_goes_both_ways(template):
    async with await template.fork(**ALL).run_code(ECHO) as process:
        data = bytes(range(32, 127)) * 10_000
        assert await process.communicate(data) == (data * 2, data)
        assert process.returncode == 0


async def test_the_streams_are_byte_streams(template):
    code = "import os; [os.write(number, os.read(0, 9).upper()) for number in (1, 2)]"
    async with await template.fork(stdin=PIPE, stdout=PIPE, stderr=STDOUT).run_code(code) as process:
        for word in (b"one", b"two"):
            await process.stdin.send(word)
            assert await process.stdout.receive() == word.upper()
        assert process.stderr is None


async def test_after_a_cancellation_nothing_is_lost(template):
    read, write = os.pipe()
    process = await template.fork(stdin=read, stdout=PIPE).run_code("print(1, flush=True); input(); print(2)")
    os.close(read)
    async with process:
        assert await process.stdout.receive(1) == b"1"
        with anyio.move_on_after(0) as scope:
            await process.communicate()
        assert scope.cancelled_caught
        os.write(write, b"\n")
        os.close(write)
        assert await process.communicate() == (b"\n2\n", None)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_cancellations_of_asyncio_lose_nothing_and_send_nothing_twice(template):
    code = "import sys; sys.stdout.write(sys.stdin.read())"
    async with await template.fork(stdin=PIPE, stdout=PIPE).run_code(code) as process:
        await cancelled(process.stdin.send(b"once"))
        await process.stdin.send(b"once")
        await process.stdin.aclose()
        await process.wait()
        await cancelled(process.stdout.receive())
        assert await process.communicate() == (b"once", None)


async def cancelled(step):
    """Cancel a task whose step needs no waiting, after its first turn."""
    task = asyncio.ensure_future(step)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_limit_bounds_what_is_kept_and_the_process_goes_on(template):
    async with await template.fork(stdout=PIPE, stderr=PIPE).run_code("print('x' * 300_000)") as process:
        with pytest.raises(anyfork.OutputLimitError, match="more than 1000 bytes of stdout"):
            await process.communicate(limit=1000)
        assert await process.communicate(limit=300_001) == (b"x" * 300_000 + b"\n", b"")


async def test_a_process_may_leave_its_input_unread(template):
    async with await template.fork(stdin=PIPE).run_code("raise SystemExit(3)") as process:
        assert await process.communicate(b"x" * 300_000) == (None, None)
        assert process.returncode == 3


async def test_without_pipes_it_waits_and_takes_no_input(template):
    async with await template.run_code("pass") as process:
        with pytest.raises(anyfork.ArgumentError, match=r"stdin=anyfork.PIPE"):
            await process.communicate(b"lost")
        assert await process.communicate() == (None, None)


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
async def test_a_communicate_beside_other_uses_is_one_clear_error(template, stream):
    # Not a group of errors of AnyIO; what is under way goes on.
    async with await template.fork(**ALL).run_code(ECHO) as process, anyio.create_task_group() as tasks:
        use = partial(process.stdin.send, bytes(10**6)) if stream == "stdin" else process.stdout.receive
        with stopped(process.pid):
            tasks.start_soon(use)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyfork.HandleError, match=f"another task uses {stream}"):
                await process.communicate(b"x")
        process.kill()
        tasks.cancel_scope.cancel()


async def test_a_second_communicate_while_one_is_under_way_is_an_error_and_harms_nothing(template):
    read, write = os.pipe()
    process = await template.fork(stdin=read, stdout=PIPE).run_code("print(input())")
    os.close(read)
    async with process, anyio.create_task_group() as tasks:
        tasks.start_soon(process.communicate)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyfork.HandleError, match="call it once"):
            await process.communicate()
        os.write(write, b"one\n")
        os.close(write)
    assert process.returncode == 0


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
async def test_a_communicate_on_a_closed_stream_does_what_the_blocking_one_does(template, stream):
    async with await template.fork(stdin=PIPE, stdout=PIPE).run_code("import os; os.read(0, 1)") as process:
        await getattr(process, stream).aclose()
        if stream == "stdin":
            with pytest.raises(anyfork.HandleError, match="whose stdin was closed"):
                await process.communicate(b"x")
        else:
            assert await process.communicate(b"x") == (b"", None)


async def test_the_streams_move_with_the_process_until_they_are_used(template):
    process = await template.fork(stdout=PIPE).run_code("print(1)")
    blocking = await process.to_blocking()
    assert blocking.stdout.read() == b"1\n"
    with pytest.raises(anyfork.HandleError, match="in use"):
        aio.Process.from_blocking(blocking)
    assert blocking.wait().code == 0
    blocking.close()
