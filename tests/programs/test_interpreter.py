"""What a program sees of its interpreter is the same warm as cold, and so is its end."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from cold_and_warm import PLAIN, TEMPLATES, Runs
from deadlines import PROGRAM_DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

SHOW = """
import sys, os
main = sys.modules["__main__"]
spec = main.__spec__
print(__name__, main.__dict__ is globals(), __package__, spec and (spec.name, spec.origin), type(__loader__), __doc__)
print(globals().get("__file__"), globals().get("__cached__", "none"), __builtins__, [n for n in vars(main)])
print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.warnoptions, sys._xoptions)
print(sys.executable, sys.prefix, sys.meta_path, sys.path_hooks, os.getcwd(), os.environ.get("LD_BIND_NOW"))
for name in ("stdin", "stdout", "stderr"):
    s = getattr(sys, name)
    print(s.name, s.mode, s.encoding, s.errors, s.newlines, s.line_buffering, s.write_through, s is getattr(sys, f"__{name}__"))
    print(s.buffer, getattr(s.buffer, 'raw', 0), s.fileno(), s.isatty())
import signal
print([(n, signal.getsignal(n)) for n in sorted(signal.valid_signals())], signal.pthread_sigmask(signal.SIG_BLOCK, ()))
import gc, threading, warnings
print(sorted(int(n) for n in os.listdir("/proc/self/fd")), os.umask(0o22), gc.isenabled(), gc.get_threshold())
print(threading.enumerate()[0].name, sys.getrecursionlimit(), sys.excepthook, sys.unraisablehook, sys.displayhook)
print([str(f) for f in warnings.filters], sys.gettrace(), sys.exc_info(), hasattr(sys, "last_value"), sys.getswitchinterval())
import multiprocessing.process as p
print(p.ORIGINAL_DIR, p.current_process().name, p.parent_process(), p.active_children())
print(open("/proc/self/comm").read(), open("/proc/self/cmdline").read().rstrip(chr(0)).split(chr(0)))
"""


def empty(place):
    """Leave the directory of a program empty."""


@pytest.fixture(scope="module")
def templates():
    """Provide one template of each kind for all tests: what it preloads takes longer than most of them."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(make().ready(PROGRAM_DEADLINE)) for name, make in TEMPLATES.items()}


@pytest.fixture(params=TEMPLATES)
def runs_of_both(request, templates, tmp_path):
    with templates[request.param].fork() as template:
        yield Runs(tmp_path / "here", empty, template)


@pytest.fixture
def runs(templates, tmp_path):
    with templates["preloaded"].fork() as template:
        yield Runs(tmp_path / "here", empty, template)


