"""``anyfork audit``: what the imports of a program cost and leave behind, and what a template should load of them."""

from __future__ import annotations

import json
import re

import pytest
from cold_and_warm import PLAIN
from owner_side import run_python

from anyfork._programs.import_audit import UnreadableError, audit_imports

# Modules of the project, each with what must be said of it, if anything.
MODULES = {
    "threaded": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='T').start()",
        "'T'",
    ),
    "native": (
        "import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\n_thread.start_new_thread(lock.acquire, ())",
        "native",
    ),
    "connected": ("import _socket\nsock = _socket.socket()", r"descriptor \d+ open: socket"),
    "opened": ("file = open(__file__)", r"descriptor \d+ open: /.*opened.py"),
    "parent": ("import subprocess\nchild = subprocess.Popen(['sleep', '1000'])", r"the process \d+ \("),
    "handled": ("import signal\nsignal.signal(signal.SIGTERM, print)", "SIGTERM"),
    "loud": ("print('loaded')", "writes to standard output"),
    "harmless": ("import email.message\nfile = open(__file__)\nfile.close()\nnull = open('/dev/null')", ""),
}
PROGRAM = """
from __future__ import annotations
TYPE_CHECKING = False
if TYPE_CHECKING:
    import never_loaded
import {names}
try:
    import not_there
except ImportError:
    raise SystemExit("the program itself does not run")
def main():
    import asyncio, tkinter_like
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, (code, _) in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_module_is_charged_with_what_it_leaves_behind(project):
    (project / "program.py").write_text(PROGRAM.format(names=", ".join(MODULES)))
    found = audit_imports("", "program.py", ())
    said = {one.name: " ".join(one.unsafe) for one in found.all_modules}
    for name, (_, expected) in MODULES.items():
        assert re.search(expected, said[name]) if expected else said[name] == "", name
    assert {name for name, text in said.items() if text} == {*MODULES} - {"harmless"}
    assert {*found.failed} == {"not_there", "tkinter_like"}
    assert {"asyncio", "email.message", "subprocess"} <= {*found.preload}
    assert not {*MODULES} & {*found.preload}
    assert found.template is not None
    assert not found.refused


def test_costs_include_those_of_all_that_a_module_imports():
    found = audit_imports("-c", "import json.tool", ())
    tool = next(one for one in found.modules if one.name == "json.tool")
    assert tool.seconds > sum(one.seconds for one in tool.imports) > 0
    assert "argparse" in {one.name for one in tool.walk()}
    assert found.preload == ["json.tool"]


def test_an_import_that_ends_the_process_is_named_and_the_others_are_examined(project):
    (project / "deadly.py").write_text("import os\nos.abort()")
    (project / "leaving.py").write_text("raise SystemExit(3)")
    found = audit_imports("-c", "import csv, deadly, leaving, opened", ())
    assert "SIGABRT" in found.failed["deadly"]
    assert found.failed["leaving"] == "SystemExit: 3"
    assert [one.name for one in found.modules] == ["csv", "opened"]


@pytest.mark.untraced
def test_nothing_is_recommended_that_imports_something_unsafe(project):
    package = project / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import opened, email.message")
    (package / "__main__.py").write_text("from . import inner")
    (package / "inner.py").write_text("import xml.dom.minidom")
    found = audit_imports("-m", "package", ())
    assert {one.name: one.is_safe for one in found.modules} == {"package": False, "package.inner": True}
    assert found.preload == ["email.message", "xml.dom.minidom"]


@pytest.mark.parametrize(("kind", "target"), [("", "none.py"), ("-m", "none"), ("-c", "x ="), ("-m", "os.path.none")])
def test_a_program_that_cannot_be_read_is_explained(project, kind, target):
    with pytest.raises(UnreadableError, match=r"No such file|No module|invalid syntax|__path__"):
        audit_imports(kind, target, ())


def test_the_command_prints_a_report_or_json(project):
    def run(*line):
        done = run_python("-m", "anyfork", "audit", *line, env=PLAIN, cwd=project)
        assert done.stderr == ""
        assert done.returncode == 0
        return done.stdout

    text = run("-c", "import email.message, opened, gone")
    assert re.search(r"^ +\d+\.\d +\d+\.\d  opened \(of the project\) UNSAFE$", text, re.MULTILINE)
    assert re.search(r"^unsafe to preload:\n  opened has left descriptor \d+ open: ", text, re.MULTILINE)
    assert "cannot be imported:\n  gone: ModuleNotFoundError" in text
    assert text.endswith("  anyfork run --preload email.message -c 'import email.message, opened, gone'\n")
    found = json.loads(run("--json", "-c", "import opened"))
    [module] = found["modules"]
    assert (module["name"], module["installed"], len(module["unsafe"])) == ("opened", False, 1)
    assert found["preload"] == []
