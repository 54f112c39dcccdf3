"""Programs that an interpreter runs: wherever their text comes from, it is run once."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import textwrap
import zipfile
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest
from deadlines import PROGRAM_DEADLINE
from shipped import FIRST, SAYS, SOURCES, clean, outcome, program, python

both = pytest.mark.parametrize("first", ["plain", "early"])


@both
def test_a_script(tmp_path, first):
    (tmp_path / "script.py").write_text(program(first))
    assert python(tmp_path / "script.py") == SAYS


@both
def test_a_script_without_a_guard_is_run_once_all_the_same(tmp_path, first):
    (tmp_path / "script.py").write_text(program(first, guard=""))
    assert python(tmp_path / "script.py") == SAYS


@both
def test_a_package(tmp_path, first):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("print('the package begins', flush=True)\n")
    (package / "__main__.py").write_text(program(first))
    assert python("-m", "shop", cwd=tmp_path) == "the package begins\n" + SAYS


def test_a_function_of_a_package_imports_what_is_beside_it(tmp_path):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "prices.py").write_text("APPLE = 3\n")
    (package / "__main__.py").write_text(
        textwrap.dedent("""
            import anyfork, os
            def price():
                from . import prices
                from .prices import APPLE
                return prices.APPLE, APPLE
            os.chdir("/")
            print(anyfork.call(price), anyfork.call(price, template=anyfork.Template.new_exec()))
        """)
    )
    assert python("-m", "shop", cwd=tmp_path) == "(3, 3) (3, 3)\n"


@both
def test_code_on_the_command_line(first):
    assert python("-c", program(first)) == SAYS


@both
@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["", "dash"])
def test_code_on_standard_input(first, arguments):
    assert python(*arguments, text=program(first)) == SAYS


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["", "dash"])
def test_no_process_takes_the_rest_of_a_program_on_standard_input(arguments):
    source = """
        import anyfork
        def read(channel):
            import sys
            channel.sendall(repr(sys.stdin.buffer.raw.read(5)).encode())
        with anyfork.Template().fork(stdin=anyfork.DEVNULL).run(read) as process:
            print(process.channel.recv(100))
        print(anyfork.call(len, "four"))
    """
    assert python(*arguments, text=textwrap.dedent(source)) == "b\"b''\"\n4\n"


@both
def test_a_directory(tmp_path, first):
    (tmp_path / "__main__.py").write_text(program(first))
    assert python(tmp_path) == SAYS


# --- Archives -------------------------------------------------------------------------------------------------------


@both
def test_a_zipapp(tmp_path, first):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(program(first))
    outcome([sys.executable, "-m", "zipapp", tmp_path / "app"])
    assert python(tmp_path / "app.pyz") == SAYS


@pytest.fixture
def everything_in_one(tmp_path):
    """Return a function that makes an archive with a main program, anyfork itself and what it needs."""

    def build(source, *modules):
        app = tmp_path / "app"
        for name in ("anyfork", "_anyfork_child"):
            shutil.copytree(SOURCES / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("cloudpickle", "anyio", "idna"):
            place = Path(find_spec(name).origin).parent
            shutil.copytree(place, app / name, ignore=shutil.ignore_patterns("__pycache__"))
        extensions = find_spec("typing_extensions")  # of anyio, which does without on the newest versions of Python
        if extensions is not None:
            shutil.copy(extensions.origin, app)
        (app / "__main__.py").write_text(source)
        for name, text in modules:
            (app / name).write_text(text)
        outcome([sys.executable, "-m", "zipapp", app, "-p", sys.executable])
        shutil.rmtree(app)
        assert zipfile.is_zipfile(tmp_path / "app.pyz")
        return tmp_path / "app.pyz"

    return build


@both
def test_a_zipapp_that_contains_anyfork_and_what_it_needs(everything_in_one, first):
    archive = everything_in_one(program(first) + "assert '.pyz' in anyfork.__file__\n")
    assert python("-I", "-S", archive) == SAYS


@pytest.mark.slow
def test_a_zipapp_that_is_executed(everything_in_one):
    archive = everything_in_one(program("plain"))
    assert outcome([archive], env={"PYTHONNOUSERSITE": "1"}) == SAYS


def test_the_async_face_comes_from_a_zipapp_too(everything_in_one):
    source = """
        import anyio, shelf
        from anyfork import aio
        async def main():
            async with aio.Worker(aio.Template()) as worker:
                print(await worker.call(shelf.count, "abc"), ".pyz" in await worker.call(shelf.place))
        anyio.run(main)
    """
    shelf = "def count(text):\n    return len(text)\ndef place():\n    return __file__\n"
    archive = everything_in_one(textwrap.dedent(source), ("shelf.py", shelf))
    assert python("-I", "-S", archive) == "3 True\n"


@pytest.mark.slow
def test_a_zipapp_that_was_named_by_a_relative_path_and_moves_on(everything_in_one):
    source = """
        import anyfork, os, shelf
        os.chdir("/")
        for make in anyfork.Template, anyfork.Template.new_exec:
            print(anyfork.call(shelf.count, "abc", template=make()))
    """
    archive = everything_in_one(textwrap.dedent(source), ("shelf.py", "def count(text):\n    return len(text)\n"))
    assert python("-I", "-S", archive.name, cwd=archive.parent) == "3\n3\n"


# --- The interactive prompt ------------------------------------------------------------------------------------------


class Prompt:
    """An interpreter on a terminal: what is typed, and what it shows."""

    def __init__(self, *arguments, **env):
        self.screen, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-q", *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, env=clean({"TERM": "dumb", **env}),
        )  # fmt: skip
        os.close(terminal)
        self.shown = ""
        self.until(">>> ")

    def until(self, text):
        """Return what the program shows up to this text, which is awaited."""
        deadline = monotonic() + PROGRAM_DEADLINE
        while text not in self.shown:
            assert select.select([self.screen], [], [], max(0, deadline - monotonic()))[0], self.shown
            self.shown += os.read(self.screen, 65536).decode()
        before, _, self.shown = self.shown.partition(text)
        return before.replace("\r", "")

    def type(self, line):
        """Type a line; what it shows up to the next prompt, without the line itself."""
        os.write(self.screen, line.encode() + b"\n")
        shown = self.until(">>> " if not line.startswith((" ", "def", "class")) else "... ")
        return shown.partition("\n")[2]

    def close(self):
        os.write(self.screen, b"raise SystemExit(3)\n")
        try:
            return self.process.wait(PROGRAM_DEADLINE)
        finally:
            os.close(self.screen)


@pytest.fixture
def prompt():
    # The prompt of 3.13 redraws what is typed; lines are the same in both.
    prompt = Prompt(PYTHON_BASIC_REPL="1")
    yield prompt
    assert prompt.close() == 3


def test_the_interactive_prompt(prompt):
    for line in ("import anyfork, os", "class OwnError(Exception): pass", ""):
        prompt.type(line)
    prompt.type("def fail(text): raise OwnError(text)")
    prompt.type("")
    assert prompt.type("anyfork.call(lambda: os.getpid()) != os.getpid()") == "True\n"
    for line in ("def attempt(template):", " try: anyfork.call(fail, 'no luck', template=template)"):
        prompt.type(line)
    prompt.type(" except OwnError as error: print('own', error)")
    prompt.type("")
    assert prompt.type("attempt(anyfork.Template())") == "own no luck\n"
    assert prompt.type("attempt(anyfork.Template.new_exec())") == "own no luck\n"
    assert prompt.type("attempt(anyfork.fork_here())") == "own no luck\n"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="there is one prompt before Python 3.13")
def test_the_prompt_that_is_written_in_python():
    prompt = Prompt(TERM="xterm")
    try:
        for line in (b"import anyfork", b"print('answer', anyfork.call(lambda: 6 * 7))"):
            os.write(prompt.screen, line + b"\n")
            prompt.until("answer 42" if b"print" in line else ">>> ")
    finally:
        prompt.close()  # with 1 instead of 3, before Python 3.13.1


# --- What a program has changed before its first template ----------------------------------------------------------


@both
def test_a_program_that_has_changed_its_directory(tmp_path, first):
    (tmp_path / "program.py").write_text(program(first).replace("\nprint(", "\nos.chdir('/')\nprint(", 1))
    assert python("program.py", cwd=tmp_path) == SAYS


CHANGED = """
    {first}
    import anyfork, os, sys
    sys.path[:0] = ["beside", os.path.abspath("other")]
    os.environ["COLOUR"] = "red"
    os.environ.pop("SHAPE")
    import found
    os.chdir("beside")
    def tell():
        import far
        return far.__name__, os.getcwd(), os.environ.get("COLOUR"), os.environ.get("SHAPE")
    for template in {templates}:
        print(anyfork.call(found.name, template=template), anyfork.call(tell, template=template))
