"""Modules are found that are in places which were put on the path after the first use of anyfork."""

from __future__ import annotations

import os
import subprocess
import sys

import anyfork

PROGRAM = """
import os, sys, zipfile
import anyfork, anyio
from anyfork import aio

early = anyfork.Template().ready()
executor = anyfork.Executor(max_workers=1)
executor.submit(abs, -1).result()
worker = anyfork.Worker(anyfork.Template())
worker.call(abs, -1)

os.makedirs("later/pkg")
with open("later/mine.py", "w") as file:
    file.write("import other\\nclass MineError(Exception): pass\\nclass Thing:\\n    def ask(self): return other.answer()\\n"
               "def function(): return 'late'\\ndef fail(): raise MineError\\n")
with open("later/other.py", "w") as file:
    file.write("def answer(): return 5\\n")
open("later/pkg/__init__.py", "w").close()
with open("later/pkg/sub.py", "w") as file:
    file.write("def name(): return __name__\\n")
with zipfile.ZipFile("modules.zip", "w") as file:
    file.writestr("zipped.py", "def name(): return __name__\\n")
sys.path.insert(0, "later")
sys.path.append(os.path.abspath("modules.zip"))
import mine, pkg.sub, zipped

def inside():
    import mine
    return mine.function()

def by_global():
    return mine.function()

def ask(thing):
    return thing.ask()

CASES = (mine.function,), (zipped.name,), (pkg.sub.name,), (inside,), (by_global,), (ask, mine.Thing())
RIGHT = ["late", "zipped", "pkg.sub", "late", "late", 5]

for call in (anyfork.call, lambda *case: executor.submit(*case).result(), worker.call):
    assert [call(*case) for case in CASES] == RIGHT
    try:
        call(mine.fail)
    except mine.MineError:
        continue
    raise AssertionError("no error")
assert anyfork.call("mine:function", template=early) == "late"
anyfork.Template().preload("mine").ready()

async def in_a_pool():
    async with aio.Pool(aio.Template(), max_workers=1) as pool:
        return [await pool.call(*case) for case in CASES]

assert anyio.run(in_a_pool) == RIGHT
with anyfork.get_context().Pool(1) as pool:
    assert [pool.apply(*case[:1], case[1:]) for case in CASES] == RIGHT
executor.shutdown()
worker.close()
sys.path.remove("later")
where = [entry for entry in anyfork.call(eval, "__import__('sys').path") if entry.endswith(("later", "modules.zip"))]
assert where == [os.path.abspath("modules.zip")], where
print("all found")
"""


def test_modules_of_later_places_are_found_in_each_face(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("all found\n", "")


ORDER = """
import os, sys
import anyfork

places = [os.path.abspath(name) for name in ("one", "two", "three")]
for place in places:
    os.mkdir(place)
    with open(os.path.join(place, "which.py"), "w") as file:
        file.write(f"PLACE = {place!r}")
one, two, three = places
sys.path[:0] = [one, two, one]

def found():
    path = anyfork.call(eval, "__import__('sys').path")
    print(*[os.path.basename(entry) for entry in path if entry in places])
    print(os.path.basename(anyfork.call(eval, "__import__('which').PLACE")))

found()
for change in ("sys.path.insert(0, two)", "sys.path.insert(0, three)", "del sys.path[0]", "del sys.path[0]"):
    exec(change)
    found()
"""


def test_places_that_are_put_before_others_again_are_before_them(tmp_path):
    done = subprocess.run([sys.executable, "-c", ORDER], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.stdout.splitlines(), done.stderr) == (
        ["one two one", "one", "two one", "two", "three two one", "three", "two one", "two", "one two", "one"],
        "",
    )


PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}


def test_a_template_with_another_encoding_finds_the_same_files(tmp_path, monkeypatch):
    # Text means another file there: what travels are the bytes of a name.
    place = tmp_path / "später"
    place.mkdir()
    (place / "im_spaeter.py").write_text("def answer():\n    return __file__\n")
    monkeypatch.syspath_prepend(place)
    import im_spaeter

    environment = {**os.environ, **PLAIN, "PYTHONUTF8": "0"}
    with anyfork.Template.new_exec(env=environment, cwd=place) as template:
        assert anyfork.call(sys.getfilesystemencoding, template=template.fork()) != sys.getfilesystemencoding()
        assert anyfork.call(os.getcwdb, template=template.fork()) == os.fsencode(place)
        found = anyfork.call(im_spaeter.answer, template=template.fork())
    assert found.encode("ascii", "surrogateescape") == os.fsencode(im_spaeter.__file__)
