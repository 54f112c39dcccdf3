"""run_module, run_script and run_code: the process becomes a Python program, from templates of every kind."""

from __future__ import annotations

import signal

import pytest
from owner_side import DEADLINE, ended, read_all

import anyfork


def said(template, what, *argv):
    """Return what a program prints, and its exit status."""
    with getattr(template.fork(stdout=anyfork.CHANNEL), what)(*argv) as process:
        text = read_all(process.channel)
        return text, process.wait(DEADLINE).returncode


def test_code_runs_as_main_with_its_arguments(template):
    code = "import sys; print(__name__, sys.argv, sys.modules['__main__'].__dict__ is globals())"
    assert said(template, "run_code", code, "a", b"b") == (b"__main__ ['-c', 'a', 'b'] True\n", 0)


def test_a_module_runs_as_main(template):
    text, code = said(template, "run_module", "calendar", "2026", "11")
    assert (text.split()[:2], code) == ([b"November", b"2026"], 0)


def test_a_script_runs_as_main(template, tmp_path):
    (tmp_path / "script.py").write_text("import sys, beside; print(__name__, __file__ == sys.argv[0], beside.VALUE)")
    (tmp_path / "beside.py").write_text("VALUE = 7")
    assert said(template, "run_script", tmp_path / "script.py") == (b"__main__ True 7\n", 0)


def test_the_exit_code_of_a_program_is_the_status(template):
    assert ended(template.run_code("raise SystemExit(7)")).code == 7


def test_an_interrupt_is_the_status(template):
    assert ended(template.fork(stderr=anyfork.DEVNULL).run_code("raise KeyboardInterrupt")).signal == (signal.SIGINT)


INTERRUPTED = """
import os, signal, sys
def interrupt(event, args):
    if event == "cpython.run_module":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
"""


def test_an_interrupt_before_a_program_begins_ends_it_without_a_word(template):
    """Interrupt it while it is set up, which code of the program does not do."""
    template.execute(INTERRUPTED)
    with template.fork(stdout=anyfork.CHANNEL, stderr=anyfork.STDOUT).run_module("calendar") as process:
        assert read_all(process.channel) == b""
        assert process.wait(DEADLINE).signal == signal.SIGINT


def test_an_exception_is_printed_without_lines_of_ours(template):
    text, code = said(template, "run_code", "import sys; sys.stderr = sys.stdout\ndef f(): 1 / 0\nf()")
    assert code == 1
    assert text.startswith(b"Traceback")
    assert b"anyfork" not in text
    assert text.endswith(b"ZeroDivisionError: division by zero\n")


def test_a_program_runs_its_exit_handlers_and_flushes(template):
    code = "import atexit; atexit.register(print, 'at exit'); print('main', end=' ')"
    assert said(template, "run_code", code) == (b"main at exit\n", 0)


def test_what_the_template_has_loaded_is_there(template):
    template.preload("fractions")
    assert said(template, "run_code", "import sys; print('fractions' in sys.modules)") == (b"True\n", 0)


def test_a_module_that_does_not_exist_is_an_error_of_the_program(template):
    assert said(template, "run_module", "no_such_module") == (b"", 1)


def test_preparations_that_failed_are_told_instead(template):
    with pytest.raises(anyfork.PreloadError):
        template.preload("no_such_module").run_code("pass", timeout=DEADLINE)


@pytest.mark.parametrize(
    ("what", "argv"),
    [("run_module", ("",)), ("run_code", ("a\0b",)), ("run_script", (3,)), ("run_module", ("json.tool", None))],
)
def test_a_wrong_argument_is_told(template, what, argv):
    with pytest.raises(anyfork.ArgumentError, match=what):
        getattr(template, what)(*argv)


@pytest.mark.parametrize("new_template", ["forked", "execed", "twice_forked", "asyncio", "remote"], indirect=True)
def test_a_python_program_has_no_descriptors_but_the_standard_streams(template):
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    assert said(template, "run_code", code) == (b"[0, 1, 2, 3]\n", 0)
