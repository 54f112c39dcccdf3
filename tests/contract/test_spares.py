"""Spares: forks that are there before anybody asks for them. Nobody can tell them from others, but by the time."""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

import pytest
from conftest import children, descendants, eventually, wait_for_end
from owner_side import ask, ended, forked_template, interrupt_in, result_of, stopped
from procfs import exists, page_faults

import anyfork
from anyfork._system.limits import usable_cpus

pytestmark = pytest.mark.skipif(usable_cpus() < 2, reason="there are no spares on one CPU")

PID = "os.getpid()"
NONE_FREE = 3  # as a limit of descriptors: 0, 1 and 2 are open everywhere
plain_template = pytest.fixture(forked_template)
both_faces = pytest.mark.parametrize("new_template", ["forked", "trio"], indirect=True)


def spares_of(template):
    """Return the spares that a template keeps, and whose processes are there, once there are as many as it says."""
    wanted = int(re.search("spares=([0-9]+)", repr(template))[1])
    eventually(lambda: len(children(template.ready().pid)) == wanted, f"{template!r}")
    spares = getattr(template, "_template", template)._link.spares
    eventually(lambda: all(spare.is_reported() for _, spare in spares._links), f"{template!r}")
    return children(template.pid)


def with_spares(template, number):
    """Have a template keep spares, and return their pids."""
    template.keep_spares(number).ready()
    found = spares_of(template)
    assert len(found) == number
    return found


# --- What they are for ----------------------------------------------------------------------------------------------


def test_a_fork_is_a_spare_and_then_there_is_another(template):
    first = with_spares(template, 1)
    assert [ask(template.fork(), PID)] == first
    eventually(lambda: set(children(template.pid)) - {*first})
    assert [ask(template.fork(), PID)] != first
    assert "forks=2 spares=1" in repr(template)


@both_faces
def test_a_spare_may_become_a_template(template):
    [pid] = with_spares(template, 1)
    with template.fork().send("mine") as clone:
        assert ask(clone.fork(), "(os.getppid(), v)") == (pid, ["mine"])
    assert ask(template.fork(), "v") == []


@both_faces
def test_the_template_itself_may_be_taken_over(template):
    pid = template.ready().pid
    spares = with_spares(template, 2)
    assert ask(template, "os.getpid()") in spares
    eventually(lambda: not any(map(exists, (pid, *spares))))


@both_faces
def test_a_fork_with_attributes_is_no_spare(template):
    spares = with_spares(template, 1)
    umask = "(lambda mask: (mask, os.umask(mask)))(os.umask(0))[0]"
    assert ask(template.fork(umask=0o027), umask) == 0o027
    assert [ask(template.fork(), PID)] == spares


@both_faces
def test_functions_that_nobody_waits_for_are_followed_by_the_next_spare(template):
    pids = set()
    for _ in range(3):
        pids |= {*spares_of(template.keep_spares(1))}
        ended(template.fork().start("child_side:enter"))
    assert len(pids) == 3


@both_faces
def test_starts_without_a_pause_do_not_wait_for_spares(template):
    template.keep_spares(2)
    assert len({ask(template.fork(), PID) for _ in range(8)}) == 8


def test_a_process_has_no_descriptors_of_a_spare_that_it_overtakes(plain_template):
    listed = "sorted(os.listdir('/proc/self/fd'))"
    usual = ask(plain_template.fork(), listed)
    for _ in range(3):
        plain_template.keep_spares(0).keep_spares(2)
        assert ask(plain_template.fork(umask=0o22), listed) == ask(plain_template.fork(), listed) == usual


@pytest.mark.untraced
def test_a_spare_that_waits_has_had_most_page_faults_of_a_start(monkeypatch):
    pytest.importorskip("_anyfork_child.template._fast", reason="anyfork was built without its compiled part")
    monkeypatch.setenv("ANYFORK_COMPILED", "1")
    with anyfork.Template.new_exec().preload("child_side") as template:
        ended(template.fork().run("child_side:enter"))  # the first one pays for more
        whole = ended(template.fork().run("child_side:enter")).usage.minor_faults
        [pid] = with_spares(template, 1)
        eventually(lambda: page_faults(pid) > 0.75 * whole, "the spare has rehearsed")


def test_calls_and_workers_are_spares(plain_template):
    assert anyfork.call(os.getpid, template=plain_template) > 0  # now the template has loaded what workers need
    anyfork.Worker(plain_template.fork()).close()
    spares = with_spares(plain_template, 1)
    assert [anyfork.call(os.getpid, template=plain_template)] == spares
    spares = spares_of(plain_template)
    with anyfork.Worker(plain_template.fork()) as worker:
        assert [worker.call(os.getpid)] == spares
    with anyfork.Executor(plain_template, 1) as executor:
        assert executor.submit(os.getppid).result() == plain_template.pid


