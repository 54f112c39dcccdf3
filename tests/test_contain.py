"""contain=True: whatever a process has started ends with it, and its exit status is its own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import eventually
from deadlines import DEADLINE
from owner_side import forked_template, run_python

import anyfork
from _anyfork_child.birth.container import MOUNTS
from anyfork import PIPE, aio

# A daemon: a session of its own, and its parent has ended. It keeps the standard output open.
DAEMON = "os.fork() or (os.setsid(), os.fork() and os._exit(0), signal.pause())"
TREES = {
    "a child": "os.fork() or signal.pause()",
    "a daemon": DAEMON,
    "a daemon with children": DAEMON.replace("signal.pause()", "os.fork(), os.fork(), signal.pause()"),
    "many daemons": f"[{DAEMON} for _ in range(20)]",
    "many children": "os.fork() or ([os.fork() for _ in range(5)], signal.pause())",
    "a stopped daemon": DAEMON.replace("signal.pause()", "os.kill(os.getpid(), signal.SIGSTOP)"),
    "nothing": "0",
}
CODE = "import os, signal, sys; {}; sys.exit(7)"


ROLLING = "os.fork() or (os.setsid(), [os.fork() and os._exit(0) for _ in iter(int, 1)])"  # never the same pid

HIDE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
private, recursive, new_mounts = 1 << 18, 1 << 14, 0x20000
if (
    libc.unshare(new_mounts)
    or libc.mount(b"none", b"/", None, private | recursive, None)
    or libc.mount(b"none", b"/sys/fs/cgroup", b"tmpfs", 0, None)
):
    raise OSError(ctypes.get_errno(), "no mount namespace")
"""

plain = pytest.fixture(forked_template)


@pytest.fixture(params=["as the system allows it", "without control groups"])
def template(request, plain):
    if request.param == "without control groups":
        _may_hide_control_groups()
        plain.execute(HIDE)
    return plain


def _may_hide_control_groups():
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a mount namespace")


@pytest.mark.parametrize("tree", TREES)
def test_what_a_process_leaves_ends_with_it(template, tree):
    with template.fork(contain=True, stdout=PIPE).run_code(CODE.format(TREES[tree])) as process:
        assert process.wait(DEADLINE).code == 7
        assert process.communicate(timeout=0) == (b"", None)  # nobody has the pipe any more


def test_what_another_process_leaves_goes_on(plain):
    with plain.fork(stdout=PIPE).run_code(f"import os, signal; {DAEMON}; print(os.getpid())") as process:
        assert process.wait(DEADLINE).code == 0
        with pytest.raises(TimeoutError):
            process.communicate(timeout=0)
        while daemons := [*_holders(process.stdout.fileno())]:  # again: one may have forked meanwhile
            for daemon in daemons:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon, signal.SIGKILL)


def _holders(pipe):
    """Return the processes, other than this one, that hold the pipe."""
    wanted = os.readlink(f"/proc/self/fd/{pipe}")
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if wanted in links and int(pid) != os.getpid():
            yield int(pid)


def test_a_killed_process_takes_all_with_it(template):
    code = f"import os, signal; {DAEMON}; print('up', flush=True); signal.pause()"
    with template.fork(contain=True, stdout=PIPE).run_code(code) as process:
        assert process.stdout.readline() == b"up\n"
        process.kill()
        assert process.wait(DEADLINE).signal == signal.SIGKILL
        assert process.communicate(timeout=0)[0] is not None


def test_the_log_says_how_it_is_contained(template, caplog, request):
    caplog.set_level(logging.INFO)
    with template.fork(contain=True, stdout=PIPE).run_code("print(open('/proc/self/cgroup').read())") as process:
        groups = process.communicate(timeout=DEADLINE)[0]
        process.wait(DEADLINE)
    text = "the control group /" if b"/anyfork-" in groups else "adopting orphans, without a control group"
    assert f"contains what its process starts by {text}" in caplog.text
    if "without" in request.node.name:
        assert b"/anyfork-" not in groups


def test_a_fork_bomb_does_not_escape_a_control_group(plain):
    code = f"import os\nif '/anyfork-' in open('/proc/self/cgroup').read():\n  [{ROLLING} for _ in range(3)]\nelse: exit(3)"
    with plain.fork(contain=True, stdout=PIPE).run_code(code) as process:
        code = process.wait(DEADLINE).code
        assert process.communicate(timeout=0) == (b"", None)
    if code == 3:
        pytest.skip("this user may make no control group")
    assert code == 0


def _group_of(process):
    said = process.stdout.readline().decode().split("::")[-1].strip()
    if "/anyfork-" not in said:
        process.kill()
        pytest.skip("this user may make no control group")
    mounts = [mount for mount in MOUNTS if os.path.exists(f"{mount}/cgroup.controllers")]
    return mounts[0] + said


