"""What the keeper of ``anyfork run`` learns from a program: which modules to load before the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cold_and_warm import DEADLINE, PLAIN

from anyfork._programs.learned import Learned

REQUEST = {"kind": "", "target": "tool.py", "directory": "/", "watch": []}


@pytest.fixture
def told(tmp_path):
    """Return a function that lets a program tell its imports, and returns what is learned from several."""
    learned = Learned(str(tmp_path / "keeper"))

    def learn(*names):
        request = dict(REQUEST, imports_file=learned.new_file())
        if names:
            with open(request["imports_file"], "x") as file:
                file.write("\n".join(names))
        return learned.learn(request)

    learn.recipes = lambda: [recipe.preload for recipe in learned.recipes(REQUEST)]
    return learn


def test_a_recipe_grows_with_what_is_new(told):
    assert told.recipes() == [()]
    assert told("a", "b").preload == ("a", "b")
    assert told("b") is None
    assert told() is None
    assert told("c", "a").preload == ("c", "a", "b")
    assert told.recipes() == [("c", "a", "b"), ("a", "b"), ()]


def test_what_a_hook_has_rewritten_is_refused_for_ever(told):
    assert told("a", "!b").refused == ("b",)
    assert told("a", "b", "c").preload == ("a", "c")


READS = """
import os
from _anyfork_child.program.loaded import NotingDict
def read(what):
    data = NotingDict({b"A": b"1", b"B": b"2", b"SHLVL": b"3"})
    plain, os.environ._data = os.environ._data, data
    what()
    os.environ._data = plain
    assert data.plain() == {b"A": b"1", b"B": b"2", b"SHLVL": b"3"}
    print(*sorted(data.read()))
read(lambda: None)
read(lambda: os.environ.get("A"))
read(lambda: ("B" in os.environ, os.getenv("missing")))
read(lambda: dict(os.environ))
read(lambda: os.environ.copy())
read(lambda: os.environ["SHLVL"])
"""


def test_the_variables_that_a_module_reads_are_noted():
    done = subprocess.run(
        [sys.executable, "-c", READS], env=PLAIN, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    said = ["", "b'A'", "b'B' b'missing'", "b'A' b'B'", "b'A' b'B'", "b'SHLVL'"]
    assert done.stdout.splitlines() == said, done.stderr


PROBE = """
import socket, marshal
from _anyfork_child.program.loaded import try_loading
near, far = socket.socketpair()
try_loading(far, ["fractions", "missing_module", "calendar"], ["locale"])
print(marshal.loads(near.recv(1000)))
"""


def test_modules_that_need_a_refused_one_are_found():
    """calendar imports locale."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=PLAIN, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.stdout == "['missing_module', 'calendar']\n", done.stderr