def test_threads_that_fork_at_the_same_time_get_different_processes(plain_template):
    plain_template.keep_spares(3)
    with ThreadPoolExecutor(4) as pool:
        pids = [*pool.map(lambda _: ask(plain_template.fork(), PID), range(24))]
    assert len({*pids}) == 24


# --- As fresh as any fork -------------------------------------------------------------------------------------------


def test_spares_draw_different_random_numbers(plain_template):
    plain_template.execute("import random, uuid; random.seed(7)").keep_spares(3).ready()
    draw = "(__import__('random').random(), str(__import__('uuid').uuid4()))"
    drawn = [ask(plain_template.fork(), draw) for _ in range(5)]
    assert len({number for number, _ in drawn}) == len({text for _, text in drawn}) == 5


def test_hooks_of_forks_run_in_spares(plain_template):
    plain_template.execute(
        "import os; pid = 0; os.register_at_fork(after_in_child=lambda: globals().update(pid=os.getpid()))"
    )
    with_spares(plain_template, 2)
    for _ in range(3):
        born, here = ask(plain_template.fork(), "(sys.modules['__main__'].pid, os.getpid())")
        assert born == here


FLAGS_OF_SIGCHLD = """
import ctypes, signal
action = ctypes.create_string_buffer(1024)
def flags():
    ctypes.CDLL(None).sigaction(signal.SIGCHLD, None, action)
    return ctypes.c_int.from_buffer(action, 136).value  # after the handler, and a mask of 128 bytes
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or sys.maxsize < 1 << 32, reason="the place of the flags")
def test_a_spare_has_the_flags_of_signals_that_a_library_has_set(plain_template):
    plain_template.execute(f"{FLAGS_OF_SIGCHLD}\nsignal.siginterrupt(signal.SIGCHLD, False)")
    flags = ask(plain_template.fork(), "__import__('__main__').flags()")
    assert flags & 0x10000000  # SA_RESTART
    [pid] = with_spares(plain_template, 1)
    eventually(lambda: descendants(plain_template.pid).get(pid, "").endswith(" anyfork"), "the spare waits")
    assert ask(plain_template.fork(), f"__import__('__main__').flags() if {PID} == {pid} else 'no spare'") == flags


@both_faces
def test_a_spare_shows_the_title_of_a_template_and_then_that_of_its_function(template):
    [pid] = with_spares(template, 1)
    eventually(lambda: descendants(template.pid).get(pid, "").endswith(" anyfork"))
    with template.fork().run("child_side:until_closed") as process:
        assert process.pid == pid
        assert descendants(template.pid)[pid].endswith(" child_side:until_closed")


def test_a_spare_ends_like_any_process(plain_template):
    [pid] = with_spares(plain_template, 1)
    process = plain_template.fork().run("child_side:until_closed")
    process.terminate()
    assert (process.pid, ended(process).signal) == (pid, signal.SIGTERM)


# --- Never stale ----------------------------------------------------------------------------------------------------


CHANGES = {
    "preload": (lambda t: t.preload("colorsys"), "'colorsys' in sys.modules"),
    "execute": (lambda t: t.execute("g = 1"), "hasattr(sys.modules['__main__'], 'g')"),
    "prepare": (lambda t: t.prepare("child_side:add_one"), "sys.modules['child_side'].count == 1"),
    "send": (lambda t: t.send("new"), "v == ['new']"),
    "directory": (lambda t: t.prepare("os:chdir", "/proc"), "os.getcwd() == '/proc'"),
    "umask": (lambda t: t.prepare("os:umask", 0o31), "os.umask(0) == 0o31"),
}


@both_faces
@pytest.mark.parametrize(("change", "seen"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_template_renews_its_spares(template, change, seen):
    old = with_spares(template, 2)
    change(template)
    assert ask(template.fork(), f"({seen}, os.getpid())")[0]
    template.ready()
    eventually(lambda: not any(map(exists, old)))
    new = spares_of(template)
    assert len(new) == 2
    assert ask(template.fork(), f"({seen}, os.getpid())") in [(True, pid) for pid in new]


def test_a_spare_knows_the_path_that_the_program_has_now(plain_template, tmp_path, monkeypatch):
    old = with_spares(plain_template, 1)
    (tmp_path / "found_late.py").write_text("def f(channel): channel.send(b'found')")
    monkeypatch.syspath_prepend(tmp_path)
    with plain_template.fork().run("found_late:f") as process:
        assert (process.channel.recv(5), [process.pid] == old) == (b"found", False)


@pytest.fixture(scope="module")
def _tracked():
    """Start the resource tracker of multiprocessing, which stays for the rest of the program."""
    resource_tracker.ensure_running()


@pytest.mark.usefixtures("_tracked")
@pytest.mark.parametrize("new_template", ["execed", "trio"], indirect=True)
def test_a_spare_is_forked_after_its_template_was_given_the_resource_tracker(template):
    first = with_spares(template, 1)
    assert [ask(template.fork(), PID)] == first


@both_faces
def test_a_step_that_fails_ends_the_spares(template):
    with_spares(template, 2)
    template.execute("1 / 0")
    for _ in range(2):
        with pytest.raises(anyfork.ExecuteError):
            template.fork().run("child_side:enter")
    with pytest.raises(anyfork.ExecuteError):
        template.ready()


def test_a_hook_that_fails_is_an_error_as_without_spares(plain_template, capfd):
    with_spares(plain_template, 1)
    plain_template.execute("import os; os.register_at_fork(after_in_child=lambda: 1 / 0)").ready()
    for _ in range(3):
        with pytest.raises(anyfork.HookError):
            plain_template.fork().run("child_side:enter")
    plain_template.close()
    assert "nobody waited for" not in capfd.readouterr().err


# --- Their end ------------------------------------------------------------------------------------------------------


@both_faces
def test_none_are_kept_any_more(template):
    spares = with_spares(template, 3)
    template.keep_spares(1)
    eventually(lambda: sum(map(exists, spares)) == 1)
    template.keep_spares(0)
    eventually(lambda: not any(map(exists, spares)))
    assert "forks=0 spares=0" in repr(template)
    assert ask(template.fork(), PID) not in spares


@both_faces
def test_a_closed_template_ends_with_its_spares(template):
    pids = [template.ready().pid, *with_spares(template, 2)]
    template.close()
    eventually(lambda: not any(map(exists, pids)))


@both_faces
def test_a_dropped_template_ends_with_its_spares(new_template):
    template = new_template().ready()
    pids = [template.pid, *with_spares(template, 2)]
    del template
    gc.collect()
    eventually(lambda: not any(map(exists, pids)))


@both_faces
def test_a_spare_that_was_killed_is_passed_by_and_replaced(template):
    killed, other = with_spares(template, 2)
    os.kill(killed, signal.SIGKILL)
    wait_for_end(killed)
    assert ask(template.fork(), PID) == other
    assert len({*spares_of(template)} - {killed, other}) == 2


@pytest.mark.untraced
@both_faces
def test_spares_of_a_killed_template_are_not_used(template):
    spares = with_spares(template, 2)
    os.kill(template.pid, signal.SIGKILL)
    # A spare in the middle of its birth holds the socket of its template open, and is used like other forks of it.
    eventually(getattr(template, "_template", template)._link.is_heard)
    with pytest.raises(anyfork.TemplateDiedError):
        template.fork().run("child_side:enter")
    template.close()
    eventually(lambda: not any(map(exists, spares)))


@both_faces
def test_spares_of_a_stopped_template_are_used(template):
    [pid] = with_spares(template, 1)
    with stopped(template.pid):
        process = template.fork().run("child_side:answer", PID)
    assert result_of(process) == pid


def test_spares_end_with_a_killed_owner(tmp_path):
    code = (
        "import os, signal, anyfork; t = anyfork.Template().keep_spares(3).ready()\n"
        "while len(p := open(f'/proc/{t.pid}/task/{t.pid}/children').read().split()) < 3: pass\n"
        "print(t.pid, *p, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "owner.py").write_text(code)
    said = subprocess.run([sys.executable, tmp_path / "owner.py"], stdout=subprocess.PIPE, check=False).stdout
    pids = [*map(int, said.split())]
    assert len(pids) == 4
    eventually(lambda: not any(map(exists, pids)))


def test_a_program_ends_with_spares(tmp_path):
    code = "import anyfork; t = anyfork.Template().keep_spares(2).ready(); print(t.pid)"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, check=True)
    eventually(lambda: not exists(int(done.stdout)))
    assert done.stderr == b""


@pytest.mark.filterwarnings("ignore:Exception ignored .*<socket object")  # one that a call had just returned
def test_an_interrupt_in_the_middle_leaves_nothing(plain_template):
    plain_template.ready()
    with pytest.raises(KeyboardInterrupt), interrupt_in("_add_spares"):
        while True:
            plain_template.keep_spares(0).keep_spares(4)
    assert ask(plain_template.keep_spares(1).fork(), "v") == []


def test_a_detached_template_has_no_spares(plain_template):
    spares = with_spares(plain_template, 2)
    with anyfork.Template.from_socket(plain_template.detach()) as taken:
        eventually(lambda: not any(map(exists, spares)))
        assert [ask(taken.fork(), PID)] != with_spares(taken, 1)


# --- Where they would be in the way ---------------------------------------------------------------------------------


def test_without_descriptors_there_are_fewer_spares(plain_template):
    plain_template.ready()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, before[1]))
    try:
        plain_template.keep_spares(200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert int(re.search("spares=([0-9]+)", repr(plain_template))[1]) < 200
    assert ask(plain_template.keep_spares(1).fork(), "v") == []


def test_forks_that_fail_are_no_spares(plain_template):
    plain_template.ready()
    before = resource.prlimit(plain_template.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(plain_template.pid, resource.RLIMIT_NOFILE, (NONE_FREE, before[1]))
    plain_template.keep_spares(2)
    for _ in range(2):
        with pytest.raises(anyfork.ForkError):
            plain_template.fork().run("child_side:enter")
    resource.prlimit(plain_template.pid, resource.RLIMIT_NOFILE, before)
    assert ask(plain_template.fork(), "v") == []


def test_there_are_none_on_one_cpu(plain_template):
    plain_template.ready()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        plain_template.keep_spares(2)
    finally:
        os.sched_setaffinity(0, before)
    assert "spares=0" in repr(plain_template)
    assert ask(plain_template.fork(), "v") == []


@pytest.mark.parametrize("number", [-1, True, 1.5, "2"])
def test_anything_but_a_number_is_refused(plain_template, number):
    with pytest.raises(anyfork.ArgumentError, match="keep_spares\\(\\) needs a number"):
        plain_template.keep_spares(number)


# --- As many as the starts ask for ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Give templates a time that passes only when a test says so: [seconds]."""
    now = [1000.0]
    monkeypatch.setattr("anyfork._processes.start.monotonic", lambda: now[0])
    return now


