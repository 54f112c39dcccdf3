"""The compiled part of a template: when it is used, and what it stands in for."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from _anyfork_child.template import compiled
from _anyfork_child.wire import frames

NAME = "_anyfork_child.template._fast"
needs_it = pytest.mark.skipif(find_spec(NAME) is None, reason="anyfork was built without its compiled part")
SOURCE = Path(compiled.__file__).with_name("_fast.c")
CHILD = (71, 5, 6, 2, 1.5)
# The first hook is no code of Python, so the handler of its signal runs after it, in fork().
INTERRUPTED = """
import ctypes, os, signal
from functools import partial
from _anyfork_child.template import _fast
def handler(*_):
    raise OSError("interrupted")
signal.signal(signal.SIGUSR1, handler)
kill = partial(ctypes.CDLL(None).kill, os.getpid(), int(signal.SIGUSR1))
hooks = ([kill], [lambda: print("after")], [])
_fast.choose_hooks(hooks, tuple(map(tuple, hooks)), os.fork, None)
try:
    _fast.fork()
except OSError as error:
    print(error)
"""


@pytest.fixture
def wish(monkeypatch, request):
    """Set the variable that decides, or clear it for None."""
    if request.param is None:
        monkeypatch.delenv(compiled.VARIABLE, raising=False)
    else:
        monkeypatch.setenv(compiled.VARIABLE, request.param)


@needs_it
@pytest.mark.parametrize(("wish", "used"), [(None, True), ("1", True), ("0", False)], indirect=["wish"])
def test_it_is_used_unless_the_environment_forbids_it(wish, used):
    assert (compiled._load() is not None) is used


@pytest.mark.parametrize("wish", [None, "0"], indirect=True)
def test_without_it_templates_use_python_code(wish, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    monkeypatch.delattr("_anyfork_child.template._fast", raising=False)
    assert compiled._load() is None


@pytest.mark.parametrize("wish", ["1"], indirect=True)
def test_it_is_an_error_if_it_is_demanded_and_not_there(wish, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    monkeypatch.delattr("_anyfork_child.template._fast", raising=False)
    with pytest.raises(ImportError, match="ANYFORK_COMPILED=1, but anyfork was built without its compiled part"):
        compiled._load()


@needs_it
@pytest.mark.parametrize("wish", [None, "1"], indirect=True)
def test_one_of_another_state_of_the_sources_is_not_used(wish, monkeypatch):
    monkeypatch.setattr(compiled, "INTERFACE", 0)
    if compiled.os.environ.get(compiled.VARIABLE):
        with pytest.raises(ImportError, match="build anyfork anew"):
            compiled._load()
    else:
        assert compiled._load() is None


@needs_it
@pytest.mark.parametrize("wish", ["1"], indirect=True)
def test_it_is_an_error_if_it_is_demanded_and_the_hooks_of_forks_cannot_be_found(wish, monkeypatch):
    monkeypatch.setattr(gc, "get_referrers", lambda *_: [])
    with pytest.raises(ImportError, match="ANYFORK_COMPILED=1, but"):
        compiled.use_compiled(SimpleNamespace())


@needs_it
def test_hooks_run_without_the_exception_of_a_signal_handler_which_then_leaves_the_fork():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("after\ninterrupted\n", "")


def test_its_source_has_the_numbers_of_the_frames_and_of_its_interface():
    source = SOURCE.read_text()
    numbers = {name: int(value) for name, value in re.findall(r"\b([A-Z_]+) = (\d+)\b", source)}
    names = ["VERSION", "FORK", "START", "ENTERED", "BORN", "DIED", "DETACHED", "FOLLOWED", "FORK_DESCRIPTORS"]
    names.append("DESCRIPTORS_A_MESSAGE")
    assert {name: numbers[name] for name in names} == {name: getattr(frames, name) for name in names}
    assert f"#define INTERFACE {compiled.INTERFACE} " in source


@pytest.fixture(params=["dict", "compiled"])
def table(request):
    """Return an empty table of processes, of either kind."""
    if request.param == "dict":
        return {}
    return pytest.importorskip(NAME, reason="anyfork was built without its compiled part").ChildTable()


def test_a_table_of_processes_keeps_them_by_pidfd(table):
    table[9] = CHILD
    table[10] = (72, 7, 8, 0, 2.5)
    assert len(table) == 2
    assert dict(table.items()) == {9: CHILD, 10: (72, 7, 8, 0, 2.5)}
    assert table.pop(9, None) == CHILD
    assert table.pop(9, None) is None
    assert [*table.values()] == [(72, 7, 8, 0, 2.5)]


def test_a_table_of_processes_replaces_and_deletes(table):
    table[9] = CHILD
    table[9] = (72, 7, 8, 0, 2.5)
    assert [*table.items()] == [(9, (72, 7, 8, 0, 2.5))]
    del table[9]
    assert len(table) == 0
    with pytest.raises(KeyError):
        del table[9]


def test_a_table_holds_thousands_of_processes(table):
    for pidfd in range(5000):
        table[pidfd] = (pidfd, *CHILD[1:])
    for pidfd in range(0, 5000, 2):
        assert table.pop(pidfd, None) == (pidfd, *CHILD[1:])
    assert {child[0] for child in table.values()} == {*range(1, 5000, 2)}


@pytest.mark.parametrize("wrong", [("no number", CHILD), (9, None), (9, CHILD[:4]), (9, ("x", *CHILD[1:]))])
def test_the_compiled_table_refuses_what_it_cannot_hold(wrong):
    table = pytest.importorskip(NAME, reason="anyfork was built without its compiled part").ChildTable()
    key, child = wrong
    with pytest.raises(TypeError):
        table[key] = child
    assert len(table) == 0


# --- The memory of objects ------------------------------------------------------------------------------------------

HEAP = """
import gc, resource, sys
from bisect import bisect
from _anyfork_child.template import _fast
HUGE = 2 << 20
def make():
    return [{"number": i, "name": str(i), "half": i / 2} for i in range(150_000)]
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
def mappings(permissions="rw-p"):
    with open("/proc/self/maps") as file:
        lines = [line.split() for line in file]
    return [tuple(int(end, 16) for end in line[0].split("-")) for line in lines if line[1] == permissions]