"""


# The default template of the early kind is the program as it was; new_exec gives its fork what the program has now.
@pytest.mark.parametrize(
    ("first", "templates"),
    [("plain", "[anyfork.Template(), anyfork.Template.new_exec()]"), ("early", "[anyfork.Template.new_exec()]")],
    ids=["plain", "early"],
)
def test_a_program_that_has_changed_its_path_and_its_environment(tmp_path, first, templates):
    for place, name in (("beside", "found"), ("other", "far")):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{name}.py").write_text("def name():\n    return __name__\n")
    (tmp_path / "program.py").write_text(textwrap.dedent(CHANGED.format(first=FIRST[first], templates=templates)))
    said = python("program.py", cwd=tmp_path, env={"SHAPE": "round"})
    assert said == f"found ('far', '{tmp_path}/beside', 'red', None)\n" * (templates.count(",") + 1)


def test_a_python_path_that_the_program_has_set_for_others_disturbs_nothing(tmp_path):
    for name in ("socket", "signal", "resource", "_anyfork_child"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')\n")
    source = f"""
        import os
        os.environ["PYTHONPATH"] = {str(tmp_path)!r}
        import anyfork
        for template in anyfork.Template(), anyfork.Template.new_exec():
            print(anyfork.call(os.getenv, "PYTHONPATH", template=template))
    """
    assert python("-c", textwrap.dedent(source)) == f"{tmp_path}\n" * 2
