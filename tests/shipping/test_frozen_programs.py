"""Programs that were built to need no interpreter: PyInstaller in a folder and in one file, Nuitka's standalone kind."""

from __future__ import annotations

import fcntl
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from shipped import CHECKS, DEFINITIONS, FIRST, SAYS, clean, outcome, program

import anyfork

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]
BUILDING = 900  # seconds for one build, on a machine that does other things, too
REFUSED = "make `import anyfork.frozen` the first line of its main program"


def build(directory, name, *command):
    """Run a builder in a directory of all test processes, once; the others wait for it."""
    directory.mkdir(exist_ok=True)
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / f"{name}.built").exists():
            return
        search = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        environment = clean({"PATH": search, "CFLAGS": "-O0", "CCFLAGS": "-O0"})
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=directory, env=environment, capture_output=True, text=True, timeout=BUILDING
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (directory / f"{name}.built").touch()


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    """Return the directory for what is built, common to all processes that run these tests."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "builds"


# --- PyInstaller ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "file"])
def installed(builds, request):
    """Return a program as PyInstaller builds it, in one of its two ways."""
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    builds.mkdir(exist_ok=True)
    name = f"in_one_{request.param}"
    source = builds / f"{name}.py"
    source.write_text(program("frozen") + 'if "open" in sys.argv: import unpacking\n')
    (builds / "unpacking.py").write_text(UNPACKING)
    kind = "--onedir" if request.param == "folder" else "--onefile"
    options = ("--noconfirm", "--log-level=WARN", f"--workpath=work-{name}", f"--specpath=spec-{name}")
    # What AnyIO and cloudpickle can do with these would bring all of the tests' environment along.
    options += tuple(f"--exclude-module={name}" for name in ("numpy", "pytest", "setuptools", "trio", "msgspec"))
    build(builds, name, "PyInstaller", kind, *options, f"--paths={builds}", str(source))
    return builds / "dist" / name / name if request.param == "folder" else builds / "dist" / name


UNPACKING = textwrap.dedent("""
    import anyfork, os, sys
    os.environ.clear()
    made = [anyfork.Template(), anyfork.Template.new_exec(), anyfork.Template.new_exec(env={"LONELY": "1"})]
    places = {anyfork.call(getattr, sys, "_MEIPASS", template=template.ready().fork()) for template in made}
    print(len(places), len([name for name in os.listdir(sys.argv[2]) if name.startswith("_MEI")]))
    print(anyfork.call(os.getenv, "LONELY", template=made[2]))
""")


def test_pyinstaller_takes_no_adapter_along_that_a_program_does_not_import():
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    taken = runpy.run_path(str(Path(anyfork.__file__).with_name("contrib") / "_pyinstaller" / "hook-anyfork.py"))[
        "hiddenimports"
    ]
    assert {"anyfork.aio._pool", "_anyfork_child.worker.server", "cloudpickle"} <= {*taken}
    assert [name for name in taken if "contrib" in name or "joblib" in name] == []


@pytest.mark.parametrize("kind", ["hook", "early", "bare"])
def test_a_program_of_pyinstaller(installed, kind):
    # The hook that comes with anyfork takes along what is imported by name, and puts in the line that is documented.
    assert outcome([installed, kind]) == SAYS


def test_a_program_of_pyinstaller_is_unpacked_once_and_leaves_nothing(installed, tmp_path):
    said = outcome([installed, "open", tmp_path], env={"TMPDIR": str(tmp_path)})
    unpacked = "file" in installed.name
    assert said == SAYS + f"1 {int(unpacked)}\n1\n"
    assert [name for name in os.listdir(tmp_path) if name.startswith("_MEI")] == []


# --- Nuitka ---------------------------------------------------------------------------------------------------------

# What Nuitka compiles has no code that could travel: functions are found by name, in modules, or in a copy.
SHOP = DEFINITIONS.replace("lambda value: value * factor", "functools.partial(operator.mul, factor)")
OWN = textwrap.dedent("""
    def price(count):
        return count * PRICE
    PRICE = 3
    if "own" in sys.argv:
        print(anyfork.call(price, 5, template=anyfork.fork_here()))
        try:
            anyfork.call(price, 5)
        except anyfork.ArgumentError as error:
            print(error)
    elif "bare" in sys.argv:
        try:
            anyfork.Template()
        except anyfork.LaunchError as error:
            print(error)
    else:
        main()
""")
TAKEN = [f"--include-package={name}" for name in ("anyfork", "_anyfork_child", "cloudpickle")]
LEFT_OUT = (
    "PyInstaller,anyfork.aio,anyfork.contrib,anyfork.joblib,anyio,asyncio,attr,attrs,concurrent,"
    "doctest,email,http,joblib,msgspec,numpy,pydoc,pygments,rich,ssl,tqdm,typing_extensions,unittest,urllib,xml"
)


@pytest.fixture(scope="session")
def compiled(builds):
    """Return a program as Nuitka compiles it."""
    pytest.importorskip("nuitka", reason="Nuitka is not installed")
    builds.mkdir(exist_ok=True)
    (builds / "shop.py").write_text(f"import functools, operator\n{SHOP}")
    names = "OwnError, Point, fail, move, times, work"
    source = f"{FIRST['frozen']}\nfrom shop import {names}\n{CHECKS}{OWN}"
    (builds / "compiled.py").write_text(source)
    options = ("--standalone", "--lto=no", "--quiet", "--assume-yes-for-downloads", f"--nofollow-import-to={LEFT_OUT}")
    build(builds, "compiled", "nuitka", *options, *TAKEN, "compiled.py")
    return builds / "compiled.dist" / "compiled.bin"


@pytest.mark.parametrize("kind", ["hook", "early"])
def test_a_program_of_nuitka(compiled, kind):
    assert outcome([compiled, kind]) == SAYS


def test_a_program_that_would_not_notice_is_not_started_a_second_time(compiled):
    said = outcome([compiled, "bare"])
    assert said.count("the program begins") == 1
    for remedy in (str(compiled), REFUSED, "import anyfork.early", "python=", "ANYFORK_PYTHON"):
        assert remedy in said


def test_a_compiled_function_of_the_main_program_is_found_in_a_copy_and_refused_elsewhere(compiled):
    begins, here, refused = outcome([compiled, "own"]).splitlines()
    assert (begins, here) == ("the program begins", "15")
    assert "was compiled" in refused
    assert "put it into a module" in refused
