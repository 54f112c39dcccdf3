"""aio.Warm makes its template again when that is stale, and programs start cold without one."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
from operator import methodcaller

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from conftest import descendants, eventually
from deadlines import DEADLINE, PROGRAM_DEADLINE
from pool_side import Gate, ask, until

import anyfork
from anyfork import aio

pytestmark = pytest.mark.anyio

SHOW = "import sys, shown; print(shown.value, 'fractions' in sys.modules)"


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Return a function that gives the module ``shown`` a value."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def edit(value):
        (tmp_path / "shown.py").write_text(f"value = {value}\ndef get(*_): return value")

    edit(10)
    return edit


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.close()


async def output(warm, source=SHOW):
    async with await warm.run_code(source, stdout=anyfork.PIPE) as process:
        return b"".join([part async for part in process.stdout])


async def test_code_older_than_the_files_never_runs(edit):
    async with aio.Warm("shown", "fractions") as warm:
        assert await aio.call("shown:get", template=warm) == 10
        edit(11)
        assert await output(warm) == b"11 True\n"
        edit(12)
        options = await aio.call("_anyfork_child.program.command_line:own", template=warm)
        done = await aio.run_process([sys.executable, *options, "-c", SHOW], template=warm)
        assert done.stdout == b"12 True\n"
        edit(13)
        async with aio.Worker(warm) as worker:
            assert await worker.call("shown:get") == 13
            edit(14)
            assert [found async for found in worker.map("shown:get", range(2))] == [13, 13]  # it keeps its code
        report = warm.report()
        assert (report.made, report.starts, report.cold) == (4, 5, 0)


async def test_a_worker_that_nothing_has_needed_makes_no_template(edit):
    async with aio.Warm("shown", cool_down=0) as warm:
        async with aio.Worker(warm) as worker:
            assert worker.pid is None
        killed = aio.Worker(warm)
        killed.kill()
        assert warm.report().made == 0
        edit("1 / 0")
        async with aio.Worker(warm) as worker:
            with pytest.raises(anyfork.PreloadError):
                await worker.ready()
            edit(11)
            assert await worker.call("shown:get") == 11
        with pytest.raises(anyfork.HandleError, match="killed"):
            await killed.ready()
        await killed.aclose()


async def test_a_pool_moves_to_the_template_that_is_up_to_date(edit):
    async with aio.Warm("shown") as warm, aio.Template() as other:
        async with aio.Pool({warm: 1, other: 0}) as pool:
            assert await pool.call("shown:get") == 10
            [pid] = pool.pids
            assert await pool.call(os.getpid) == pid  # one worker, as long as nothing changes
            edit(11)
            assert [found async for found in pool.map("shown:get", range(3))] == [11, 11, 11]
            edit(12)
            async with anyio.create_task_group() as tasks:  # one look serves all of them
                found = []
                for _ in range(20):
                    tasks.start_soon(collect, found, pool)
            assert found == [12] * 20
            pool.resize(limits={warm: 2})
            edit("1 / 0")
            with pytest.raises(anyfork.PreloadError, match="shown"):
                await pool.call("shown:get")
            pool.replace_template(other, warm)
            assert await pool.call(abs, -1) == 1  # it does not follow the Warm any longer
        assert warm.report().made == 3


async def test_a_pool_looks_at_its_template_after_an_interrupt_before_it_could(edit, monkeypatch):
    async with aio.Warm("shown") as warm, aio.Pool(warm) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(type(pool._pool_loop.here("call")), "spawn", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await pool.call("shown:get")
        with anyio.fail_after(DEADLINE):
            assert await pool.call("shown:get") == 10


async def collect(found, pool):
    found.append(await pool.call("shown:get"))


async def test_calls_that_wait_while_the_template_is_killed_run_in_the_next_one(edit, gate):
    async with aio.Warm("shown") as warm, aio.Pool(warm, max_workers=1, max_calls=1) as pool:
        found = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.call, read, gate.file)
            await until(lambda: pool.stats().running == 1)
            tasks.start_soon(collect, found, pool)
            tasks.start_soon(collect, found, pool)
            await until(lambda: pool.stats().queued == 2)
            [followed] = pool._pool_loop.followed
            await followed.template.ready()
            os.kill(followed.template.pid, signal.SIGKILL)
            with pytest.raises(anyfork.TemplateError):
                await followed.template.ready()
            edit(11)
            gate.open()
        assert found == [11, 11]
        assert pool.stats().failed == 0


async def test_a_pool_that_closes_runs_the_calls_that_wait_for_the_next_template(edit, gate):
    making, go_on = threading.Event(), threading.Event()

    def make():
        making.set()
        assert go_on.wait(DEADLINE)
        return anyfork.Template()

    go_on.set()
    async with aio.Warm(make=make) as warm:
        pool = aio.Pool(warm, max_workers=1, max_calls=1)
        async with anyio.create_task_group() as tasks:
            first = ask(tasks, pool.call, read, gate.file)
            await until(lambda: pool.stats().running == 1)
            behind = ask(tasks, pool.call, abs, -1)
            await until(lambda: pool.stats().queued == 1)
            making.clear()
            go_on.clear()
            [followed] = pool._pool_loop.followed
            for template in (followed.template, warm._warm._generation.template):
                os.kill(template.pid, signal.SIGKILL)
            gate.open()
            await anyio.to_thread.run_sync(making.wait)
            closing = ask(tasks, pool.aclose)
            await anyio.lowlevel.checkpoint()
            go_on.set()
            assert (await first.outcome(), await behind.outcome(), await closing.outcome()) == (b"x", 1, None)


@pytest.mark.parametrize("end", ["aclose", "kill"])
async def test_a_pool_that_ends_makes_the_calls_that_wait_for_a_look_or_refuses_them(edit, end):
    making, go_on = threading.Event(), threading.Event()

    def make():
        making.set()
        assert go_on.wait(DEADLINE)
        return anyfork.Template()

    async with aio.Warm(make=make) as warm, anyio.create_task_group() as tasks:
        pool = aio.Pool(warm, max_workers=1)
        asked = ask(tasks, pool.call, abs, -1)
        await anyio.to_thread.run_sync(making.wait)
        closing = ask(tasks, pool.aclose)
        await anyio.lowlevel.checkpoint()
        if end == "kill":
            pool.kill()
            await closing.outcome()
        go_on.set()
        found = await asked.outcome()
        assert found == 1 if end == "aclose" else isinstance(found, anyfork.CallCancelledError)
        await closing.outcome()
        assert not pool._pool_loop.pooled_workers


async def test_a_template_that_takes_the_place_of_a_warm_while_that_makes_one_stays(edit):
    started, go_on = threading.Event(), threading.Event()

    def make():
        started.set()
        assert go_on.wait(DEADLINE)
        return anyfork.Template()

    async with aio.Warm(make=make) as warm, aio.Pool(warm, max_workers=1) as pool, aio.Template() as template:
        async with anyio.create_task_group() as tasks:
            await template.ready()
            asked = ask(tasks, pool.call, os.getppid)
            await anyio.to_thread.run_sync(started.wait)
            pool.replace_template(template)
            go_on.set()
            assert await asked.outcome() == template.pid


async def parents(pool):
    """Return the template of a worker of a pool with a Warm, and the pool's own template."""
    found = await pool.call(os.getppid)
    [followed] = pool._pool_loop.followed
    return found, (await followed.template.ready()).pid


