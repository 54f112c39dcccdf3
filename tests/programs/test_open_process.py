"""aio.open_process and aio.run_process do what AnyIO's do, and start this interpreter's programs warm."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys

import anyio
import pytest
from cold_and_warm import PLAIN

from anyfork import ArgumentError, Template, aio

pytestmark = pytest.mark.anyio

WARM = "import sys; print('fractions' in sys.modules)"
NAP = "import signal; print('here', flush=True); signal.pause()"


@pytest.fixture
async def template(anyio_backend):
    """Yield a template that shows in a program, as it has loaded what the program has not."""
    async with aio.Template.new_exec(flags=(), env=PLAIN).preload("fractions") as template:
        yield template


@pytest.fixture
def only_warm(monkeypatch):
    """Let a command fail that starts cold."""
    monkeypatch.setattr(anyio, "open_process", None)


async def test_a_command_of_this_interpreter_starts_warm(template):
    done = await aio.run_process([sys.executable, "-c", WARM], template=template, env=PLAIN)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"True\n", b"")


async def test_other_commands_are_started_by_anyio(template):
    done = await aio.run_process(["echo", "as ever"], template=template)
    assert done.stdout == b"as ever\n"
    async with await aio.open_process("echo in a shell", stdout=-1) as process:
        assert await process.stdout.receive() == b"in a shell\n"


async def test_what_a_template_cannot_honour_starts_cold(template):
    done = await aio.run_process([sys.executable, "-O", "-c", WARM], template=template, env=PLAIN)
    assert done.stdout == b"False\n"
    done = await aio.run_process([sys.executable, "-"], template=template, env=PLAIN, input=WARM.encode())
    assert done.stdout == b"False\n"


CASES = {
    "input and both outputs": (
        "import sys; text = sys.stdin.read(); sys.stdout.write(text * 2); print(len(text), file=sys.stderr)",
        {"input": b"x" * 300_000},
    ),
    "errors among the output": (
        "import os; os.write(1, b'one '); os.write(2, b'two')",
        {"stderr": subprocess.STDOUT},
    ),
    "no output": ("print('lost')", {"stdout": subprocess.DEVNULL}),
    "a directory and a session": (
        "import os; print(os.getcwd(), os.getsid(0) == os.getpid())",
        {"cwd": "/", "start_new_session": True},
    ),
    "death by a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", {"check": False}),
}


@pytest.mark.usefixtures("only_warm")
@pytest.mark.parametrize("case", CASES)
async def test_it_does_the_same_as_anyio_s(template, case):
    code, options = CASES[case]
    command = [sys.executable, "-c", code]
    warm = await aio.run_process(command, template=template, env=PLAIN, **options)
    cold = await anyio.run_process(command, env=PLAIN, **options)  # has open_process from another module
    assert vars(warm) == vars(cold)


@pytest.mark.usefixtures("only_warm")
async def test_an_umask_which_anyio_s_has_not_in_every_loop(template):
    command = [sys.executable, "-c", "import os; print(os.umask(0))"]
    assert (await aio.run_process(command, template=template, env=PLAIN, umask=0o27)).stdout == b"23\n"


@pytest.mark.usefixtures("only_warm")
async def test_a_program_may_leave_its_input_unread(template):
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    done = await aio.run_process(command, template=template, env=PLAIN, input=b"x" * 300_000, check=False)
    assert done.returncode == 3


@pytest.mark.usefixtures("only_warm")
async def test_a_failure_raises_with_the_output(template):
    command = [sys.executable, "-c", "import sys; print('out'); sys.exit('why')"]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await aio.run_process(command, template=template, env=PLAIN)
    error = caught.value
    assert (error.returncode, error.cmd, error.stdout, error.stderr) == (1, command, b"out\n", b"why\n")


@pytest.mark.usefixtures("only_warm")
async def test_both_directions_at_once(template):
    code = "import sys; [print(line.upper(), end='', flush=True) for line in sys.stdin]"
    async with await aio.open_process([sys.executable, "-c", code], template=template, env=PLAIN) as process:
        for word in (b"one\n", b"two\n"):
            await process.stdin.send(word)
            assert await process.stdout.receive() == word.upper()
        assert (process.returncode, process.pid > 0) == (None, True)
        await process.stdin.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdin.send(b"late")
        assert await process.wait() == 0
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive()
    assert process.returncode == 0
    with pytest.raises(anyio.ClosedResourceError):
        await process.stdout.receive()


@pytest.mark.usefixtures("only_warm")
async def test_closing_a_stream_wakes_its_reader(template):
    async with await aio.open_process([sys.executable, "-c", NAP], template=template, env=PLAIN) as process:
        assert await process.stdout.receive() == b"here\n"
        async with anyio.create_task_group() as tasks:
            with pytest.raises(anyio.ClosedResourceError):
                tasks.start_soon(process.stdout.aclose)
                await process.stdout.receive()
        process.terminate()
        assert await process.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("only_warm")
async def test_a_cancelled_block_leaves_no_program(template):
    with anyio.CancelScope() as scope:
        async with await aio.open_process([sys.executable, "-c", NAP], template=template, env=PLAIN) as process:
            await process.stdout.receive()
            scope.cancel()
            await anyio.sleep_forever()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("only_warm")
async def test_a_cancelled_block_ends_though_the_template_is_stopped(template):
    await template.ready()
    with anyio.CancelScope() as scope:
        async with await aio.open_process([sys.executable, "-c", NAP], template=template, env=PLAIN) as process:
            await process.stdout.receive()
            os.kill(template.pid, signal.SIGSTOP)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert process.returncode is None  # only the template knows it
    os.kill(template.pid, signal.SIGCONT)


@pytest.mark.usefixtures("only_warm")
async def test_a_cancelled_start_leaves_no_program(template):
    read, write = os.pipe()
    with open(read, "rb") as held:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await aio.open_process([sys.executable, "-c", NAP], template=template, env=PLAIN, pass_fds=[write])
        assert scope.cancelled_caught
        os.close(write)
        assert held.read() == b""


async def test_refusals_are_those_of_the_standard_module(template, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        await aio.open_process([sys.executable, "-c", WARM], template=template, cwd=tmp_path / "none")
    assert caught.value.filename == tmp_path / "none"
    with (
        Template() as blocking,
        pytest.raises(ArgumentError, match=r"needs a template on this machine, as anyfork.aio"),
    ):
        await aio.open_process([sys.executable, "-c", WARM], template=blocking)


async def test_it_has_the_options_of_anyio_s_but_those_of_windows():
    for ours, theirs in ((aio.open_process, anyio.open_process), (aio.run_process, anyio.run_process)):
        names = {*inspect.signature(theirs).parameters} - {"startupinfo", "creationflags"}
        direct = {*inspect.signature(ours).parameters} - {"template", "options"}
        passed = {"cwd", "env", "start_new_session", "pass_fds", "user", "group", "extra_groups", "umask"}
        assert direct | passed == names


@pytest.mark.usefixtures("only_warm")
async def test_descriptors_are_passed_under_their_numbers(template):
    read, write = os.pipe()
    code = f"import os; os.write({write}, b'passed')"
    try:
        await aio.run_process([sys.executable, "-c", code], template=template, env=PLAIN, pass_fds=[write])
        assert os.read(read, 10) == b"passed"
    finally:
        os.close(read)
        os.close(write)