def write_all(place):
    """Write a script, a package, a directory and an archive with the same contents."""
    (place / "script.py").write_text(SHOW)
    for name in ("package", "package/inner", "folder"):
        (place / name).mkdir()
    (place / "package" / "__init__.py").write_text("")
    (place / "package" / "inner" / "__init__.py").write_text("")
    (place / "package" / "inner" / "__main__.py").write_text(SHOW)
    (place / "folder" / "__main__.py").write_text(SHOW)
    with zipfile.ZipFile(place / "archive.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), SHOW)


@pytest.mark.parametrize(
    "line",
    [
        ["-c", "exec(open('script.py').read())", "a", "-b", ""],
        ["-m", "script", "x"],
        ["-m", "package.inner", "x"],
        ["script.py", "x", "--y"],
        ["./script.py"],
        [".//script.py"],
        ["package/../script.py"],
        ["package/inner"],
        ["folder"],
        ["./folder/", "x"],
        ["archive.zip", "-v"],
    ],
    ids=["code", "module", "package", "script", "dot", "slashes", "parent", "packages", "folder", "folder/", "archive"],
)
def test_a_program_sees_the_same_interpreter(runs_of_both, line):
    runs_of_both.make = write_all
    assert runs_of_both.check(line).returncode == 0


def test_an_absolute_script_sees_the_same_interpreter(runs):
    runs.make = write_all
    assert runs.check([str(runs.place / "script.py"), "größer"]).returncode == 0


def test_a_linked_script_finds_its_modules_where_it_is(runs):
    def make(place):
        (place / "real").mkdir()
        (place / "real" / "script.py").write_text("import sys, beside; print(sys.path[0], __file__)")
        (place / "real" / "beside.py").write_text("print('found')")
        (place / "link.py").symlink_to("real/script.py")

    runs.make = make
    assert runs.check(["link.py"]).stdout.startswith(b"found")


ENDS = {
    "nothing": "pass",
    "text": "raise SystemExit('so long')",
    "number": "import sys; sys.exit(7)",
    "large": "raise SystemExit(258)",
    "negative": "raise SystemExit(-1)",
    # Python 3.13 prints an error of its own for this number, and another one if threading is not loaded.
    "huge": "import threading\nraise SystemExit(1 << 70)",
    "None": "raise SystemExit(None)",
    "tuple": "raise SystemExit(1, 2)",
    "bool": "raise SystemExit(True)",
    "exit": "exit('bye')",
    "os._exit": "import os; print('lost', end=''); os._exit(3)",
    "error": "def f():\n    1 / 0\nf()",
    "chain": "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('x') from e",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "notes": "e = ValueError('x'); e.add_note('a note'); raise e",
    "base": "class Odd(BaseException): pass\nraise Odd('odd')",
    "interrupt": "print('first'); raise KeyboardInterrupt",
    "interrupt after exec": "exec('x = 1')\ntry: exec('1 / 0')\nexcept ArithmeticError: pass\nraise KeyboardInterrupt",
    "signalled": "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('never')",
    "killed": "import os, signal; print('lost'); os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import os, signal; print('lost'); os.kill(os.getpid(), signal.SIGTERM)",
    "hook": "import sys\nsys.excepthook = lambda *e: print('hook', e[0], e[2].tb_frame.f_code.co_name, e[2].tb_next)\n1 / 0",
    "failing hook": "import sys\ndef hook(*e): raise ValueError(2)\nsys.excepthook = hook\n1 / 0",
    "exiting hook": "import sys\ndef hook(*e): sys.exit(9)\nsys.excepthook = hook\n1 / 0",
    "no hook": "import sys\ndel sys.excepthook\n1 / 0",
    "interrupt hook": "import sys\nsys.excepthook = lambda *e: print('hook')\nraise KeyboardInterrupt",
    "no stderr": "import sys\nsys.stderr = None\n1 / 0",
    "last": "import sys, atexit\natexit.register(lambda: print(sys.last_value, sys.last_traceback.tb_lineno))\n1 / 0",
    "atexit": "import atexit\nfor n in range(3): atexit.register(print, n)\nprint('main')",
    "failing atexit": "import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 'x')",
    "exiting atexit": "import atexit, sys\natexit.register(sys.exit, 5)",
    "logging at exit": "import logging.handlers as h, logging\nm = h.MemoryHandler(99, target=logging.StreamHandler())\n"
    "logging.getLogger().addHandler(m)\nlogging.getLogger().warning('kept')",
    "thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\nprint('main')",
    "daemon": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\nprint('main')",
    "failing thread": "import threading\nthreading.Thread(target=lambda: 1 / 0, name='T').start()",
    "pool": "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\np.submit(lambda: print('job'))",
    "unflushed": "print('no newline', end='')",
    "open file": "f = open('left', 'w'); f.write('x' * 10000)",
    "open file in a cycle": "class A: pass\na = A(); a.a = a; a.f = open('left', 'w'); a.f.write('cycle'); del a",
    "open file of a class": "import json\njson.JSONEncoder.left = open('left', 'w'); json.JSONEncoder.left.write('y')",
    "del": "class A:\n    def __del__(self): print('deleted', __name__)\na = A()",
    "del cycle": "class A:\n    def __del__(self): print('deleted')\na = A(); a.a = a",
    "del of a module": "import json\nclass A:\n    def __del__(self): print('deleted')\njson.x = A(); json.JSONDecoder.x = A()",
    "failing del": "class A:\n    def __del__(self): 1 / 0\na = A()",
    "temporary": "import tempfile, os, atexit\nt = tempfile.TemporaryDirectory(dir='.')\nopen(t.name + '/f', 'w').close()",
    "finalize": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')",
    "full": "import os, sys\nsys.stdout = open('/dev/full', 'w')\nprint('x')",
    "full stdout": "import os, sys\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nprint('x')",
    "broken pipe": "import os, sys\nr, w = os.pipe(); os.close(r); os.dup2(w, 1)\nprint('x')",
    "closed stdout": "import sys\nsys.stdout.close()",
    "async": "import asyncio\nasync def main():\n    await asyncio.sleep(0); print('async'); 1 / 0\nasyncio.run(main())",
    "never awaited": "async def f(): pass\nf()",
    "resource": "import warnings\nwarnings.simplefilter('always')\nopen('left', 'w')",
    "warning": "import warnings\nwarnings.warn('beware')\nwarnings.warn('deprecated', DeprecationWarning)",
    "syntax warning": "x = 1 is 1\nprint(x)",
    "stack": "def f(): g()\ndef g(): raise ValueError\nimport traceback\ntry: f()\nexcept ValueError: traceback.print_exc()",
    "input": "print(input(), repr(input()))\nimport sys; print(repr(sys.stdin.read()))",
    "no input": "input()",
    "recursion": "def f(): f()\ntry: f()\nexcept RecursionError as e: print(e)",
    "locals": "print(sorted(locals()), locals() is globals(), __annotations__ if '__annotations__' in globals() else 0)",
    "annotations": "x: int = 1\nprint(__annotations__)",
    "exec": "exec('print(__name__)'); print(eval('1 + 1'))",
    "fork": "import os\nif os.fork(): print(os.wait()[1])\nelse: print('child')",
    "fork error": "import os, sys\nif os.fork(): print(os.wait()[1], flush=True)\nelse: raise ValueError('child')",
    "subprocess": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(1)'])",
    "hash": "print(hash(1.5), hash((1, 2)))",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_program_ends_the_same_way(runs, name):
    runs.make = lambda place: (place / "program.py").write_text(ENDS[name])
    for line in (["-c", ENDS[name]], ["program.py"], ["-m", "program"]):
        runs.check(line, stdin=b"first\r\nsecond\nrest\r\n\xc3\xa4")


MULTIPROCESSING = """
import multiprocessing, pickle, sys
class Thing:
    def __init__(self, value): self.value = value
    def __eq__(self, other): return self.value == other.value
def work(thing): return Thing(thing.value + 1)
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    print(pickle.loads(pickle.dumps(Thing(3))) == Thing(3), work.__module__, Thing.__qualname__)
    with multiprocessing.Pool(2) as pool:
        print([thing.value for thing in pool.map(work, [Thing(1), Thing(2)])])
    queue = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=queue.put, args=(Thing(5),))
    process.start(); print(queue.get().value); process.join(); print(process.exitcode)
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=10); memory.close(); memory.unlink()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("line", [["program.py"], ["-m", "program"]], ids=["script", "module"])
def test_multiprocessing_works_in_a_program(runs, line, method):
    runs.make = lambda place: (place / "program.py").write_text(MULTIPROCESSING)
    assert runs.check([*line, method]).returncode == 0


WRONG = {
    "no script": (["missing.py"], {}),
    "no module": (["-m", "missing"], {}),
    "no submodule": (["-m", "json.missing"], {}),
    "no package": (["-m", "missing.sub"], {}),
    "package without main": (["-m", "package"], {"package/__init__.py": ""}),
    "directory without main": (["folder"], {"folder/x": ""}),
    "failing package": (["-m", "package"], {"package/__init__.py": "1 / 0", "package/__main__.py": ""}),
    "importing package": (["-m", "package"], {"package/__init__.py": "import missing", "package/__main__.py": ""}),
    "syntax": (["script.py"], {"script.py": "x = (\n"}),
    "syntax of a module": (["-m", "script"], {"script.py": "x = (\n"}),
    "syntax of code": (["-c", "x = )"], {}),
    "indented": (["-c", "  print(1)\n  print(2)"], {}),
    "indentation": (["script.py"], {"script.py": "if 1:\nx\n"}),
    "not utf-8": (["script.py"], {"script.py": b"x = '\xff'\n"}),
    "latin-1": (["script.py"], {"script.py": b"# coding: latin-1\nprint(ascii('\xff'))\n"}),
    "unknown coding": (["script.py"], {"script.py": b"# coding: nonsense\n"}),
    "null byte": (["script.py"], {"script.py": b"x = 1\0\n"}),
    "byte order mark": (["script.py"], {"script.py": b"\xef\xbb\xbfprint(1)\n"}),
    "carriage returns": (["script.py"], {"script.py": b"print(1)\rprint(2)\r\nprint('''a\r\nb''')\r"}),
    "empty": (["script.py"], {"script.py": ""}),
    "empty code": (["-c", ""], {}),
    "no extension": (["script"], {"script": "print(__file__)"}),
    "not a package": (["-m", "script.x"], {"script.py": ""}),
    "module with suffix": (["-m", "script.py"], {"script.py": "print(1)"}),
    "relative module": (["-m", ".script"], {"script.py": "print(1)"}),
    "hidden module": (["script.py"], {"script.py": "import json; print(json.HERE)", "json.py": "HERE = 1"}),
    "hidden package": (["-m", "script"], {"script.py": "import csv; print(csv.HERE)", "csv/__init__.py": "HERE = 1"}),
    "no package hides": (["script.py"], {"script.py": "import json; print(json.dumps(1))", "json/x.txt": ""}),
    "main of the library": (["-m", "site", "--user-base"], {}),
    "surrogate": (["-c", "print(ascii('\udcff'))"], {}),
    "surrogate argument": (["-c", "import sys; print(ascii(sys.argv))", "\udcff"], {}),
}


WHY_COLD = {
    "no script": "cannot be read",
    "hidden module": "hides the module json",
    "hidden package": "hides the module csv",
    **dict.fromkeys(
        ["syntax", "syntax of code", "indentation", "not utf-8", "unknown coding", "null byte", "surrogate"],
        "does not compile",
    ),
}
if sys.version_info < (3, 14):  # which removes the indentation of code
    WHY_COLD["indented"] = "does not compile"


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_run_fails_the_same_way(runs, name):
    line, files = WRONG[name]

    def make(place: Path) -> None:
        for file, text in files.items():
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_bytes(text if isinstance(text, bytes) else text.encode())

    runs.make = make
    runs.check(line, why_cold=WHY_COLD.get(name, ""))


def test_a_compiled_script_runs(runs):
    import py_compile

    def make(place):
        (place / "script.py").write_text("import sys; print(__name__, sys.argv, __file__)")
        py_compile.compile(str(place / "script.py"), str(place / "script.pyc"))

    runs.make = make
    assert runs.check(["script.pyc", "x"], why_cold="is a compiled file").returncode == 0


ENVIRONMENTS = {
    "PYTHONIOENCODING": "latin-1:replace",
    "PYTHONUTF8": "1",
    "PYTHONPATH": "elsewhere",
    "PYTHONHASHSEED": "0",
    "PYTHONOPTIMIZE": "1",
    "PYTHONWARNINGS": "error",
    "LC_ALL": "C",
    "PYTHONDEVMODE": "1",
    "PYTHONINSPECT": "1",
    "TZ": "Asia/Tokyo",
    "ANYTHING": "else",
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_another_environment_has_its_effect(runs, name):
    code = (
        "import sys, time, os; print(sys.flags, sys.stdout.encoding, sys.stdout.errors, sys.path, sys.warnoptions); "
        f"print(time.tzname, os.environ.get({name!r}), hash('x') if {name!r} == 'PYTHONHASHSEED' else 0)"
    )
    why_cold = name if name.startswith(("PYTHON", "LC_")) else ""
    runs.check(["-c", code], env={**PLAIN, name: ENVIRONMENTS[name]}, why_cold=why_cold)


def test_a_stream_that_a_loaded_module_holds_is_the_program_s(runs):
    runs.template.execute("import sys; sys.held = sys.stdout")
    done = runs.warm(["-c", "import sys; print('held', file=sys.held); print(sys.held is sys.stdout)"])
    assert done.stdout == b"held\nTrue\n"


def test_interpreter_is_this_one(runs):
    assert runs.check(["-c", "import sys; print(sys.executable)"]).stdout.decode().strip() == sys.executable
