"""anyfork.subprocess starts commands that are this interpreter warm, and says why it starts one cold."""

from __future__ import annotations

import logging
import os
import py_compile
import signal
import subprocess as standard
import sys
from pathlib import Path

import pytest
from cold_and_warm import PLAIN, bare

import anyfork
from anyfork import Process, subprocess
from anyfork._programs import command_line, popen
from anyfork._programs.start import take_over

WARM = "import sys; print('fractions' in sys.modules)"


@pytest.fixture
def template():
    """Yield a template that shows in a program, as it has loaded what the program has not."""
    with bare().preload("fractions") as template:
        yield template


def start(template, *command, **keywords):
    return subprocess.run(
        [sys.executable, *command], template=template, env=PLAIN, capture_output=True, text=True, **keywords
    )


def test_code_a_module_and_a_script_start_warm(template, tmp_path):
    (tmp_path / "show.py").write_text(WARM)
    for command in (["-c", WARM], ["-m", "show"], ["show.py"]):
        done = start(template, *command, cwd=tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_a_timeout_of_0_does_not_hide_why_a_program_cannot_be_started(template):
    template.ready()
    for cwd, error in (("/nowhere", FileNotFoundError), ("/", subprocess.TimeoutExpired)):
        with pytest.raises(error):
            start(template, "-c", "import signal; signal.pause()", cwd=cwd, timeout=0)


def test_an_empty_path_for_modules_is_none():
    env = {**PLAIN, "PYTHONPATH": ""}
    with bare(env).preload("fractions") as template:
        done = subprocess.run(
            [sys.executable, "-c", WARM], template=template, env=env, cwd="/tmp", capture_output=True, text=True
        )
    assert done.stdout == "True\n"


def test_the_module_has_the_names_of_the_standard_one():
    assert set(subprocess.__all__) == {*standard.__all__}
    assert all(hasattr(subprocess, name) for name in subprocess.__all__)
    assert issubclass(subprocess.Popen, standard.Popen)


def test_other_commands_are_started_as_ever():
    assert subprocess.check_output(["echo", "as ever"]) == b"as ever\n"
    assert subprocess.getoutput("echo in a shell") == "in a shell"


COLD = {
    "other options": (["-O", "-c", WARM], {}, "the template has the options"),
    "another environment": (["-c", WARM], {"env": {**PLAIN, "PYTHONHASHSEED": "1"}}, "PYTHONHASHSEED differs"),
    "preexec_fn": (["-c", WARM], {"preexec_fn": os.getpid}, "preexec_fn"),
    "inherited descriptors": (["-c", WARM], {"close_fds": False}, "inherits descriptors"),
    "standard input": (["-"], {"input": WARM}, "standard input"),
}


@pytest.mark.parametrize("name", COLD)
def test_what_a_template_cannot_honour_starts_cold_and_is_logged_once(template, name, caplog, monkeypatch):
    command, keywords, why = COLD[name]
    monkeypatch.setattr(popen, "_told", set())
    caplog.set_level(logging.INFO, "anyfork.subprocess")
    keywords = {"env": PLAIN, "capture_output": True, "text": True, **keywords}
    for _ in range(2):
        done = subprocess.run([sys.executable, *command], template=template, **keywords)
        assert (done.stdout, done.returncode) == ("False\n", 0)
    assert [why in record.getMessage() for record in caplog.records] == [True]


UNREADABLE = {
    "missing.py": "cannot be read",
    "wrong.py": "does not compile",
    "compiled.pyc": "is a compiled file",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_script_that_only_a_new_interpreter_can_read_is_logged(template, name, caplog, monkeypatch, tmp_path):
    (tmp_path / "wrong.py").write_text("x = (")
    (tmp_path / "right.py").write_text(WARM)
    py_compile.compile(str(tmp_path / "right.py"), str(tmp_path / "compiled.pyc"))
    monkeypatch.setattr(popen, "_told", set())
    caplog.set_level(logging.INFO, "anyfork.subprocess")
    assert start(template, name, cwd=tmp_path).stdout == ("False\n" if name == "compiled.pyc" else "")
    assert [UNREADABLE[name] in record.getMessage() for record in caplog.records] == [True]


def test_a_template_that_cannot_be_made_makes_no_program_fail():
    with bare().preload("no_such_module") as template:
        assert start(template, "-c", WARM).stdout == "False\n"


def test_a_template_that_is_used_up_makes_no_program_fail(template):
    template.close()
    assert start(template, "-c", WARM).stdout == "False\n"


def test_what_is_no_template_is_an_error():
    with anyfork.RemoteTemplate([sys.executable]) as remote:
        for template in (3, anyfork.Template, remote):
            with pytest.raises(anyfork.ArgumentError, match="needs a template"):
                subprocess.run([sys.executable, "-c", WARM], template=template)


def test_a_program_has_the_attributes_of_its_starter(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOMETHING", "new")
    before = os.umask(0o27)
    try:
        code = "import os; print(os.getcwd(), os.environ['SOMETHING'], oct(os.umask(0)))"
        with subprocess.Popen([sys.executable, "-c", code], template=template, stdout=-1, env=None) as process:
            assert process.stdout.read().decode().split() == [str(tmp_path), "new", "0o27"]
    finally:
        os.umask(before)


@pytest.mark.parametrize("directory", ["inner", b"inner", Path("inner")], ids=lambda given: type(given).__name__)
def test_a_relative_directory_is_one_of_its_starter(directory, template, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    done = start(template, "-c", f"import os; print(os.getcwd()); {WARM}", cwd=directory)
    assert done.stdout.split() == [str(tmp_path / "inner"), "True"]
    with pytest.raises(FileNotFoundError):
        start(template, "-c", WARM, cwd="")


def test_a_program_outlives_its_starter(tmp_path):
    code = "import os, sys; os.write(1, b'.'); os.read(0, 1); os.write(1, b'alive'); os.close(1)"
    starter = (
        "import os, sys; from anyfork import subprocess\n"
        f"subprocess.Popen([sys.executable, '-c', {code!r}]); os.kill(os.getpid(), 9)"
    )
    near, far = os.pipe(), os.pipe()
    done = standard.run([sys.executable, "-c", starter], stdin=near[0], stdout=far[1], env=PLAIN, check=False)
    assert done.returncode == -signal.SIGKILL
    os.close(far[1])
    with open(far[0], "rb") as output:
        assert output.read(1) == b"."
        os.write(near[1], b"\n")
        assert output.read() == b"alive"
    for fd in near:
        os.close(fd)


def test_a_program_that_starts_cold_outlives_its_starter(template):
    # The starter may be gone before the program says why it starts cold.
    line = command_line.take_apart([sys.executable, "-O", "-c", "raise SystemExit(7)"])
    held = template.fork(env=PLAIN, stdin=standard.PIPE).prepare(os.read, 0, 1)
    process, report = take_over(held, Process._of, line)
    report.close()
    process.stdin.close()
    with process:
        assert process.wait().code == 7


def test_a_timeout_has_the_output_so_far(template):
    code = "import time; print('so far', flush=True); time.sleep(1000)"
    with subprocess.Popen(
        [sys.executable, "-c", code], template=template, env=PLAIN, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "so far\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_ignored_and_blocked_signals_are_passed_on(template):
    code = (
        "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "
        "signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    )
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        assert start(template, "-c", code).stdout == "True True\n"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, handler)
    assert start(template, "-c", code).stdout == "False False\n"


PYTHON = sys.executable
LINES = {
    "-c code": ((), "-c", "code", ()),
    "-m mod -x": ((), "-m", "mod", ("-x",)),
    "-mmod": ((), "-m", "mod", ()),
    "-u -W error -X dev file -c": (("-u", "-W", "error", "-X", "dev"), "", "file", ("-c",)),
    "-Wdefault -Xutf8 -OO -c x": (("-Wdefault", "-Xutf8", "-OO"), "-c", "x", ()),
    "--check-hash-based-pycs never file": (("--check-hash-based-pycs", "never"), "", "file", ()),
}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_taken_apart_as_the_interpreter_does(line):
    options, kind, target, argv = LINES[line]
    found = command_line.take_apart([PYTHON, *line.split()])
    assert (tuple(found.options), found.kind, found.target, tuple(found.argv)) == (options, kind, target, argv)


@pytest.mark.parametrize("line", ["", "-", "-V", "--version", "-h", "-i file", "-c", "-W", "-Ic x", "-x file"])
def test_other_command_lines_are_refused(line):
    with pytest.raises(command_line.NotAProgramError):
        command_line.take_apart([PYTHON, *line.split()])


def test_a_relative_name_of_the_interpreter_is_another_command(template, monkeypatch):
    monkeypatch.chdir(Path(sys.executable).parent)
    name = f"./{Path(sys.executable).name}"
    done = subprocess.run([name, "-c", WARM], template=template, env=PLAIN, capture_output=True, check=True)
    assert done.stdout == b"False\n"
