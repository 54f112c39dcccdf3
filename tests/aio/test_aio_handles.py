"""What the async handles do beyond the contract that both faces have: plain calls, streams, and moving between faces."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

import anyio
import child_side
import pytest
from aio_handles_functions import (
    answer,
    double,
    exit_with,
    raise_something,
    run_beside,
    say_all,
    say_at_once,
    tell_the_end,
    wait_into,
    write_to_descriptors,
)
from conftest import descriptors, eventually
from deadlines import DEADLINE
from owner_side import ended, pipe, read_all, stopped

import anyfork
from _anyfork_child.wire.platform import has_pidfds
from anyfork import aio

pytestmark = pytest.mark.anyio


@pytest.fixture
async def template(anyio_backend):
    """Yield a template, and close it at the end."""
    async with aio.Template() as template:
        yield template


BACKLOG = 800  # times 60 kB: more than any socket takes


async def read_to_end(stream):
    """Return all that a process sends."""
    data = b""
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            data += await stream.receive()
    return data


def pidfds():
    """Return how many pidfds this process holds."""
    return [*descriptors().values()].count("anon_inode:[pidfd]")


async def ask(template, expression, *values):
    """Return the value of an expression in a process of this template, as bytes of its repr."""
    async with await template.run(answer, *values, expression) as process:
        return (await read_to_end(process.channel)).decode()


# --- Plain calls ----------------------------------------------------------------------------------------------------


async def test_plain_calls_need_no_await(template):
    template.preload("json").execute("x = 1").prepare(child_side.add_one).send(1, 2)
    async with template.fork().send(3) as fork:
        assert await ask(fork, "v") == "[1, 2, 3]"


async def test_a_process_may_be_started_and_awaited_later(template):
    process = template.start(child_side.echo)
    with pytest.raises(anyfork.HandleError, match="await its ready"):
        process.channel  # noqa: B018  # the property is what raises
    await process.ready()
    await process.channel.send(b"hello")
    assert await process.channel.receive() == b"hello"
    async with process:
        pass
    assert process.returncode == 0


async def test_a_wait_for_a_process_whose_end_nothing_can_report_any_more_is_over_at_once(template):
    # An interrupt may have come between the end of the template and the note of it; nothing is polled for.
    process = await template.run(child_side.echo)
    session = process._link.session
    pidfd, session.pidfd, session.status_ended = session.pidfd, -1, True
    assert not (await process.wait()).known
    os.close(pidfd)


async def test_handles_may_be_made_before_the_loop_runs_and_outlive_it():
    kept = []

    def prepare():
        kept.append(aio.Template().preload("json"))

    await anyio.to_thread.run_sync(prepare)  # no loop runs there
    async with kept[0] as template:
        assert await ask(template, "v", 5) == "[5]"


# --- Queues ---------------------------------------------------------------------------------------------------------


async def test_a_stopped_template_does_not_hold_up_the_loop(template):
    await template.ready()
    with stopped(template.pid):
        for number in range(BACKLOG):
            template.send(number.to_bytes(4, "little") * 15_000)
        assert template._link.outbox
        async with aio.Template() as other:
            assert await ask(other, "v", "meanwhile") == "['meanwhile']"
    assert await ask(template, "[int.from_bytes(x[:4], 'little') for x in v] == list(range(len(v)))") == "True"


async def test_what_was_queued_is_delivered_although_nobody_awaits_it():
    template = await aio.Template().ready()
    with pipe() as (read, write):
        with stopped(template.pid):
            for _ in range(BACKLOG):
                template.send(b"x" * 60_000)
            template.execute("import os; os.write(args[0].fileno(), b'done')", anyfork.Descriptor(write))
            os.close(write)
            del template
            gc.collect()
        await anyio.wait_readable(read)
        assert os.read(read, 10) == b"done"


async def test_aclose_waits_until_everything_is_delivered(template):
    await template.ready()
    async with template.fork() as fork:
        await fork.ready()
        with stopped(fork.pid):
            for _ in range(BACKLOG):
                fork.send(b"x" * 60_000)
            with anyio.move_on_after(0.05) as scope:
                await fork.aclose()
            assert scope.cancelled_caught
        await fork.aclose()
        assert not fork._link.outbox


async def test_a_large_argument_is_written_piece_by_piece_while_others_run(template):
    await template.preload("child_side").ready()
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await anyio.lowlevel.checkpoint()
        fork = template.fork().send(b"x" * (64 << 20))
        before = turns
        process = await fork.run(child_side.tell_peak)
        assert turns - before > 64
        assert (await process.channel.receive()).split()[0] == str(64 << 20).encode()
        group.cancel_scope.cancel()
    await process.wait()
    await process.aclose()


async def test_the_owner_of_a_large_argument_may_change_it_after_the_call(template):
    value = bytearray(b"a" * (8 << 20))
    template.send(value)
    value[:] = b"b" * (8 << 20)
    assert await ask(template, "v[0].count(b'a')") == str(8 << 20)


# --- Channels -------------------------------------------------------------------------------------------------------


async def test_descriptors_can_be_sent_over_the_channel_while_the_process_runs(template):
    with pipe() as (read, write):
        async with await template.run(write_to_descriptors) as process:
            await process.channel.send_fds(b".", [write])
            os.close(write)
            await anyio.wait_readable(read)
            assert os.read(read, 10) == b"got it"


async def test_bytes_of_the_function_right_behind_its_start_are_the_channels(template):
    for size in (1, 16, 70_000):
        async with await template.fork().run(say_at_once, size) as process:
            assert await read_to_end(process.channel) == b"\x01" * size


async def test_a_dropped_process_goes_on_and_sees_the_end_of_its_channel(template):
    with pipe() as (read, write):
        process = await template.run(tell_the_end, anyfork.Descriptor(write))
        os.close(write)
        del process
        gc.collect()
        await anyio.wait_readable(read)
        assert os.read(read, 10) == b"b''"


# --- Signals and ends -----------------------------------------------------------------------------------------------


async def test_a_process_may_be_killed_before_anything_is_known_of_it(template):
    process = template.start(child_side.until_closed)
    process.kill()
    status = await process.wait()
    assert status.signal == signal.SIGKILL
    await process.aclose()


async def test_a_process_may_be_killed_right_after_it_was_entered(template):
    for _ in range(20):
        process = await template.fork().run(child_side.until_closed)
        process.kill()
        assert (await process.wait()).signal == signal.SIGKILL
        await process.aclose()


async def test_a_process_may_be_killed_twice_before_its_template_has_said_so(template):
    # The template is held between the fork and its report, so that only the process itself has said who it is.
    code = "import os\nos.register_at_fork(after_in_parent=lambda: os.read(args[0].fileno(), 1))"
    with pipe() as (held, release):
        await template.execute(code, anyfork.Descriptor(held)).ready()
        process, before = template.fork().start(child_side.until_closed), pidfds()
        async with anyio.create_task_group() as group:
            group.start_soon(process.ready)
            with anyio.fail_after(DEADLINE):
                while process.pid is None:
                    await anyio.lowlevel.checkpoint()
            process.kill()
            process.kill()
            assert pidfds() == before + has_pidfds()
            os.write(release, b"x")
    assert (await process.wait()).signal == signal.SIGKILL
    await process.aclose()


async def test_many_tasks_may_wait_for_one_process(template):
    statuses = []
    async with await template.run(child_side.until_closed) as process:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(wait_into, process, statuses)
            await anyio.wait_all_tasks_blocked()
            process.kill()
    assert [status.signal for status in statuses] == [signal.SIGKILL] * 20


async def test_a_task_that_is_cancelled_leaves_the_others_waiting(template):
    statuses = []
    async with await template.run(child_side.until_closed) as process, anyio.create_task_group() as others:
        async with anyio.create_task_group() as first:  # this one watches the descriptor, the others wait behind it
            first.start_soon(process.wait)
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):
                others.start_soon(wait_into, process, statuses)
            await anyio.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        process.kill()
    assert len(statuses) == 3


@pytest.mark.slow
async def test_ten_thousand_waits_leave_no_descriptor(template):
    async with await template.run(child_side.until_closed) as process:
        before = descriptors()
        for _ in range(100):
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(process.wait)
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        assert descriptors() == before


@pytest.mark.slow
async def test_five_hundred_processes_may_be_started_at_once_from_one_task_group(template):
    await template.preload("child_side").ready()
    codes = []

    async def one(code):
        async with await template.fork().run(child_side.leave, code) as process:
            codes.append((await process.wait()).code)

    with many_descriptors():
        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(one, number % 100)
    assert sorted(codes) == sorted(number % 100 for number in range(500))


@pytest.mark.slow
async def test_a_thousand_processes_may_be_alive_at_once(template):
    await template.preload("child_side").ready()
    with many_descriptors():
        processes = [template.fork().start(child_side.echo) for _ in range(1000)]
        for process in processes:
            await process.ready()
        for number, process in enumerate(processes):
            await process.channel.send(b"%d" % number)
        assert [await process.channel.receive() for process in processes] == [b"%d" % n for n in range(1000)]
        for process in processes:
            await process.channel.aclose()
        assert {(await process.wait()).code for process in processes} == {0}
        for process in processes:
            await process.aclose()


@contextlib.contextmanager
def many_descriptors():
    """Allow three descriptors for each process, and some more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"no more than {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- Neighbours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_subprocesses_of_the_loop_are_not_disturbed(template, anyio_backend):
    before = signal.getsignal(signal.SIGCHLD)
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(run_beside, number)
            group.start_soon(run_ours, template.fork(), number)
    assert signal.getsignal(signal.SIGCHLD) is before or anyio_backend[1]  # uvloop sets its own