def test_the_control_group_of_killed_containers_is_removed_by_the_next_one(plain):
    show = "print(next(line for line in open('/proc/self/cgroup') if line.startswith('0::')), end='', flush=True)"
    with plain.fork(contain=True, stdout=PIPE).run_code(f"import signal; {show}; signal.pause()") as process:
        group = _group_of(process)
        inner = _parent(process.pid)
        outer = _parent(inner)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none may clean up after another one
            for pid in (outer, inner, process.pid):
                os.kill(pid, number)
        process.wait(DEADLINE)
    eventually(lambda: not Path(group, "cgroup.procs").read_text() and not Path(f"/proc/{outer}").exists())
    with plain.fork(contain=True).run_code("pass") as process:
        process.wait(DEADLINE)
    assert not os.path.exists(group)


@pytest.mark.parametrize("generations", [1, 2])
def test_the_end_of_a_container_is_the_end_of_all_that_it_contains(template, generations):
    code = f"import os, signal; {DAEMON}; print('up', flush=True); signal.pause()"
    with template.fork(contain=True, stdout=PIPE).run_code(code) as process:
        assert process.stdout.readline() == b"up\n"
        container = process.pid
        for _ in range(generations):
            container = _parent(container)
        os.kill(container, signal.SIGKILL)
        if generations == 2:  # the inner one goes on
            process.kill()
        assert process.wait(DEADLINE).code is None
        assert process.communicate(timeout=DEADLINE) == (b"", None)


def _parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.anyio
async def test_it_works_in_the_async_face(anyio_backend):
    async with aio.Template() as template:
        async with await template.fork(contain=True, stdout=PIPE).run_code(CODE.format(DAEMON)) as process:
            assert await process.communicate() == (b"", None)
            assert process.returncode == 7


def test_it_is_a_template_as_others_are(plain):
    with plain.preload("fractions").fork(contain=True, stdout=PIPE, cwd="/") as contained:
        contained.ready(DEADLINE)
        with contained.fork().run_code(f"import os, signal; {DAEMON}") as process:
            assert process.wait(DEADLINE).code == 0
        with contained.run_code("import os, sys; print(os.getcwd(), 'fractions' in sys.modules)") as last:
            assert last.communicate(timeout=DEADLINE) == (b"/ True\n", None)


def test_a_new_interpreter_can_be_contained():
    with anyfork.Template.new_exec(contain=True, stdout=PIPE).run_code(CODE.format(DAEMON)) as process:
        assert process.communicate(timeout=DEADLINE) == (b"", None)
        assert process.returncode == 7


def test_a_function_is_contained(plain):
    with plain.fork(contain=True, stdout=PIPE).run(_leave_daemon_and_end, 3) as process:
        assert process.wait(DEADLINE).code == 3
        assert process.communicate(timeout=0) == (b"", None)


def test_a_worker_s_leftovers_end_with_it(plain):
    read, write = os.pipe()
    with anyfork.Worker(plain.fork(contain=True)) as worker:
        worker.call(_leave_daemon_with, anyfork.Descriptor(write))
    os.close(write)
    with open(read, "rb") as end:
        assert end.read() == b""


def _leave_daemon_with(descriptor):
    os.set_inheritable(descriptor.fileno(), True)
    _leave_daemon()


def _leave_daemon_and_end(_channel, code):
    _leave_daemon()
    sys.exit(code)


def _leave_daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)


def test_nothing_is_left_when_the_owner_is_killed():
    read, write = os.pipe()
    owner = (
        "import anyfork, os, signal\n"
        f"process = anyfork.Template().fork(contain=True, stdout={write}).run_code('''import os, signal; {DAEMON}\n"
        "os.write(1, b'.'); signal.pause()''')\n"
        "os.kill(os.getpid(), 9)"
    )
    run_python("-c", owner, pass_fds=[write])
    os.close(write)
    with open(read, "rb") as end:
        assert end.read().strip(b".") == b""


def test_on_another_machine_too(tmp_path):
    fifo = str(tmp_path / "held")
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = CODE.format(f"held = open({fifo!r}, 'wb'); {DAEMON}")
    with anyfork.RemoteTemplate([sys.executable]) as remote, open(held, "rb") as end:
        with remote.fork(contain=True).run_code(code) as process:
            assert process.wait(DEADLINE).code == 7
        assert end.read() == b""  # None while a process has the other end


def test_a_wrong_value_is_an_error(plain):
    with pytest.raises(anyfork.ArgumentError, match="contain="):
        plain.fork(contain="yes")
    plain.fork(contain=False).close()