def reserved():
    return sum(end - start for start, end in mappings("---p"))
def limit(size):
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
def share(objects):
    there = mappings()
    def fits(address):
        first = address // HUGE * HUGE
        start, end = there[bisect(there, (first, sys.maxsize)) - 1]
        return start <= first and first + HUGE <= end
    return sum(fits(id(one)) for one in objects) / len(objects)
_fast.align_arenas()
_fast.align_arenas()
"""


def heap(code):
    """Run code below HEAP in an interpreter of its own; return what it prints."""
    done = subprocess.run([sys.executable, "-c", HEAP + code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@needs_it
def test_huge_pages_can_hold_most_objects_of_a_large_heap():
    assert float(heap("print(share(make()))")) > 0.75  # without, 0.4 to 0.6


@needs_it
def test_a_heap_that_grows_and_shrinks_gives_its_memory_back():
    code = """
before = resident()
for _ in range(3):
    made = make()
    assert resident() - before > 30_000_000
    made.clear()
    gc.collect()
print(resident() - before)
"""
    assert int(heap(code)) < 10_000_000


@needs_it
def test_few_addresses_are_reserved_even_after_a_lack_of_memory_and_none_under_a_limit():
    code = """
before, made = reserved(), make()
print(reserved() - before < 10_000_000)
with open("/proc/self/statm") as file:
    limit(int(file.read().split()[0]) * 4096)
for _ in range(2000):
    try:
        made.extend(bytes(400) for _ in range(1_000_000))
    except MemoryError:
        pass
limit(resource.RLIM_INFINITY)
made += make()
print(reserved() - before < 20_000_000)
limit(1 << 40)
made += make()
print(reserved() - before == 0)
"""
    assert heap(code) == "True\nTrue\nTrue\n"


@needs_it
@pytest.mark.skipif(sys.version_info < (3, 13), reason="interpreters with a GIL of their own, by another module")
def test_other_interpreters_keep_their_memory_apart():
    code = """
import _interpreters, threading
made = make()
def other():
    number = _interpreters.create("isolated")
    _interpreters.exec(number, "kept = [{'number': i} for i in range(100_000)]; kept = None")
    _interpreters.destroy(number)
threads = [threading.Thread(target=other) for _ in range(2)]
for thread in threads:
    thread.start()
more = make()
for thread in threads:
    thread.join()
print(sum(one["number"] for one in made) == sum(one["number"] for one in more))
"""
    assert heap(code) == "True\n"