async def run_ours(template, number):
    async with await template.run(child_side.leave, number) as process:
        assert (await process.wait()).code == number


async def test_processes_of_anyio_are_not_disturbed(template):
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(run_anyios, number)
            group.start_soon(run_ours, template.fork(), number)


async def run_anyios(number):
    done = await anyio.run_process([sys.executable, "-c", f"raise SystemExit({number})"], check=False)
    assert done.returncode == number


async def test_a_forked_copy_of_the_program_refuses(template):
    await template.ready()
    with pipe() as (read, write):
        pid = os.fork()
        if pid == 0:
            # Runs in the copy: no loop and no test framework from here on.
            said = b"nothing"
            try:
                template.send(1)
            except anyfork.HandleError as error:
                said = b"forked copy" if "forked copy" in str(error) else str(error).encode()
            os.write(write, said)
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 1000) == b"forked copy"


# --- Async functions ------------------------------------------------------------------------------------------------


async def test_an_async_function_gets_its_channel_as_a_stream(template):
    async with await template.run(double) as process:
        await process.channel.send(b"21")
        assert await process.channel.receive() == b"asyncio 42"


async def test_an_async_function_may_run_under_trio(template):
    async with await template.run(double, backend="trio") as process:
        await process.channel.send(b"21")
        assert await process.channel.receive() == b"trio 42"


