"""What the keeper of ``anyfork run`` learns from a program: which modules to load before the next one."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest
from cold_and_warm import PLAIN
from deadlines import PROGRAM_DEADLINE
from owner_side import output_of

import anyfork
from _anyfork_child.program import loaded
from _anyfork_child.program.starter import Starter
from _anyfork_client.launch import take_lock
from _anyfork_client.place import PATH
from anyfork._blocking.generation import Generation, make
from anyfork._blocking.learned_imports import INTERPRETER, Imports, LearnedImports
from anyfork._blocking.sources import Sources
from anyfork._blocking.told_imports import ToldImports
from anyfork._programs import kept_templates
from anyfork._programs.learned import Learned
from anyfork._programs.unused_files import remove_unused

REQUEST = {"kind": "", "target": "tool.py", "directory": "/", "watch": []}


@pytest.fixture
def told(tmp_path):
    """Return a function that lets a program tell its imports, and returns what is learned from several."""
    learned = Learned(str(tmp_path / "keeper"))

    def learn(*names):
        request = dict(REQUEST, imports_to=learned.new_address())
        if names:
            loaded.tell(request["imports_to"], names)
        return learned.learn(request)

    learn.address = learned.new_address
    learn.recipes = lambda: [recipe.preload for recipe in learned.recipes(REQUEST)]
    yield learn
    learned._told.close()


def test_a_recipe_grows_with_what_is_new(told):
    assert told.recipes() == [()]
    assert told("a", "b").preload == ("a", "b")
    assert told("b") is None
    assert told() is None
    assert told("c", "a").preload == ("c", "a", "b")
    assert told.recipes() == [("c", "a", "b"), ("a", "b"), ()]


def test_the_next_keeper_knows_what_this_one_has_learned(told, tmp_path):
    recipe = told("a", "!b")
    after = Learned(str(tmp_path / "keeper"))
    assert after.recipes(REQUEST)[0] == after.latest("", "tool.py", []) == recipe
    assert after.latest("-m", "tool.py", []) is None


def test_files_that_no_keeper_uses_any_longer_are_removed(tmp_path):
    for name in ("used", "old", "killed", "alive"):
        LearnedImports(str(tmp_path / f"{name}.learned")).note(("-m", "tool"), Imports(("a",)))
    directory = os.open(tmp_path, PATH)
    alive, killed = (take_lock(directory, f"{name}.lock") for name in ("alive", "killed"))
    os.close(killed)
    (tmp_path / "killed.socket").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    used = Learned(str(tmp_path / "used"))
    os.utime(tmp_path / "used.learned", (1, 1))
    used.recipes(REQUEST)  # of a program that a keeper runs, which may live for months
    remove_unused(directory)
    for fd in (alive, directory):
        os.close(fd)
    assert {*os.listdir(tmp_path)} == {"used.learned", "alive.lock"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1, "interpreters": []}', '{"format": 2}', "format"])
def test_a_file_that_is_none_of_ours_teaches_nothing(tmp_path, text):
    (tmp_path / "keeper.learned").write_text(text)
    assert Learned(str(tmp_path / "keeper")).latest("", "tool.py", []) is None


def test_what_another_interpreter_has_learned_is_kept_and_not_used(tmp_path):
    path = str(tmp_path / "learned.json")
    LearnedImports(path).note(("-m", "tool"), Imports(("a",)))
    text = Path(path).read_text()
    Path(path).write_text(text.replace(json.dumps(INTERPRETER), '"another"'))
    learned = LearnedImports(path)
    assert not learned.programs
    learned.note(("-m", "tool"), Imports(("b",)))
    assert [one[0]["modules"] for one in json.loads(Path(path).read_text())["interpreters"].values()] == [["a"], ["b"]]


def test_the_oldest_programs_are_forgotten_whoever_has_noted_them(tmp_path, monkeypatch):
    monkeypatch.setattr("anyfork._blocking.learned_imports.MOST_PROGRAMS", 3)
    path = str(tmp_path / "learned.json")
    for number in range(3):
        one, other = LearnedImports(path), LearnedImports(path)
        one.note(("-m", f"one{number}"), Imports(("a",)))
        other.note(("-m", f"other{number}"), Imports(("a",)))
    known = [target for _, target in LearnedImports(path).programs]
    assert known == ["other1", "one2", "other2"]


def test_bytes_that_are_no_text_hide_nothing_that_programs_have_told(told):
    address = told.address()
    *place, _ = address.split("/")
    with open(loaded._open_pipe(*place), "wb", 0) as pipe:
        pipe.write(b"0 \xff\n")
    assert told("a").preload == ("a",)


def test_what_a_hook_has_rewritten_is_refused_for_ever(told):
    assert told("a", "!b").refused == ("b",)
    assert told("a", "b", "c").preload == ("a", "c")


READS = """
import os
from _anyfork_child.program.noting import NotingDict
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
    said = ["", "b'A'", "b'B' b'missing'", "b'A' b'B'", "b'A' b'B'", "b'SHLVL'"]
    assert output_of("-c", READS, env=PLAIN).splitlines() == said


CHANGES = """
import os, sys
import anyfork
from _anyfork_child.program import loaded
from _anyfork_child.program.noting import set_data
from anyfork._blocking.told_imports import ToldImports
told = ToldImports()
def learns(what):
    plain = os.environ._data
    loaded.note_changes()
    what()
    loaded.tell_installed(told.new_address(), sys.path)
    set_data(plain)
    return bool(told.take_all())
print(learns(lambda: os.environ.get("A")), learns(os.environ.copy))
print(learns(lambda: (os.environ.update(NEW="1"), os.environ.pop("NEW"))), learns(lambda: os.environ.pop("GIVEN")))
"""