async def test_a_pool_follows_a_warm_that_replaces_its_template_until_a_template_replaces_that(edit):
    async with aio.Warm("shown") as warm, aio.Template() as plain, aio.Pool(plain, max_workers=1) as pool:
        await plain.ready()
        assert await pool.call(os.getppid) == plain.pid
        pool.replace_template(warm)
        worker, own = await parents(pool)
        assert worker == own != plain.pid
        edit(11)
        assert await pool.call("shown:get") == 11
        edit("1 / 0")
        with pytest.raises(anyfork.PreloadError):
            await pool.call("shown:get")
        pool.replace_template(plain, warm)
        assert await pool.call(os.getppid) == plain.pid
    with pytest.raises(anyfork.HandleError, match="replace_template"):
        pool.replace_template(warm)


async def test_calls_that_wait_while_a_warm_replaces_a_template_that_is_closed_run(edit, gate):
    plain = aio.Template()
    async with aio.Warm("shown") as warm, aio.Pool(plain, max_workers=1, max_calls=1) as pool:
        async with anyio.create_task_group() as tasks:
            first = ask(tasks, pool.call, read, gate.file)
            await until(lambda: pool.stats().running == 1)
            behind = ask(tasks, pool.call, "shown:get")
            await until(lambda: pool.stats().queued == 1)
            pool.replace_template(warm)
            await plain.aclose()
            gate.open()
            assert (await first.outcome(), await behind.outcome()) == (b"x", 10)


async def test_a_pool_ends_with_its_own_template():
    async with aio.Warm("json") as warm:
        await warm.template()
        before = len(descendants())
        gc.disable()  # the pool is part of reference cycles
        try:
            async with aio.Pool(warm, max_workers=1) as pool:
                assert await pool.call(abs, -1) == 1
            eventually(lambda: len(descendants()) == before, descendants)
        finally:
            gc.enable()


@pytest.mark.parametrize("used", [True, False])
def test_a_pool_that_its_loop_leaves_behind_ends_its_own_template(used):
    async def use():
        pools.append(aio.Pool(warm, max_workers=1, idle_timeout=1000 if used else 0))
        assert await pools[0].call(abs, -1) == 1
        await until(lambda: used or not pools[0]._pool_loop.pooled_workers)

    pools = []
    warm = aio.Warm("json")
    warm._warm.template()
    before = len(descendants())
    gc.disable()  # the pool is part of reference cycles
    try:
        anyio.run(use)
        if not used:  # otherwise it has ended with its worker
            with pytest.warns(ResourceWarning, match="aclose"):
                pools.clear()
        eventually(lambda: len(descendants()) == before, descendants)
    finally:
        gc.enable()
        warm.close()