async def test_an_async_function_is_found_by_its_name(template):
    template.execute("import anyio\nasync def say(channel, text): await channel.send(text)")
    for backend in (None, "asyncio", "trio"):
        async with await template.fork().run("say", b"named", backend=backend) as process:
            assert await read_to_end(process.channel) == b"named"


async def test_an_async_function_gets_what_was_sent(template):
    async with await template.send(1).run(say_all, 2) as process:
        assert await read_to_end(process.channel) == b"(1, 2)"


async def test_an_async_function_that_raises_is_the_status(template):
    async with await template.run(raise_something) as process:
        status = await process.wait()
    assert status.code == 1
    assert "LookupError: not here" in status.error


async def test_an_async_function_may_exit(template):
    async with await template.run(exit_with, 7) as process:
        assert (await process.wait()).code == 7


@pytest.mark.untraced
async def test_a_loop_is_loaded_only_for_the_functions_that_need_it(template):
    async with await template.fork().run(child_side.tell_modules, "asyncio", "anyio", "trio") as process:
        assert await read_to_end(process.channel) == b""
    async with await template.run(child_side.tell_modules_async, "asyncio", "anyio", "trio") as process:
        assert await read_to_end(process.channel) == b"asyncio anyio"


async def test_a_backend_that_does_not_exist_is_an_error_at_the_call(template):
    with pytest.raises(anyfork.ArgumentError, match="no backend 'curio'"):
        template.start(double, backend="curio")


# --- Moving between the faces ---------------------------------------------------------------------------------------


async def test_a_blocking_template_becomes_an_async_one():
    blocking = anyfork.Template().send(1)
    async with aio.Template.from_blocking(blocking) as template:
        assert await ask(template.send(2), "v") == "[1, 2]"
    for use in (blocking.fork, blocking.ready, lambda: blocking.send(1), lambda: aio.Template.from_blocking(blocking)):
        with pytest.raises(anyfork.HandleError, match="was moved to another one"):
            use()
    blocking.close()


async def test_an_async_template_becomes_a_blocking_one():
    template = aio.Template().send(1)
    with template.to_blocking() as blocking:
        process = await anyio.to_thread.run_sync(blocking.run, answer, "v")
        with process:
            assert read_all(process.channel) == b"[1]"
    with pytest.raises(anyfork.HandleError, match="was moved to another one"):
        template.fork()
    await template.aclose()


async def test_a_blocking_process_becomes_an_async_one():
    blocking = anyfork.Template().run(child_side.echo)
    blocking.channel.sendall(b"before")
    async with await aio.Process.from_blocking(blocking).ready() as process:
        assert await process.channel.receive() == b"before"
        await process.channel.send(b"after")
        assert await process.channel.receive() == b"after"
    assert process.returncode == 0
    with pytest.raises(anyfork.HandleError, match="moved"):
        blocking.wait()


async def test_an_async_process_becomes_a_blocking_one(template):
    process = await template.run(child_side.echo)
    await process.channel.send(b"before")
    blocking = await process.to_blocking()
    assert blocking.channel.recv(100) == b"before"
    blocking.channel.close()
    assert ended(blocking).code == 0
    with pytest.raises(anyfork.HandleError, match="moved"):
        await process.wait()
    await process.aclose()


async def test_a_process_that_is_not_ready_may_move_too(template):
    blocking = await template.start(child_side.leave, 3).to_blocking()
    assert ended(blocking).code == 3


# --- The end of the loop --------------------------------------------------------------------------------------------


def test_a_loop_may_end_with_everything_still_open(anyio_backend):
    kept = []

    async def main():
        template = await aio.Template().ready()
        kept.append(template)
        kept.append(await template.fork().run(child_side.until_closed))
        kept.append(template.fork().start(child_side.until_closed))
        with stopped(template.pid):
            for _ in range(BACKLOG):
                template.send(b"x" * 60_000)

    backend, options = anyio_backend
    anyio.run(main, backend=backend, backend_options=options)
    pids = [handle.pid for handle in kept[:2]]
    kept.clear()
    gc.collect()
    anyfork.Template().ready(DEADLINE).close()  # goes on with what is left in queues
    eventually(lambda: anyfork.Template().close() or not any(os.path.exists(f"/proc/{pid}") for pid in pids))
