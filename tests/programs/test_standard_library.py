"""Programs of the standard library do the same warm as cold: output, exit status, and files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import urllib.request
import zipfile

import pytest
from cold_and_warm import PLAIN, Runs, preloaded

import anyfork

SOURCE = '''"""A module."""
import os


def greet(name: str = "world", *, loud=False) -> str:
    """Return a greeting.

    >>> greet()
    'hello, world'
    >>> greet("x", loud=True)
    'HELLO'
    """
    text = f"hello, {name}"
    return text.upper() if loud else text


class Thing:
    def method(self): return [n ** 2 for n in range(5)]

if __name__ == "__main__":
    print(greet(), Thing().method())
'''
TESTS = """
import unittest

class Good(unittest.TestCase):
    def test_passes(self): self.assertEqual(1, 1)
    @unittest.skip("why not")
    def test_skipped(self): pass

class Bad(unittest.TestCase):
    def test_fails(self): self.assertEqual([1, 2], [1, 3])
    def test_raises(self): raise ValueError("x")
"""


def make(place):
    """Write what the programs work on."""
    (place / "module.py").write_text(SOURCE)
    (place / "broken.py").write_text("def f(:\n")
    (place / "test_it.py").write_text(TESTS)
    (place / "folder").mkdir()
    (place / "folder" / "a.py").write_text("A = 1\n")
    (place / "folder" / "main.py").write_text("def go(): print('gone')\n")
    (place / "data.json").write_text(json.dumps({"b": [1, 2.5, None], "a": "größer"}))
    (place / "bad.json").write_text('{"a": ')
    (place / "lines.json").write_text("1\n[2]\n")
    (place / "text").write_bytes(b"some text\n" * 20)
    with zipfile.ZipFile(place / "old.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("in/file"), "content")
    with tarfile.open(place / "old.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("member"))


PROGRAMS = {
    "ast": ["module.py", "-m exec -a module.py", "-i 2 broken.py", "missing.py"],
    "base64": ["-e text", "-d text", "-t", "-x", "-e missing"],
    "calendar": ["2026", "2026 2", "-t html 2026 1", "2026 13", "--nonsense"],
    "compileall": ["-q folder", "folder missing", "-q .", "--nonsense"],
    "code": ["-q"],
    "cProfile": ["-s calls -o out.prof module.py", "--nonsense", "missing.py"],
    "dis": ["module.py", "broken.py"],
    "doctest": ["module.py", "-v module.py", "missing.py"],
    "ensurepip": ["--version", "--nonsense"],
    "filecmp": [""],
    "getopt": [""],
    "gzip": ["text", "-d text", "--best text", "missing"],
    "http.server": ["--help", "--nonsense", "port"],
    "inspect": ["json", "json:dumps --details", "missing", "json:missing"],
    "json.tool": [
        "data.json",
        "--sort-keys data.json out.json",
        "--json-lines lines.json",
        "bad.json",
        "missing",
        "-h",
    ],
    "locale": [""],
    "mimetypes": ["a.html", "-e text/html", "-l x.PNG", "a.nonsense"],
    "pdb": ["--help", "-c continue module.py", "missing.py"],
    "pickle": ["data.json", "-h"],
    "pickletools": ["-h", "missing"],
    "platform": ["--terse", ""],
    "profile": ["--nonsense"],
    "pstats": ["missing"],
    "pyclbr": ["module.py"],
    "py_compile": ["module.py", "broken.py", "-q broken.py missing.py"],
    "pydoc": ["module", "json", "missing"],
    "quopri": ["text", "-d text", "missing"],
    "site": ["--user-site", "--user-base", "--nonsense"],
    "sqlite3": ["--version", ":memory:", "db 'create table t (x)'"],
    "symtable": ["module.py"],
    "sysconfig": [""],
    "tabnanny": ["-v module.py", "missing.py", "folder"],
    "tarfile": ["-l old.tar", "-c new.tar text", "-e old.tar out", "-l text", "--nonsense"],
    "textwrap": [""],
    "this": [""],
    "timeit": ["-n2 -r1 pass", "-n1 -r1 -s x=1 x+y", "-n"],
    "tokenize": ["module.py", "-e module.py", "broken.py", "missing.py"],
    "trace": ["--count -C counts module.py", "--listfuncs module.py", "--nonsense"],
    "turtledemo": ["--nonsense"],
    "unittest": ["-q test_it", "test_it.Good", "discover", "-v test_it.Bad", "missing", "-k passes"],
    "uuid": ["--help", "--nonsense"],
    "venv": ["--without-pip env", "--nonsense", ""],
    "webbrowser": ["--nonsense"],
    "zipapp": ["folder -m main:go -o app.pyz", "app.pyz --info", "missing"],
    "zipfile": ["-l old.zip", "-c new.zip text folder", "-e old.zip out", "-t old.zip", "-l text", "--nonsense"],
}


# The programs of the fast suite: those that people run, run code of others, or write files.
USUAL = (
    "cProfile",
    "code",
    "compileall",
    "doctest",
    "json.tool",
    "pdb",
    "site",
    "sysconfig",
    "timeit",
    "trace",
    "unittest",
    "venv",
)


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)
def test_a_program_of_the_standard_library_does_the_same(tmp_path, name):
    with preloaded("" if name in ("this", "turtledemo") else name) as template:
        runs = Runs(tmp_path / "here", make, template)
        for line in PROGRAMS[name]:
            runs.check(["-m", name, *line.replace("'", "").split()], stdin=b"print(1 + 1)\n1 / 0\nc29tZQ==\n")


def test_a_script_of_the_standard_library_does_the_same(tmp_path):
    import json.tool

    with preloaded("json.tool argparse") as template:
        runs = Runs(tmp_path / "here", make, template)
        for path in (json.tool.__file__, "module.py"):
            runs.check([path, "data.json"])
        runs.check(["broken.py", "data.json"], why_cold="does not compile")


@pytest.mark.parametrize("line", ["--version", "list --format=json", "download", "show missing", "config list"])
@pytest.mark.slow
def test_pip_does_the_same(tmp_path, line):
    env = {**PLAIN, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}  # it tells of a newer version now and then
    with preloaded("pip._internal.cli.main", env) as template:
        Runs(tmp_path / "here", make, template).check(["-m", "pip", *line.split()], env=env)


def test_a_server_serves_until_it_is_interrupted(tmp_path):
    make_here = tmp_path / "here"
    make_here.mkdir()
    make(make_here)
    command = ["http.server", "--bind", "127.0.0.1", "0"]
    said = []

    def talk(output, interrupt):
        port = int(re.search(rb"port (\d+)", output.readline())[1])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/text") as answer:
            said.append(answer.read())
        interrupt()
        said.append(output.read())

    cold = subprocess.Popen([sys.executable, "-u", "-m", *command], cwd=make_here, stdout=subprocess.PIPE, stderr=-3)
    with cold:
        talk(cold.stdout, lambda: cold.send_signal(signal.SIGINT))
    read, write = os.pipe()
    with anyfork.Template.new_exec(flags=["-u"]).preload("http.server") as template, open(read, "rb") as output:
        warm = template.fork(cwd=make_here, stdout=write, stderr=anyfork.DEVNULL).run_module(*command)
        os.close(write)
        with warm:
            talk(output, lambda: warm.send_signal(signal.SIGINT))
            assert warm.wait(20).returncode == cold.returncode
    assert said[:2] == said[2:]
