"""What a template does with its heap, so that forks of it are cheap and its processes share it."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import sysconfig
from functools import partial
from pathlib import Path

import child_side
import pytest
from conftest import eventually
from owner_side import ask
from programs import stop

from _anyfork_child.template.heap import ENTRY, PAGE, REACH, SEVERAL, TRANSPARENT
from anyfork import CallCancelledError, Executor, Template

MAP_NORESERVE = 0x4000  # Linux; in the mmap module since Python 3.13
LOAD = "kept = [bytes(1000) for _ in range(20_000)]\ndef end(channel): pass"

pytestmark = pytest.mark.usefixtures("part")
huge_pages = pytest.mark.skipif(
    not Path(TRANSPARENT).exists() or "[never]" in Path(TRANSPARENT).read_text(), reason="no huge pages"
)


@pytest.fixture
def template():
    """Yield a template of its own interpreter."""
    with Template.new_exec() as template:
        yield template


def huge(template):
    """Return how many MB of a template are in huge pages."""
    lines = Path(f"/proc/{template.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages")) / 1024


def notes(caplog):
    """Return what templates had to say in the log about huge pages."""
    return [message for message in caplog.messages if "huge pages" in message]


def fork_often(template, times=SEVERAL):
    """Let processes begin and end, one after the other."""
    for _ in range(times):
        with template.fork().run("end") as process:
            assert process.wait().code == 0


@huge_pages
def test_a_large_heap_moves_to_huge_pages_when_its_template_was_forked_several_times(template, caplog):
    caplog.set_level("INFO", "anyfork")
    template.execute(LOAD).ready()
    fork_often(template, SEVERAL - 1)
    assert huge(template) == 0
    fork_often(template, 2)
    assert huge(template) >= 8
    fork_often(template, 1)
    (note,) = notes(caplog)
    assert note.startswith(f"template {template.pid} moved ")


@huge_pages
def test_a_heap_that_processes_share_stays_where_it_is_until_they_have_ended(template):
    template.execute(LOAD).ready()
    with template.fork().run(child_side.until_closed):
        fork_often(template)
        assert huge(template) == 0
    fork_often(template, 2)
    assert huge(template) >= 8


@huge_pages
def test_a_heap_moves_before_the_first_spare_is_forked(template):
    template.execute(LOAD).ready()
    template.keep_spares(1).ready()
    assert huge(template) >= 8
    fork_often(template)


def spares_are_there(template):
    return all(spare.is_reported() for _, spare in template._link.spares._links)


@huge_pages
def test_a_heap_moves_between_starts_that_have_a_spare_ready(template, monkeypatch):
    monkeypatch.setattr("anyfork._processes.start.monotonic", itertools.count(1000).__next__)  # a second between two
    template.execute(LOAD).keep_spares(None).ready()
    for _ in range(SEVERAL + 2):
        fork_often(template, 1)
        eventually(partial(spares_are_there, template), "the spare is there")
    assert huge(template) >= 8
    assert "spares=1" in repr(template)


def test_a_small_heap_stays_where_it_is(template):
    template.execute("def end(channel): pass").ready()
    fork_often(template, SEVERAL + 1)
    assert huge(template) == 0


RESERVE = f"""
import mmap
reserved = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | {MAP_NORESERVE})  # as ASan does
reserved[0] = 1
"""
READS = """
import builtins
from _anyfork_child.template import heap
read = 0
def count(*args, **options):
    file = builtins.open(*args, **options)
    if args[0] != "/proc/self/pagemap":
        return file
    class Counted:
        __enter__, __exit__ = lambda self: self, lambda self, *_: file.close()
        seek = file.seek
        def read(self, size):
            global read
            read += size
            return file.read(size)
    return Counted()
heap.open = count
"""


@huge_pages
def test_what_a_large_heap_costs_depends_on_what_is_resident_and_not_on_what_is_reserved(template):
    template.execute(LOAD).execute(RESERVE).execute(READS).ready()
    fork_often(template, SEVERAL + 1)
    assert huge(template) >= 10
    with template.fork().run("end") as process:
        resident = process.wait().usage.max_rss
    assert 0 < int(ask(template, "sys.modules['__main__'].read")) <= REACH * (resident << 10) // PAGE * ENTRY


def test_a_fork_leaves_the_heap_of_its_template_where_it_is(template, caplog):
    caplog.set_level("INFO", "anyfork")
    template.execute(LOAD)
    with template.fork() as fork:
        fork_often(fork.ready(), SEVERAL + 1)
        assert huge(fork) == 0


# --- Immortal objects -----------------------------------------------------------------------------------------------

MORTAL = sys.version_info[:2] in {(3, 11), (3, 14)} or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
MADE = "made = [{'n': i, 't': (str(i), i / 2), 'c': compile(f'{i}.5, {i}', '', 'eval')} for i in range(3_000)]"
WALK = """
def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))
def walk(made):
    for one in made:
        for key, value in one.items():
            [(item, key) for item in (value.co_consts if key == "c" else value if key == "t" else (value,))]
def measure(channel):
    walk(made[:8])
    before = private()
    walk(made)
    channel.sendall(str(private() - before).encode())
"""
immortal = pytest.mark.skipif(MORTAL, reason="this Python counts all references")


def grown(template):
    """Return how many kB more a process owns when it has used all objects of the template."""
    with template.fork().run("measure") as process:
        return int(process.channel.makefile().read())


@immortal
def test_a_process_shares_the_immortal_objects_that_it_uses(template):
    template.execute(WALK).execute(MADE)
    before = grown(template)
    assert grown(template.immortalize()) < before / 20


@immortal
def test_what_an_immortal_template_gets_later_is_immortal_in_its_forks(template):
    template.execute(WALK).immortalize().fork().close()
    with template.fork().execute(MADE) as fork:
        assert grown(fork) < 100


@pytest.mark.skipif(not MORTAL, reason="this Python does not count all references")
def test_the_log_says_that_objects_cannot_be_immortal_and_processes_start_as_ever(template, caplog):
    caplog.set_level("INFO", "anyfork")
    template.execute("def end(channel): pass").immortalize().ready()
    (note,) = [message for message in caplog.messages if "immortal" in message]
    assert note.startswith(f"template {template.pid} cannot make its objects immortal: ")
    fork_often(template, 1)


@immortal
def test_processes_start_where_neither_compiled_part_nor_ctypes_can_make_objects_immortal(template, part):
    template.execute("import sys; sys.modules['_ctypes'] = None\n" + WALK).execute(MADE).immortalize()
    assert (grown(template) > 500) == (part == "python")


def test_a_worker_whose_template_has_a_note_first_is_killed_at_its_birth(template):
    template.execute("import sys; sys.modules['_ctypes'] = None").ready()
    stop(template.pid)
    template.immortalize()
    with Executor(template, 1) as executor:
        job = executor.submit(signal.pause)
        eventually(lambda: executor._dispatcher.pooled_workers)  # the template is asked for one
        executor.kill()
        assert isinstance(job.exception(60), CallCancelledError)
        os.kill(template.pid, signal.SIGCONT)
