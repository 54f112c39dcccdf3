"""Functions and classes of ``__main__`` behave in a process as in the program, in each face."""

from __future__ import annotations

import contextvars
import gc
import subprocess
import sys
import typing
import uuid
from pathlib import Path

import pytest

from _anyfork_child.values import single_objects
from _anyfork_child.values.definition_parts import reduce_kind


@pytest.mark.parametrize("program", ["kinds_of_main", "names_of_main"])
def test_definitions_of_main_behave_in_a_process_as_in_the_program(program):
    path = Path(__file__).with_name(f"{program}.py")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=50)
    assert (done.stderr, done.returncode) == ("", 0)
    (line,) = done.stdout.splitlines()
    assert line.startswith("compared")


# The hints are evaluated at the first access, and name what only a type checker imports.
HINTS = """
import pickle
from typing import TYPE_CHECKING

import anyfork

if TYPE_CHECKING:
    import pandas as pd

class Known: pass

def double(x: pd.DataFrame, y: Known = None) -> list[pd.Series]:
    return 2 * x

def pickled():
    return pickle.loads(pickle.dumps(double))(4)

def adder(k):
    def add(v: pd.DataFrame) -> Known: return v + k
    return add

class Worker:
    one: pd.DataFrame
    def work(self, x: pd.DataFrame) -> Known: return double(x) + 1

FUNCTIONS = double, adder(1), Worker().work
with anyfork.Executor(max_workers=1) as executor, anyfork.Worker() as worker:
    for call in (anyfork.call, worker.call, lambda *job: executor.submit(*job).result()):
        print(*(call(function, 3) for function in 2 * FUNCTIONS))
    print(list(executor.map(double, [1, 2])), list(worker.map(adder(2), [1, 2])))
print(anyfork.call(getattr, double, "__annotations__")["x"], anyfork.call(pickled))
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="hints are evaluated at the definition before Python 3.14")
def test_functions_travel_whose_hints_cannot_be_evaluated(tmp_path):
    (tmp_path / "program.py").write_text(HINTS)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout.splitlines(), done.stderr) == (3 * ["6 4 7 6 4 7"] + ["[2, 4] [3, 4]", "pd.DataFrame 8"], "")


def test_an_object_whose_identity_counts_has_one_tracker_if_two_threads_send_it_first(monkeypatch):
    variable, of_other_thread, draw = contextvars.ContextVar("variable"), [], uuid.uuid4

    def draw_after_another_thread():
        monkeypatch.setattr(uuid, "uuid4", draw)
        of_other_thread.append(reduce_kind(variable))
        return draw()

    monkeypatch.setattr(uuid, "uuid4", draw_after_another_thread)
    assert [reduce_kind(variable), reduce_kind(variable)] == of_other_thread * 2


def rebuild(value, tracker):
    """Return the object that a process makes which receives it first."""
    make, (_, *others) = reduce_kind(value)
    return make(tracker, *others)


class Stateless:
    def __setstate__(self, state):
        raise AssertionError(state)


def test_an_object_without_state_gets_none_where_it_arrives():
    kept = single_objects.rebuild_single("stateless", object.__new__, (Stateless,), Stateless().__getstate__())
    assert type(kept) is Stateless


@pytest.mark.parametrize("make", [contextvars.ContextVar, typing.TypeVar, lambda name: typing.NewType(name, int)])
def test_objects_whose_identity_counts_are_not_held_for_ever(make, monkeypatch):
    monkeypatch.setattr(single_objects, "MOST_HELD", 8)
    steady = make("steady")
    tracker, received = reduce_kind(steady)[1][0], rebuild(steady, "of steady")
    for number in range(40):
        value = make("fresh")
        assert rebuild(value, f"of {number}") is rebuild(value, f"of {number}")
        assert reduce_kind(steady)[1][0] == tracker
        assert rebuild(steady, "of steady") is received
    del value
    gc.collect()
    tables = single_objects._made, single_objects._trackers, single_objects._held
    assert max(map(len, tables)) < 20