def start_after(clock, pause, template):
    """Start a process of a template so many seconds after the last one; return its pid."""
    clock[0] += pause
    return ask(template.fork(), PID)


@both_faces
def test_starts_with_pauses_between_them_get_a_spare(template, clock):
    template.keep_spares(None).ready()
    for _ in range(2):
        start_after(clock, 1, template)
        assert "spares=0" in repr(template)
    start_after(clock, 1, template)
    assert "spares=1" in repr(template)
    spares = spares_of(template)
    assert start_after(clock, 1, template) in spares


def test_a_burst_of_starts_gets_no_spares(plain_template, clock):
    plain_template.keep_spares(None)
    for _ in range(5):
        start_after(clock, 0.001, plain_template)
    assert "spares=0" in repr(plain_template)


def test_the_spare_of_a_template_that_nobody_uses_ends_when_another_one_starts_something(plain_template, clock):
    plain_template.keep_spares(None)
    for _ in range(3):
        start_after(clock, 1, plain_template)
    [spare] = spares_of(plain_template)
    with anyfork.Template().keep_spares(None) as other:
        start_after(clock, 59, other)
        assert "spares=1" in repr(plain_template)
        start_after(clock, 2, other)
    assert "spares=0" in repr(plain_template)
    wait_for_end(spare)


def test_a_dropped_template_ends_with_the_spare_that_its_starts_asked_for(clock):
    template = anyfork.Template().keep_spares(None)
    for _ in range(3):
        start_after(clock, 1, template)
    [spare] = spares_of(template)
    del template
    gc.collect()
    wait_for_end(spare)


def test_a_large_heap_has_two_starts_without_a_spare_to_move_to_huge_pages(plain_template, clock):
    plain_template.keep_spares(None)
    kept = []
    for _ in range(10):
        start_after(clock, 1, plain_template)
        kept.append(len(spares_of(plain_template)))
    assert kept == [0, 0, 1, 1, 1, 1, 1, 0, 0, 1]


def test_the_statistics_of_a_pool_count_spares_that_are_no_workers(plain_template):
    with_spares(plain_template, 2)
    with anyfork.Executor(plain_template, 1) as executor:
        assert executor.stats().spares == 2
        pid = executor.submit(os.getpid).result()
        assert executor.stats().pids == (pid,)