def test_nothing_is_learned_from_a_program_that_sets_a_variable_only_for_a_time():
    said = output_of("-c", CHANGES, env={**PLAIN, "GIVEN": "1"})
    assert said == "True True\nFalse False\n"


def test_a_program_that_nothing_can_be_learned_from_ends_as_ever(monkeypatch):
    told, starter = ToldImports(), Starter()
    starter.imports_to, starter.process = told.new_address(), os.getpid()
    monkeypatch.setattr(os, "environb", None)
    starter.tell_imports(sys.path)
    assert not told.take_all()
    told.close()


def test_what_several_programs_tell_at_once_is_told_apart_and_no_other_pipe_gets_it():
    told = ToldImports()
    one, other = told.new_address(), told.new_address()
    many = [f"package.module{number}" for number in range(1000)]
    loaded.tell(one, many)
    loaded.tell(other, ["a"])
    assert (told.take(other), told.take(one), told.take(one)) == (["a"], many, None)
    pid, fd, *_ = one.split("/")
    read, write = os.pipe()
    told.close()
    os.dup2(write, int(fd))  # somebody else has the number now
    for file in (read, write, int(fd)):
        with pytest.raises(FileNotFoundError):
            loaded.tell(one, ["a"])
        os.close(file)


def generation(*variables, read_all):
    return Generation(None, (), Sources([], [], 0), variables, (), {}, "reader" if read_all else "", 0.0, 0.0)


def test_a_new_variable_counts_for_a_module_that_has_read_all():
    env = {b"A": b"1", b"SHLVL": b"3"}
    assert generation((b"A", b"1"), read_all=True).outdated(env) == ""
    assert generation((b"A", b"1"), read_all=False).outdated({**env, b"B": b"1"}) == ""
    assert "B is new" in generation((b"A", b"1"), read_all=True).outdated({**env, b"B": b"1"})


def test_a_recipe_is_tried_again_after_no_thread_could_be_started(monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    kept = kept_templates.KeptTemplate(kept_templates.Recipe((), ()), ())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        kept.prepare({})
    assert "can't start new thread" in kept.status(0.0)["state"]
    kept.prepare(os.environb)
    assert kept.status(0.0)["state"] in ("being made", "ready")
    kept.close()
    for maker in [thread for thread in threading.enumerate() if thread.name == "anyfork maker"]:
        maker.join(PROGRAM_DEADLINE)


def test_an_edit_of_the_project_loads_installed_modules_no_second_time(tmp_path, monkeypatch):
    installed, log, own = tmp_path / "site-packages", tmp_path / "log", tmp_path / "own.py"
    installed.mkdir()
    (installed / "counted.py").write_text(f"with open({str(log)!r}, 'a') as file: file.write('.')")
    own.write_text("value = 1")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(tmp_path)
    path = os.pathsep.join(filter(None, [str(tmp_path), str(installed), os.environ.get("PYTHONPATH")]))
    env = {**os.environb, b"PYTHONPATH": os.fsencode(path)}
    kept = kept_templates.KeptTemplate(kept_templates.Recipe(("counted", "own"), ()), ())
    loads = []
    try:
        for edit, value in ((own, 1), (own, 2), (installed / "counted.py", 2)):
            edit.write_text(edit.read_text().replace("value = 1", f"value = {value}"))
            made = kept.await_made(env)
            assert {"counted", "own"} <= {*made.modules}
            with made.template.fork(stdout=anyfork.PIPE).run_code("import own; print(own.value)") as process:
                assert int(process.communicate(timeout=PROGRAM_DEADLINE)[0]) == value
            loads.append(log.read_text())  # more than one at first: it may have changed too late
            assert kept.status(0.0)["base"] not in (None, made.template.pid)
        (tmp_path / "counted.py").write_text("")  # one of the project, found before the installed one
        kept.await_made(env)
        assert kept.status(0.0)["base"] is None
    finally:
        kept.close()
    assert loads[0] == loads[1] < loads[2]


def test_the_files_that_name_places_of_modules_are_watched(tmp_path, monkeypatch):
    (tmp_path / "places.pth").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert str(tmp_path / "places.pth") in loaded._files()


def test_modules_that_need_a_refused_one_are_left_out():
    made = make(["fractions", "missing_module", "calendar"], refused=["locale"])
    with made.template:
        assert {"missing_module", "calendar", "locale"} == made.left_out.keys()
        assert made.left_out["calendar"] == "it imports locale"
        assert "missing_module" in made.left_out["missing_module"]


UNSAFE = {
    "lasting_thread": "import threading\nthreading.Thread(target=threading.Event().wait, name='endless').start()",
    "open_socket": "import socket\nsock = socket.socket()",
    "noisy": "print('loaded')",
    "needs_thread": "import lasting_thread",
    "leaves": "raise SystemExit(3)",
}
REASONS = {
    "lasting_thread": "has started the thread 'endless'",
    "open_socket": "descriptor",
    "noisy": "writes to standard output",
    "needs_thread": "it imports lasting_thread",
    "leaves": "its import raises SystemExit: 3",
}


def test_learned_modules_that_are_not_safe_in_a_template_are_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, source in UNSAFE.items():
        (tmp_path / f"{name}.py").write_text(source)
    made = make(["needs_thread", *UNSAFE, "fractions"], refused=["calendar"])
    with made.template:
        assert made.left_out.keys() == {*UNSAFE, "calendar"}
        assert [name for name, text in REASONS.items() if text not in made.left_out[name]] == []
        assert "fractions" in made.modules
        assert not UNSAFE.keys() & {*made.modules}
