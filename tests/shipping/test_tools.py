"""Tools that look into a program keep working in its processes: pytest, coverage.py, faulthandler."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import pytest
from deadlines import PROGRAM_DEADLINE
from shipped import clean, python

# --- pytest ---------------------------------------------------------------------------------------------------------

SUITE = """
    import anyfork, os, pytest

    class OwnError(Exception):
        pass

    class Point:
        def __init__(self, x):
            self.x = x

    def double(point):
        return Point(point.x * 2)

    def fail(text):
        raise OwnError(text)

    def check(value):
        assert value == {"right": 1}

    def work(channel):
        with channel:
            print("said by the process", flush=True)
            channel.sendall(b"done")

    @pytest.fixture(params=["forked", "execed", "copied"])
    def template(request):
        make = {"forked": anyfork.Template, "execed": anyfork.Template.new_exec, "copied": anyfork.fork_here}
        with make[request.param]() as template:
            yield template

    def test_values(template):
        doubled = anyfork.call(double, Point(21), template=template)
        assert type(doubled) is Point and doubled.x == 42

    def test_errors(template):
        with pytest.raises(OwnError, match="no luck"):
            anyfork.call(fail, "no luck", template=template)

    def test_assertions(template):
        with pytest.raises(AssertionError):
            anyfork.call(check, {"wrong": 2}, template=template)

    def test_assertions_explain_themselves_in_a_copy():
        with pytest.raises(AssertionError, match="assert {'wrong': 2} == {'right': 1}"):
            anyfork.call(check, {"wrong": 2}, template=anyfork.fork_here())

    def test_closures(template, tmp_path):
        assert anyfork.call(lambda: os.fspath(tmp_path), template=template) == os.fspath(tmp_path)

    def test_workers(template):
        with anyfork.Worker(template) as worker:
            assert list(worker.map(double, [])) == []
            assert worker.call(double, Point(1)).x == 2

    def test_channels(template):
        with template.run(work) as process:
            assert process.channel.recv(10) == b"done"

    def test_output_is_captured(capfd):
        with anyfork.Template.new_exec().run(work) as process:
            pass
        assert capfd.readouterr().out == "said by the process\\n"
"""


@pytest.fixture
def suite(tmp_path):
    """Return a project with tests in a directory of their own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_some.py").write_text(textwrap.dedent(SUITE))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "package", "left_out"),
    [
        ("--import-mode=prepend -n0", False, "nothing"),
        ("--import-mode=append -n0 -s --assert=plain", True, "explain or captured"),
        ("--import-mode=importlib -n0", False, "nothing"),
        # A copy is refused in a worker of xdist, which has a thread for its controller.
        ("--import-mode=importlib -n2", True, "cop"),
    ],
)
def test_a_suite_of_pytest(suite, options, package, left_out):
    if package:
        for place in (suite / "tests", suite / "tests" / "unit"):
            (place / "__init__.py").write_text("")
    arguments = ("-q", "-p", "no:randomly", "-k", f"not ({left_out})", *options.split())
    said = python("-P", "-m", "pytest", "-p", "no:hypothesispytest", *arguments, cwd=suite)
    assert re.search(r"^\d+ passed", said, re.MULTILINE), said


def test_what_is_defined_in_a_module_that_only_the_program_has_goes_by_value(tmp_path):
    # As plug-ins are loaded: from a file, or out of nothing, under a name that no import finds.
    (tmp_path / "plugin.py").write_text(
        "import json\nclass Found(Exception): pass\ndef find(x):\n    raise Found(json.dumps(x))\n"
    )
    source = f"""
        import anyfork, sys, types
        from importlib.util import module_from_spec, spec_from_file_location

        def load(name):
            spec = spec_from_file_location(name, {str(tmp_path / "plugin.py")!r})
            sys.modules[name] = module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return module

        made = types.ModuleType("made")
        exec("class Found(Exception): pass\\ndef find(x): raise Found(x)", made.__dict__)
        sys.modules["made"] = made
        for module in load("loaded"), load("colorsys"), load("loaded.below"), made:
            try:
                anyfork.call(module.find, "it")
            except module.Found as error:
                print(module.__name__, error)
    """
    assert python("-c", textwrap.dedent(source)) == 'loaded "it"\ncolorsys "it"\nloaded.below "it"\nmade it\n'