async def test_a_command_names_the_function_that_needs_a_template_on_this_machine():
    async with aio.Warm(make=lambda: anyfork.RemoteTemplate([sys.executable])) as warm:
        with pytest.raises(anyfork.RemoteTemplateError, match=r"^open_process\(\) needs"):
            await aio.run_process(COMMAND, template=warm)


async def test_a_pool_on_another_machine_needs_to_know_it_beforehand():
    async with aio.Warm(make=lambda: anyfork.RemoteTemplate([sys.executable])) as warm:
        async with aio.Pool(warm) as pool:
            with pytest.raises(anyfork.ArgumentError, match="another machine"):
                await pool.call(abs, -1)
        async with aio.Pool(warm) as pool:
            assert await pool.call(abs, -1) == 1


read = methodcaller("read", 1)  # no function of this module, which workers would import


async def test_commands_teach_what_they_have_imported(tmp_path):
    async with aio.Warm("json", learn=tmp_path / "learned.json") as warm:
        options = await aio.call("_anyfork_child.program.command_line:own", template=warm)
        source = "import sys; print('fractions' in sys.modules); import fractions"
        for known in (b"False\n", b"True\n"):
            done = await aio.run_process([sys.executable, *options, "-c", source], template=warm)
            assert done.stdout == known


async def test_what_cannot_be_warm_starts_cold_or_raises(edit, caplog):
    edit("1 / 0")
    async with aio.Warm("shown") as warm:
        assert await output(warm, "print('cold')") == b"cold\n"
        done = await aio.run_process([sys.executable, "-c", "print('cold')"], template=warm)
        assert done.stdout == b"cold\n"
        for start in (aio.call(abs, -1, template=warm), warm.fork()):
            with pytest.raises(anyfork.PreloadError):
                await start
        assert warm.report().cold == 2
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def fail():
    raise ZeroDivisionError


async def test_a_cold_start_runs_in_the_interpreter_that_is_named(tmp_path):
    other = tmp_path / "python"
    other.symlink_to(os.path.realpath(sys.executable))
    async with aio.Warm(make=fail, python=other) as warm:
        assert await output(warm, "import sys; print(sys.executable)") == os.fsencode(other) + b"\n"


STARTS = {"fork": lambda warm: warm.fork(), "run_process": lambda warm: aio.run_process(COMMAND, template=warm)}
COMMAND = [sys.executable, "-c", "pass"]


@pytest.mark.parametrize("name", STARTS)
async def test_a_cancelled_caller_does_not_wait(name):
    release, ended = threading.Event(), threading.Event()

    def make():
        anyio.from_thread.run_sync(tasks.cancel_scope.cancel)
        release.wait()
        ended.set()
        raise ZeroDivisionError

    async with aio.Warm(make=make) as warm:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(STARTS[name], warm)
        release.set()
        await anyio.to_thread.run_sync(ended.wait)


async def test_a_timeout_of_a_call_includes_the_making_of_the_template_which_goes_on():
    release = threading.Event()

    def make():
        assert release.wait(PROGRAM_DEADLINE)
        return anyfork.Template.new_exec()

    async with aio.Warm(make=make) as warm:
        with pytest.raises(anyfork.CallTimeoutError, match=r"0\.01"):
            await aio.call(abs, -1, template=warm, timeout=0.01)
        release.set()
        assert await aio.call(abs, -1, template=warm, timeout=PROGRAM_DEADLINE) == 1
        assert warm.report().made == 1


async def test_cancelled_callers_leave_the_threads_of_the_program_to_others():
    release = threading.Event()

    def make():
        anyio.from_thread.run_sync(tasks.cancel_scope.cancel)
        release.wait()
        return anyfork.Template.new_exec()

    async with aio.Warm(make=make) as warm:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(warm.fork)
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        release.set()
        async with await warm.run_code("pass") as process:
            assert (await process.wait()).code == 0


async def test_it_stays_in_its_process():
    async with aio.Warm() as warm:
        with pytest.raises(anyfork.ArgumentError, match="make another one there"):
            pickle.dumps(warm)
    with pytest.raises(anyfork.HandleError, match="was closed"):
        await warm.run_code("pass")


async def test_its_template_is_the_same_until_it_is_stale(edit):
    async with aio.Warm("shown") as warm:
        template = await warm.template()
        assert await warm.template() is template
        async with aio.Worker(template.fork()) as worker:
            assert await worker.call("shown:get") == 10
        edit(11)
        other = await warm.template()
        assert other is not template
        assert await aio.call("shown:get", template=other) == 11
        os.kill(other.pid, signal.SIGKILL)
        with anyio.fail_after(20):
            while await warm.template() is other:  # until its end is known
                pass
        assert await aio.call("shown:get", template=await warm.template()) == 11
    await other.aclose()


async def test_a_process_says_whether_it_has_started_cold(edit):
    async with aio.Warm("shown") as warm:
        for env, cold in ((dict(os.environ), ""), ({**os.environ, "PYTHONHASHSEED": "7"}, "PYTHONHASHSEED differs")):
            async with await warm.run_code("pass", env=env) as process:
                await process.wait()
            assert process.cold.startswith(cold)
            assert bool(process.cold) == bool(cold)
