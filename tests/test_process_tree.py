"""kill(tree=True) ends a process and all of its descendants, and only these."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest
from deadlines import DEADLINE
from owner_side import forked_template

import anyfork
from _anyfork_child.wire.process_tree import children
from anyfork import PIPE, aio

TREES = {
    "children of children": "os.fork(); os.fork(); os.fork()",
    "sessions of their own": "[os.setsid() for _ in range(5) if os.fork() == 0]",
    "threads that fork": "[threading.Thread(target=os.fork).start() for _ in range(5)]",
    "a chain that still grows": "any(os.fork() for _ in range(300))",
}
CODE = "import os, signal, threading; print('up', flush=True); {}; signal.pause()"


template = pytest.fixture(forked_template)


@pytest.mark.parametrize("tree", TREES)
def test_nothing_of_a_tree_is_left(template, tree):
    with (
        template.fork(stdout=PIPE).run_code("import signal; print('up', flush=True); signal.pause()") as other,
        template.fork(stdout=PIPE).run_code(CODE.format(TREES[tree])) as process,
    ):
        for one in (other, process):
            assert one.stdout.readline() == b"up\n"
        process.kill(tree=True)
        process.communicate(timeout=DEADLINE)  # until none has the pipe
        assert process.returncode == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


@pytest.mark.anyio
async def test_it_works_in_the_async_face(anyio_backend):
    async with aio.Template() as template:
        code = CODE.format(TREES["children of children"])
        async with await template.fork(stdout=PIPE).run_code(code) as process:
            assert (await process.stdout.receive()).startswith(b"up")
            process.kill(tree=True)
            await process.communicate()
            assert process.returncode == -signal.SIGKILL


def test_one_free_descriptor_is_enough_for_a_tree(template):
    code = CODE.format("[os.fork() or signal.pause() for _ in range(9)]")
    with template.fork(stdout=PIPE).run_code(code) as process:
        assert process.stdout.readline() == b"up\n"
        assert process.poll() is None  # from now on it has its own descriptors
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with open(os.devnull) as free:
            number = free.fileno()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, before[1]))
            process.kill(tree=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        process.communicate(timeout=DEADLINE)  # as above


def test_a_process_that_has_ended_has_no_tree(template):
    with template.run_code("pass") as process:
        process.wait(DEADLINE)
        process.kill(tree=True)
        assert process.returncode == 0


def test_a_process_is_killed_as_soon_as_it_is_born(template):
    process = template.start("child_side:until_closed")
    process.kill(tree=True)
    assert process.wait(DEADLINE).signal == signal.SIGKILL


@pytest.mark.skipif(not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="no lists of children")
def test_a_thread_that_ends_during_a_look_hides_no_child_of_another(monkeypatch):
    threads = ["0", *os.listdir("/proc/self/task")]  # the first one has ended since
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        monkeypatch.setattr(os, "listdir", lambda _: threads)
        assert child.pid in children(os.getpid())
        child.kill()


def test_trees_on_other_machines_are_refused():
    with anyfork.RemoteTemplate([sys.executable]) as remote, remote.run_code("input()") as process:
        with pytest.raises(anyfork.ArgumentError, match=r"use kill\(\), for one process"):
            process.kill(tree=True)
        process.kill()