# --- coverage.py ----------------------------------------------------------------------------------------------------

# As docs/shipping.md has it.
SETTINGS = """
[tool.coverage.run]
source = ["."]
patch = ["subprocess", "fork", "_exit"]
parallel = true
"""
SHOP = """\
import os

def in_a_process(channel):
    channel.sendall(b"done")
    channel.close()

def in_a_worker(x):
    return x + 1

def in_a_template():
    os.environ["PREPARED"] = "1"

def nowhere():
    return 0
"""
COVERED = """
    import anyfork, os, shop
    def own():
        return os.getpid()
    for make in anyfork.Template, anyfork.Template.new_exec, anyfork.fork_here:
        with make() as template:
            template.prepare(shop.in_a_template)
            with template.fork().run(shop.in_a_process) as process:
                assert process.channel.recv(9) == b"done"
            assert anyfork.call(own, template=template) != os.getpid()
            with anyfork.Worker(template) as worker:
                assert worker.call(shop.in_a_worker, 1) == 2
"""


@pytest.mark.untraced
def test_lines_that_run_in_processes_are_counted(tmp_path):
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "program.py").write_text(textwrap.dedent(COVERED))
    assert python("-m", "coverage", "run", "program.py", cwd=tmp_path) == ""
    python("-m", "coverage", "combine", "-q", cwd=tmp_path)
    said = python("-m", "coverage", "report", "--show-missing", cwd=tmp_path)
    missing = {
        line.split()[0]: line.split("%")[1].strip() for line in said.splitlines() if line.startswith(("shop", "prog"))
    }
    never = SHOP.splitlines().index("    return 0") + 1
    assert missing == {"program.py": "", "shop.py": str(never)}, said


# --- faulthandler ---------------------------------------------------------------------------------------------------


def errors_of(source, *options, cwd=None):
    """Return what a program says on its standard error; it must end well."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(source)],
        capture_output=True, text=True, timeout=PROGRAM_DEADLINE, env=clean({}), cwd=cwd, check=True,
    )  # fmt: skip
    return done.stderr


CRASH = """
    import anyfork, ctypes, faulthandler, os, signal
    {first}
    def crash(channel):
        os.kill(os.getpid(), signal.SIGSEGV)
    for make in anyfork.Template, anyfork.Template.new_exec, anyfork.fork_here:
        process = make().run(crash)
        assert process.wait().signal == signal.SIGSEGV
        process.close()
"""


@pytest.mark.parametrize(
    ("options", "first"),
    [(["-X", "faulthandler"], ""), (["-X", "dev"], ""), ([], "faulthandler.enable()")],
    ids=["option", "development", "enabled"],
)
def test_the_stack_of_a_process_that_crashes_is_shown(options, first):
    said = errors_of(CRASH.format(first=first), *options)
    assert said.count("Fatal Python error: Segmentation fault") == 3
    assert said.count("in crash\n") == 3


def test_the_fault_handler_may_be_enabled_in_a_template():
    said = errors_of("""
        import anyfork, os, signal
        template = anyfork.Template().prepare("faulthandler:enable")
        def crash():
            os.kill(os.getpid(), signal.SIGABRT)
        try:
            anyfork.call(crash, template=template)
        except anyfork.WorkerDiedError as error:
            assert error.status.signal == signal.SIGABRT
    """)
    assert "Fatal Python error: Aborted" in said
    assert "in crash\n" in said


def test_a_signal_that_shows_the_stack_may_be_registered_in_a_template():
    said = errors_of("""
        import anyfork, faulthandler, signal
        template = anyfork.Template().prepare(faulthandler.register, signal.SIGUSR1)
        def wait_here(channel):
            channel.sendall(b"r")
            channel.recv(1)
        with template.run(wait_here) as process:
            process.channel.recv(1)
            process.send_signal(signal.SIGUSR1)
    """)
    assert "in wait_here\n" in said


def test_a_watchdog_of_the_program_is_not_in_the_way():
    # It is a thread of its own, of which Python does not know.
    said = errors_of("""
        import anyfork, faulthandler
        faulthandler.dump_traceback_later(1000)
        for make in anyfork.Template, anyfork.Template.new_exec:
            assert anyfork.call(len, "abc", template=make()) == 3
        faulthandler.cancel_dump_traceback_later()
    """)
    assert said == ""
