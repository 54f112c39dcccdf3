"""Warm makes its template again when that is stale or has ended, and what cannot be warm starts cold."""

from __future__ import annotations

import _thread
import gc
import logging
import math
import os
import pickle
import py_compile
import shutil
import signal
import subprocess as standard
import sys
import threading
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from conftest import count_descriptors, descendants, eventually, wait_for_end
from deadlines import PROGRAM_DEADLINE
from owner_side import environment, output_of

import anyfork
from anyfork import subprocess
from anyfork._blocking.generation import NotWarmError
from anyfork._blocking.sources import Sources
from anyfork._blocking.warm import Warm
from anyfork._blocking.warm_starts import Beginning, WarmStarts
from anyfork._executor.warm import WarmDispatcher
from anyfork._pools.records import MAX_TRIES
from anyfork._programs import kept_templates
from anyfork._programs import start as start_of_programs
from anyfork._system.pipes import open_pipe


@pytest.fixture(scope="module", autouse=True)
def _resource_tracker():
    """Let the process of multiprocessing that outlives its first use be there from the beginning."""
    resource_tracker.ensure_running()


SHOW = "import sys, shown; print(shown.value, 'fractions' in sys.modules)"


class Edited:
    """The module ``shown``, which has a value of always the same size."""

    def __init__(self, directory):
        self.path = directory / "shown.py"
        self.value = 10
        self.edit()

    def edit(self, more=""):
        self.value += 1
        self.path.write_text(f"value = {self.value}\ndef get(*_):\n    return value\n{more}")
        return self.value


@pytest.fixture
def shown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return Edited(tmp_path)


@pytest.fixture
def warm(shown):
    """Yield a Warm that shows in a program, as it has loaded what the program has not."""
    with anyfork.Warm("fractions", "shown") as warm:
        yield warm


def output(warm, source=SHOW, **attributes):
    with warm.run_code(source, stdout=anyfork.PIPE, **attributes) as process:
        return process.communicate(timeout=PROGRAM_DEADLINE)[0].decode().strip()


def of_a_call(warm):
    return anyfork.call("shown:get", template=warm)


def of_a_worker(warm):
    with anyfork.Worker(warm) as worker:
        return worker.call("shown:get")


def options_of(warm):
    return anyfork.call("_anyfork_child.program.command_line:own", template=warm)


def of_popen(warm):
    done = subprocess.run(
        [sys.executable, *options_of(warm), "-c", SHOW], template=warm, capture_output=True, text=True
    )
    value, loaded = done.stdout.split()
    assert loaded == "True"
    return int(value)


def of_a_context(warm):
    context = anyfork.get_context(warm)
    near, far = context.Pipe()
    process = context.Process(target=tell, args=(far,))
    process.start()
    value = near.recv()
    process.join()
    process.close()
    return value


def tell(connection):
    import shown

    connection.send(shown.get())


def of_a_program(warm):
    value, loaded = output(warm).split()
    assert loaded == "True"
    return int(value)


WAYS = [of_a_program, of_a_call, of_a_worker, of_popen, of_a_context]


def test_code_older_than_the_files_never_runs(warm, shown):
    """Edit the module within the same second, and to the same size, where byte code would still be taken for new."""
    with anyfork.Executor(warm, 1) as executor:
        ways = [*WAYS, lambda _: executor.submit("shown:get").result(), lambda _: next(executor.map("shown:get", [0]))]
        for way in ways:
            assert way(warm) == shown.value
            shown.edit()
            assert way(warm) == shown.value
        assert executor.pids
    assert warm.report().made == 1 + len(ways)
    assert "shown.py has changed" in warm.report().why_made


def test_one_template_serves_as_long_as_nothing_changes(warm):
    assert [output(warm) for _ in range(3)] == ["11 True"] * 3
    report = warm.report()
    assert (report.made, report.starts, report.cold, report.why_cold) == (1, 3, 0, "")
    assert {"shown", "fractions"} <= {*report.modules}
    assert report.saved == pytest.approx(3 * report.seconds)
    assert "3 starts were warm" in str(report)
    assert "first time" in str(report)


def test_an_edit_of_the_project_loads_installed_modules_no_second_time(shown, tmp_path, monkeypatch):
    counted, log = tmp_path / "site-packages", tmp_path / "log"
    counted.mkdir()
    log.write_text("")
    (counted / "counted.py").write_text(
        f"import os\nopen({str(log)!r}, 'a').write('.')\nos.environ['COUNTED'] = os.environ.get('GIVEN', '')"
    )
    monkeypatch.syspath_prepend(counted)
    monkeypatch.setenv("GIVEN", "1")
    source = "import os, shown; print(shown.value, os.environ['COUNTED'])"
    with anyfork.Warm("counted", "shown") as warm:
        assert output(warm, source) == "11 1"
        loaded = log.read_text()
        shown.edit()
        assert output(warm, source) == "12 1"
        shown.edit()
        shown.edit("import os\nshown = os.environ['COUNTED']")
        assert output(warm, source) == "14 1"
        assert output(warm, source) == "14 1"
        assert log.read_text() == loaded
        assert warm.report().made == 3
        assert {"counted", "shown"} <= {*warm.report().modules}
        monkeypatch.setenv("GIVEN", "2")
        assert output(warm, source) == "14 2"
        (counted / "shown.py").write_text("value = 'hidden'")
        assert output(warm, source) == "hidden 2"
        assert len(log.read_text()) >= len(loaded) + 2
        assert warm.report().cold == 0


def test_a_module_and_a_script_start_warm(warm, tmp_path):
    (tmp_path / "script.py").write_text(SHOW)
    for start in (lambda **out: warm.run_module("script", **out), lambda **out: warm.run_script("script.py", **out)):
        with start(stdout=anyfork.PIPE, cwd=tmp_path) as process:
            assert process.communicate(timeout=PROGRAM_DEADLINE)[0] == b"11 True\n"


def test_a_new_file_that_hides_a_module_is_seen(warm, tmp_path):
    assert output(warm, "import fractions; print(hasattr(fractions, 'hidden'))") == "False"
    for name in ("out.log", "out.log-journal", ".fractions.py.swp"):  # no modules
        (tmp_path / name).touch()
    assert output(warm, "import fractions; print(hasattr(fractions, 'hidden'))") == "False"
    assert warm.report().made == 1
    (tmp_path / "fractions.py").write_text("hidden = True")
    assert output(warm, "import fractions; print(hasattr(fractions, 'hidden'))") == "True"


def test_a_variable_that_was_read_counts_and_no_other(warm, shown, monkeypatch):
    shown.edit("import os\nvalue = os.environ.get('SHOWN')\nos.environ['SET'] = 'by it'")
    source = "import os, sys, shown; print(shown.value, os.environ['SET'], os.environ.get('FREE'), 'fractions' in sys.modules)"
    assert output(warm, source) == "None by it None True"
    monkeypatch.setenv("FREE", "1")
    assert output(warm, source) == "None by it 1 True"
    assert warm.report().made == 1
    monkeypatch.setenv("SHOWN", "2")
    assert output(warm, source) == "2 by it 1 True"
    assert output(warm, source, env={**os.environ, "FREE": "3"}) == "2 by it 3 True"
    assert warm.report().made == 2
    assert output(warm, source, env={**os.environ, "SHOWN": "3"}) == "3 by it 1 False"
    assert warm.report().why_cold == "SHOWN differs from the template's, and shown has read it"
    without = {name: value for name, value in os.environ.items() if name != "SHOWN"}
    with warm.run_code(source, env=without, stdout=anyfork.DEVNULL) as process:
        assert process.wait(PROGRAM_DEADLINE).code == 0
    assert process.cold == warm.report().why_cold == "SHOWN is missing, and shown has read it"


def test_a_module_that_reads_all_variables_is_named(warm, shown, monkeypatch):
    shown.edit("import os\nvalues = dict(os.environ)")
    assert output(warm, env={**os.environ, "ZZZ": "1"}) == "12 False"
    assert warm.report().why_cold == "ZZZ is new, and shown has read all variables"


COPIES = """
import ctypes.util, os, platform, subprocess, sys, uuid
platform._syscmd_file(sys.executable)
ctypes.util._findLib_gcc("no_such_library")
uuid._get_command_stdout("cat")
subprocess.run(["/bin/true"], close_fds=False)
"""


def test_a_copy_of_all_variables_for_another_program_counts_as_what_that_reads(warm, shown):
    shown.edit(COPIES)
    for env, found in (({"ZZZ": "1"}, "12 True"), ({"MAGIC": "/other"}, "12 False")):
        assert output(warm, env={**os.environ, **env}) == found
    assert warm.report().why_cold == "MAGIC is new, and platform has read it"


def test_variables_of_shells_and_of_putenv_are_as_the_documentation_says(warm, shown, monkeypatch):
    shown.edit("import os\nvalue = dict(os.environ)['PWD']\nos.putenv('PUT', '1')\nos.unsetenv('TAKEN')")
    source = "import os, shown; print(shown.value, os.environ['PWD'], flush=True); os.system('echo $PUT$TAKEN')"
    monkeypatch.setenv("TAKEN", "2")
    monkeypatch.setenv("PWD", "/first")
    put = "12" if sys.version_info < (3, 15) else "2"  # whose os.environ.clear() clears what it does not know, too
    assert output(warm, source).split() == ["/first", "/first", put]
    monkeypatch.setenv("PWD", "/second")
    assert output(warm, source).split() == ["/first", "/second", put]
    assert (warm.report().made, warm.report().cold) == (1, 0)


def test_what_is_watched_counts(shown, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with anyfork.Warm("shown", watch=[data, tmp_path / "lock"]) as warm:
        for change in (data / "new", tmp_path / "lock"):
            first = warm.template()
            assert warm.template() is first
            change.write_text("")
            assert warm.template() is not first


@pytest.mark.slow
def test_the_interpreter_and_what_is_installed_with_it_count(tmp_path):
    python, packages = environment(tmp_path)

    def replace():
        python.unlink()
        shutil.copy(Path(sys.executable).resolve(), python)

    changes = [
        lambda: os.utime(tmp_path / "pyvenv.cfg", (1, 1)),
        lambda: (packages / "new-1.0.dist-info").mkdir(),
        replace,
    ]
    with anyfork.Warm(make=lambda: anyfork.Template.new_exec(python=python)) as warm:
        for change in changes:
            first = warm.template()
            assert warm.template() is first
            change()
            assert warm.template() is not first


def kill(template):
    """Kill a template, and wait until it has ended."""
    os.kill(template.pid, signal.SIGKILL)
    with pytest.raises(anyfork.TemplateError):
        template.ready()


def test_a_template_that_has_ended_is_made_again(warm):
    with anyfork.Executor(warm, 1) as executor:
        for end in (kill, anyfork.Template.close):
            first = warm.template()
            end(first)
            assert executor.submit("shown:get").result() == 11
            assert output(warm) == "11 True"
            assert warm.template() is not first
    assert warm.report().made == 3


def test_a_pool_whose_own_template_has_ended_gets_another(warm):
    with anyfork.Executor(warm, 1) as executor:
        assert executor.submit("shown:get").result() == 11
        [followed] = executor._dispatcher.followed
        kill(followed.template.ready())
        assert executor.submit("shown:get").result() == 11
    assert warm.report().made == 1


class Held:
    """A job that runs in an executor of one worker until ``release``, with what waits behind it."""

    def __init__(self, executor):
        (self._begun, begun), (gate, self._gate) = os.pipe(), os.pipe()
        with open(begun, "wb", 0) as begun_file, open(gate, "rb", 0) as gate_file:
            self.job = executor.submit(hold, begun_file, gate_file)
            os.read(self._begun, 1)
        [followed] = executor._dispatcher.followed
        self.template = followed.template.ready()

    def release(self):
        os.close(self._gate)
        os.close(self._begun)
        assert self.job.result(PROGRAM_DEADLINE) == b""


def hold(begun, gate):
    begun.write(b"x")
    return gate.read()


def test_jobs_that_wait_while_the_template_is_killed_run_in_the_next_one(warm, tmp_path_factory):
    trace = tmp_path_factory.mktemp("trace") / "trace.json"  # not where modules are found
    with anyfork.Executor(warm, 1, max_calls=1, trace=trace) as executor:
        held = Held(executor)
        waiting = [executor.submit("shown:get"), executor.submit("shown:get")]  # each in a worker of its own
        kill(held.template)
        kill(warm.template())
        held.release()
        assert [each.result(PROGRAM_DEADLINE) for each in waiting] == [11, 11]
    assert (warm.report().made, executor.stats().failed) == (2, 0)
    assert "template lost" in trace.read_text()


@pytest.mark.parametrize("used", [True, False])
def test_a_pool_ends_with_its_own_template(warm, used):
    warm.template()
    before = len(descendants())
    gc.disable()  # the pool is part of reference cycles
    try:
        with anyfork.Executor(warm, 1) as executor:
            if used:
                assert executor.submit("shown:get").result() == 11
        eventually(lambda: len(descendants()) == before, descendants)
    finally:
        gc.enable()


END_THE_TEMPLATE_TOO = "import os, signal; os.kill(os.getppid(), signal.SIGKILL); os._exit(1)"


def test_templates_that_end_with_their_workers_before_these_are_ready_are_not_made_for_ever():
    with (
        anyfork.Warm("json") as warm,
        anyfork.Executor(warm, 1, initializer=exec, initargs=(END_THE_TEMPLATE_TOO,)) as executor,
    ):
        with pytest.raises(anyfork.TemplateError):
            executor.submit(abs, 0).result(PROGRAM_DEADLINE)
        assert executor.stats().started <= 2 * (MAX_TRIES + 1)


def test_jobs_that_wait_for_a_template_that_cannot_be_made_fail(warm, shown):
    with anyfork.Executor(warm, 1, max_calls=1) as executor:
        held, waiting = Held(executor), executor.submit("shown:get")
        kill(held.template)
        shown.edit("1 / 0")
        held.release()
        with pytest.raises(anyfork.PreloadError):
            waiting.result(PROGRAM_DEADLINE)
        shown.edit()
        assert executor.submit("shown:get").result(PROGRAM_DEADLINE) == 13


def test_a_destructor_in_the_middle_of_a_warm_submits_while_another_thread_does(warm, monkeypatch):
    class Trash:
        def __del__(self):
            found.append(executor.submit("shown:get"))

    def in_the_middle(self, call):
        if threading.current_thread() is user and not inside.is_set():
            inside.set()
            assert follows.wait(PROGRAM_DEADLINE)
            Trash()
        return get_generation(self, call)

    def follow(self):
        if threading.current_thread() is submitter:
            follows.set()
        find_newer(self)

    found, inside, follows = [], threading.Event(), threading.Event()
    get_generation, find_newer = anyfork.Warm._get, WarmDispatcher._follow
    user = threading.Thread(target=warm.template, daemon=True)
    submitter = threading.Thread(target=lambda: found.append(executor.submit("shown:get")), daemon=True)
    with anyfork.Executor(warm, 1) as executor:
        monkeypatch.setattr(anyfork.Warm, "_get", in_the_middle)
        monkeypatch.setattr(WarmDispatcher, "_follow", follow)
        user.start()
        assert inside.wait(PROGRAM_DEADLINE)
        submitter.start()
        for thread in (user, submitter):
            thread.join(PROGRAM_DEADLINE)
            assert not thread.is_alive()
        assert [each.result(PROGRAM_DEADLINE) for each in found] == [11, 11]


def test_a_change_of_the_module_path_counts(warm, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shown.py").write_text("def get(): return 'the other one'")
    assert of_a_call(warm) == 11
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert of_a_call(warm) == "the other one"


def test_what_cannot_be_warm_starts_cold_or_raises(warm, shown, caplog):
    caplog.set_level(logging.INFO, "anyfork")
    good = shown.path.read_text()
    shown.path.write_text("this is no Python")
    for _ in range(2):
        assert output(warm, "import sys; print('fractions' in sys.modules)") == "False"
        assert subprocess.check_output([sys.executable, "-c", "print('cold')"], template=warm) == b"cold\n"
        for start in (of_a_call, of_a_worker, of_a_context, anyfork.Executor, anyfork.Warm.template):
            with pytest.raises(anyfork.PreloadError, match="shown"):
                start(warm)
    [record] = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert "start cold: the template cannot be made: module 'shown'" in record.getMessage()
    assert "SyntaxError" in warm.report().why_cold
    assert warm.report().cold == 4
    shown.path.write_text(good)  # which ends the cool-down
    assert output(warm) == "11 True"


def test_an_edit_of_what_the_error_names_ends_the_cool_down(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "repaired"
    package.mkdir()
    (package / "__init__.py").write_text("from .part import name\nfrom . import missing")
    (package / "part.py").write_text("")
    recipe = {"make": lambda: anyfork.Template.new_exec().preload("repaired")}
    with anyfork.Warm("repaired", cool_down=math.inf) as warm, anyfork.Warm(**recipe, cool_down=math.inf) as made:
        for file, text in (("part.py", "name = 1"), ("missing.py", "1 / 0"), ("missing.py", "value = 2")):
            for one in (warm, made):
                with pytest.raises(anyfork.PreloadError):
                    one.template()
            (package / file).write_text(text)
        for one in (warm, made):
            one.template()


def test_a_keeper_tries_again_after_an_edit_of_what_the_error_names(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_templates, "COOL_DOWN", math.inf)
    (tmp_path / "repaired.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    env = dict(os.environb)
    kept = kept_templates.KeptTemplate(kept_templates.Recipe(("repaired",), ()), [])
    with pytest.raises(NotWarmError, match="ZeroDivisionError"):
        kept.await_made(env)
    (tmp_path / "repaired.py").write_text("")
    assert "repaired" in kept.await_made(env).modules
    kept.close()


def test_a_failure_is_tried_again_after_the_cool_down_or_a_change(tmp_path):
    made, path = [], tmp_path / "config"

    def make():
        made.append(1)
        raise ZeroDivisionError

    for cool_down, tries in ((math.inf, 1), (0.0, 3)):
        made.clear()
        with anyfork.Warm(make=make, watch=[path], cool_down=cool_down) as warm:
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    warm.template()
            assert len(made) == tries
            path.write_text("now it may work" * tries)
            with pytest.raises(ZeroDivisionError):
                warm.template()
            assert len(made) == tries + 1


def test_an_old_failure_ends_with_the_change_that_mends_it(warm, shown):
    assert output(warm) == "11 True"
    shown.edit("1 / 0")
    with pytest.raises(anyfork.PreloadError):
        of_a_call(warm)
    shown.edit()
    assert of_a_call(warm) == 13


def test_a_program_does_not_miss_what_a_module_writes(warm, shown, capfd):
    shown.edit("print('loud')")
    assert of_a_call(warm) == 12
    assert "loud" in capfd.readouterr().err
    assert output(warm) == "loud\n12 False"
    assert "wrote something" in warm.report().why_cold


def test_a_function_makes_the_template():
    with anyfork.Warm(make=lambda: anyfork.Template().execute("def here(): return 'made'")) as warm:
        assert anyfork.call("here", template=warm) == "made"
        assert output(warm, "print(1)") == "1"
        assert warm.report().made == 1


def test_a_function_may_give_its_template_another_environment():
    env = {**os.environ, "MADE": "1"}
    with anyfork.Warm(make=lambda: anyfork.Template.new_exec(env=env).preload("fractions")) as warm:
        assert output(warm, "import os; print(os.environ['MADE'])") == "1"
        command = [sys.executable, *options_of(warm), "-c", "import sys; print('fractions' in sys.modules)"]
        for given, found in ((env, "True"), (None, "False"), ({**env, "MADE": "2"}, "False")):
            with subprocess.Popen(command, template=warm, env=given, stdout=subprocess.PIPE, text=True) as program:
                assert program.communicate()[0].strip() == found
        assert program.cold == "MADE differs from the template's, and with make= each variable counts"
        assert warm.report().made == 1


LOCALE = """
import os, sys
print(sorted(os.environ.items()), sys.flags.utf8_mode, sys.stdout.errors, sys.stdout.encoding, sys.stderr.errors)
print('fractions' in sys.modules)
"""


def made_in(env):
    return anyfork.Template.new_exec(env=env).preload("fractions")


def test_an_environment_without_a_locale_starts_warm_as_it_would_cold(tmp_path):
    without = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}

    def run(module, *options, program=("-c", LOCALE), **keywords):
        return module.check_output([sys.executable, *options, *program], env=env, text=True, **keywords)

    (tmp_path / "program.py").write_text(LOCALE)
    only_cold = [py_compile.compile(str(tmp_path / "program.py"), str(tmp_path / "program.pyc"))]

    for env in (without, {**without, "PYTHONCOERCECLOCALE": "0"}):
        with anyfork.Warm(make=partial(made_in, env)) as warm:
            own = options_of(warm)
            assert run(subprocess, *own, template=warm) == run(standard, *own).replace("False", "True")
            assert run(subprocess, "-Xutf8=0", *own, template=warm) == run(standard, "-Xutf8=0", *own)
            assert run(subprocess, *own, program=only_cold, template=warm) == run(standard, *own, program=only_cold)
    env = without
    with anyfork.Template.new_exec(env={**env, "LC_CTYPE": "C.UTF-8"}) as template:  # which is not the UTF-8 mode
        assert run(subprocess, *own, template=template) == run(standard, *own)


LATE = """
import os, sys, anyfork
with anyfork.Warm("json") as warm:
    for _ in range(3):
        warm.run_code("pass", env={**os.environ, "PYTHONHASHSEED": "7"}).wait()
        warm.report()
        import logging
        logging.basicConfig(level=logging.INFO, stream=sys.stdout)
"""


def test_the_reason_of_a_cold_start_is_logged_when_somebody_listens():
    [line] = output_of("-c", LATE).splitlines()
    assert "PYTHONHASHSEED" in line


def test_a_remote_template_is_made_again():
    with anyfork.Warm(make=lambda: anyfork.RemoteTemplate([sys.executable])) as warm:
        first = warm.template()
        assert anyfork.call(abs, -1, template=warm) == 1
        kill(first)
        assert anyfork.call(abs, -2, template=warm) == 2
        assert warm.report().made == 2


def run_with(warm, code):
    subprocess.check_call([sys.executable, "-c", code], template=warm)


def test_a_program_for_another_machine_never_runs_here():
    def remote(command, *modules):
        return anyfork.Warm(make=lambda: anyfork.RemoteTemplate([command]).preload(*modules))

    with remote("/no/such/command") as warm:
        for start in (anyfork.Warm.run_code, run_with):
            with pytest.raises(anyfork.RemoteTemplateError):
                start(warm, "print('here')")
    with remote(sys.executable) as warm, pytest.raises(anyfork.RemoteTemplateError, match="on this machine"):
        run_with(warm, "print('here')")
    with remote(sys.executable, "no_such_module") as warm, pytest.raises(anyfork.PreloadError):
        warm.run_code("print('here')")
    with remote(sys.executable) as warm, warm.run_code("pass", env={**os.environ, "NEW": "1"}) as process:
        process.wait(PROGRAM_DEADLINE)
        assert (warm.report().starts, warm.report().cold) == (1, 0)


def fail():
    raise ZeroDivisionError


def test_a_cold_start_runs_in_the_interpreter_that_make_names(tmp_path):
    other = tmp_path / "python"
    other.symlink_to(os.path.realpath(sys.executable))
    source = "import sys; print(sys.executable)"

    def make(*modules):
        return anyfork.Template.new_exec(python=other).preload(*modules)

    with anyfork.Warm(make=lambda: make("no_such_module")) as failed, anyfork.Warm(make=make) as made:
        assert output(failed, source) == output(made, source) == str(other)
        assert output(made, source, env={**os.environ, "NEW": "1"}) == str(other)
        assert (failed.report().cold, made.report().starts, made.report().cold) == (1, 1, 1)
    with anyfork.Warm(make=fail, python=other) as named, anyfork.Warm(make=fail) as unnamed:
        assert (output(named, source), output(unnamed, source)) == (str(other), sys.executable)
    with anyfork.Warm(make=lambda: anyfork.Template.new_exec(python=tmp_path / "missing")) as missing:
        with pytest.raises(anyfork.LaunchError, match="missing"):
            missing.run_code(source)
        assert missing.report().cold == 0


def test_a_program_starts_cold_if_a_template_of_this_interpreter_cannot_be_launched_again(monkeypatch):
    refused = threading.Event()

    def make():
        if refused.is_set():
            raise anyfork.LaunchError("no room for a process")
        return anyfork.Template.new_exec()

    with anyfork.Warm(make=make) as warm:
        warm.template()
        refused.set()
        monkeypatch.setenv("NEW", "1")
        assert output(warm, "import sys; print(sys.executable)") == sys.executable
        assert warm.report().cold == 1


def test_threads_that_need_it_at_once_make_it_once(warm):
    results = []
    threads = [threading.Thread(target=lambda: results.append(of_a_call(warm))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROGRAM_DEADLINE)
    assert results == [11] * 4
    assert warm.report().made == 1


def test_a_signal_handler_may_use_it_while_it_is_made():
    results = []

    def make():
        if not results:
            results.append(0)
            signal.raise_signal(signal.SIGUSR1)
        return anyfork.Template()

    before = signal.signal(signal.SIGUSR1, lambda *_: results.append(anyfork.call(abs, -1, template=warm)))
    try:
        with anyfork.Warm(make=make) as warm:
            assert anyfork.call(abs, -2, template=warm) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert results == [0, 1]


def test_an_interrupt_while_it_is_made_leaves_nothing(warm, shown, monkeypatch):
    monkeypatch.setenv("OWNER", str(os.getpid()))
    shown.edit("import os, signal\nos.kill(int(os.environ['OWNER']), signal.SIGINT)\nsignal.pause()")
    with pytest.raises(KeyboardInterrupt):
        warm.template()
    shown.edit()
    assert of_a_call(warm) == 13


OWNER = """
import anyfork, os, signal, sys
warm = anyfork.Warm("fractions", learn=sys.argv[1])
warm.run_code("pass").wait()
print(warm.template().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_when_the_owner_is_killed(tmp_path):
    command = [sys.executable, "-c", OWNER, str(tmp_path / "learned.json")]
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=os.getpid, env=env) as owner:
        template = int(owner.stdout.readline())
    wait_for_end(template)
    assert not os.listdir(tmp_path / "tmp")


def test_it_works_in_its_owner_only_and_until_it_is_closed(warm):
    with pytest.raises(anyfork.ArgumentError, match="make another one there"):
        pickle.dumps(warm)
    warm._owner += 1
    with pytest.raises(anyfork.HandleError, match="forked copy"):
        warm.fork()
    warm._owner -= 1
    assert repr(warm) == "<Warm fractions shown not made made=0 starts=0>"
    warm.close()
    with pytest.raises(anyfork.HandleError, match="was closed"):
        warm.run_code("pass")
    assert subprocess.check_output([sys.executable, "-c", "print('cold')"], template=warm) == b"cold\n"


def test_wrong_arguments_are_errors():
    for arguments, keywords in (
        ((3,), {}),
        (("not a name",), {}),
        ((), {"make": "function"}),
        (("json",), {"make": anyfork.Template}),
        ((), {"watch": "one path"}),
    ):
        with pytest.raises(anyfork.ArgumentError, match="Warm"):
            anyfork.Warm(*arguments, **keywords)
    with anyfork.Warm(make=lambda: 3) as warm, pytest.raises(TypeError, match="returned int"):
        warm.template()
    with anyfork.Warm("fractions") as warm, pytest.raises(ValueError, match="loads the modules that it was made with"):
        anyfork.get_context(warm).set_forkserver_preload(["json"])


def test_a_pool_has_several_and_can_leave_one(warm, shown):
    with anyfork.Template() as other, anyfork.Template() as last, anyfork.Executor({warm: 1, other: 1}) as executor:
        assert executor.submit("shown:get").result() == 11
        executor.resize(limits={warm: 2})
        executor.replace_template(last, warm)
        shown.edit("1 / 0")
        assert executor.submit(abs, -1).result() == 1  # it does not follow the Warm any longer


def test_an_executor_follows_a_warm_that_replaces_its_template_until_a_template_replaces_that(warm, shown):
    def seen():
        return executor.submit("shown:get").result(), executor.submit(os.getppid).result()

    with anyfork.Template().ready() as plain, anyfork.Executor(plain, 1) as executor:
        assert seen() == (11, plain.pid)
        executor.replace_template(warm)
        [followed] = executor._dispatcher.followed
        assert seen() == (11, followed.template.ready().pid)
        shown.edit()
        assert seen() == (12, followed.template.ready().pid)
        kill(followed.template)
        assert seen() == (12, followed.template.ready().pid)
        executor.resize(limits={warm: 2})
        executor.replace_template(plain, warm)
        shown.edit("1 / 0")
        assert executor.submit(os.getppid).result() == plain.pid
        with pytest.raises(anyfork.PreloadError):
            executor.replace_template(warm)
        assert executor.submit(os.getppid).result() == plain.pid  # it has kept its template
        warm.close()
        with pytest.raises(anyfork.HandleError, match="replace_template"):
            executor.replace_template(warm)


def test_a_warm_that_replaces_a_template_in_the_middle_of_another_call_is_followed_from_the_next_job_on(warm):
    with anyfork.Template() as other, anyfork.Executor({anyfork.Template(): 1, other: 1}) as executor:
        executor.submit(abs, -1).result()
        with executor._dispatcher.lock:  # as in a signal handler that has interrupted a decision
            executor.replace_template(warm, other)
        eventually(lambda: executor._dispatcher.followed)
        assert warm.report().made == 0
        with pytest.raises(anyfork.ArgumentError, match="this Warm already"):
            executor.replace_template(warm, next(iter(executor._dispatcher.scheduler.sources)).key)
        executor.submit(abs, -1).result()
        assert warm.report().made == 1


# --- Snapshots of files -----------------------------------------------------------------------------------------


def test_a_file_that_may_have_been_read_before_its_change_is_late(tmp_path):
    path = str(tmp_path / "data")
    open(path, "w").close()
    changed = os.stat(path).st_ctime_ns
    noted = {path: (0,) * 5}
    assert Sources([path], [], changed).unsettled()[0] == path
    assert Sources([path], [], changed + 10**9).unsettled() is None
    assert Sources([path], [], changed + 10**9, noted).unsettled() == (path, 0.0)
    assert Sources([], [str(tmp_path)], changed).unsettled()[0] == path
    assert Sources([], [str(tmp_path)], changed + 10**9).unsettled() is None


NOTES = """
import os, sys
from _anyfork_child.program.noting import Noting
path = sys.argv[1]
noting = Noting([path])
print(noting._may_use_byte_code(path), noting._may_use_byte_code(os.__file__), noting._may_use_byte_code("missing"))
"""


def test_byte_code_of_a_file_that_has_changed_is_not_used():
    # The owner has seen the change, perhaps long ago.
    assert output_of("-c", NOTES, logging.__file__) == "False True False\n"


BEFORE = "import sys; print('fractions' in sys.modules); import fractions"


def test_a_first_program_teaches_the_next_template_and_the_next_owner(tmp_path):
    with anyfork.Warm("json", learn=tmp_path / "learned.json") as warm:
        assert [output(warm, BEFORE) for _ in range(3)] == ["False", "True", "True"]
        report = warm.report()
        assert (report.made, report.why_made) == (2, "programs have imported further modules")
        assert "fractions" in report.modules
    with anyfork.Warm(learn=tmp_path / "learned.json") as warm:
        assert output(warm, BEFORE) == "True"
        assert warm.report().made == 1
    assert os.listdir(tmp_path) == ["learned.json"]


def test_commands_teach_as_well(tmp_path):
    with anyfork.Warm("json", learn=tmp_path / "learned.json") as warm:
        command = [sys.executable, *options_of(warm), "-c", BEFORE]
        for known in ("False", "True"):
            assert subprocess.check_output(command, template=warm, text=True).strip() == known


def test_a_learned_module_that_is_not_safe_is_left_out_and_named(tmp_path, monkeypatch):
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "has_socket.py").write_text("import socket, fractions\nsock = socket.socket()")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)
    source = "import sys; print('fractions' in sys.modules, 'has_socket' in sys.modules); import has_socket"
    with anyfork.Warm("json", learn=tmp_path / "learned.json") as warm:
        assert [output(warm, source) for _ in range(2)] == ["False False", "True False"]
        [(name, why)] = warm.report().left_out
        assert name == "has_socket"
        assert "open: socket" in why
        assert f"has_socket is left out: {why}" in str(warm.report())


def test_a_file_that_cannot_be_written_changes_nothing_for_programs(tmp_path):
    with anyfork.Warm("json", learn=tmp_path / "missing" / "learned.json") as warm:
        assert [output(warm, BEFORE) for _ in range(2)] == ["False", "True"]


def test_a_program_that_a_new_interpreter_runs_counts_as_cold():
    with anyfork.Warm("json") as warm:
        env = {**os.environ, "PYTHONHASHSEED": "7"}
        with warm.run_code("pass", env=env) as process:
            process.wait(PROGRAM_DEADLINE)
        assert "PYTHONHASHSEED" in process.cold
        with warm.run_code("pass") as process:
            process.wait(PROGRAM_DEADLINE)
        assert process.cold == ""
        with warm.fork().run_code("pass") as process:
            process.wait(PROGRAM_DEADLINE)
        assert process.cold is None
        report = warm.report()
        assert (report.starts, report.saved, report.cold) == (2, 2 * report.seconds, 1)
        assert "PYTHONHASHSEED" in report.why_cold


def test_an_interrupt_does_not_lose_why_a_program_has_started_cold():
    for point in range(6):
        reading, writing = open_pipe()
        beginning = Beginning(reading, None)
        assert beginning.why_cold() is None
        os.write(writing.fd, b"!why")
        interrupts = iter([False] * point + [True])

        def trace(frame, event, argument, interrupts=interrupts):
            if event == "line" and next(interrupts, False):
                raise KeyboardInterrupt
            return trace if frame.f_code is Beginning._look.__code__ or event != "call" else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            beginning.why_cold()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert beginning.why_cold() == "why"
        writing.close()


@pytest.mark.parametrize("interrupted", [Warm._count, WarmStarts.await_report, Beginning.__init__])
def test_an_interrupt_while_a_start_is_counted_leaves_no_program(warm, interrupted):
    def trace(frame, event, argument):
        if event == "line":
            sys.settrace(before)
            raise KeyboardInterrupt
        return trace if frame.f_code is interrupted.__code__ else None

    output(warm, "")  # with a template that is made
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            warm.run_code("import signal; signal.pause()")
    finally:
        sys.settrace(before)


def test_a_start_with_a_timeout_keeps_no_descriptor_of_those_before(warm):
    counts = []
    for _ in range(4):
        with warm.run_code("pass", timeout=PROGRAM_DEADLINE) as process:
            process.wait(PROGRAM_DEADLINE)
        del process
        counts.append(count_descriptors())
    assert counts[1] == counts[-1]


TIMED = {
    "run": (lambda warm, command: subprocess.run(command, template=warm, timeout=0.01), subprocess.TimeoutExpired),
    "call": (lambda warm, command: subprocess.call(command, template=warm, timeout=0.01), subprocess.TimeoutExpired),
    "run_code": (lambda warm, command: warm.run_code(command[-1], timeout=0.01), anyfork.NotReadyError),
    "anyfork.call": (lambda warm, _: anyfork.call(abs, -1, template=warm, timeout=0.01), anyfork.CallTimeoutError),
}


@pytest.mark.parametrize("name", TIMED)
def test_a_timeout_includes_the_making_of_the_template_which_goes_on(name, monkeypatch):
    monkeypatch.setattr(start_of_programs, "SHORTEST_START", math.inf)  # which is not for the making
    start, expected = TIMED[name]
    begun, release = threading.Event(), threading.Event()

    def make():
        begun.set()
        assert release.wait(PROGRAM_DEADLINE)
        return anyfork.Template.new_exec()

    threads = _thread._count()
    with anyfork.Warm(make=make) as warm:
        for _ in range(3):
            with pytest.raises(expected, match=r"0\.01"):
                start(warm, [sys.executable, "-c", "print('warm')"])
            assert begun.wait(PROGRAM_DEADLINE)
        assert _thread._count() <= threads + 1, "one thread makes the template, however many calls wait for it"
        release.set()
        command = [sys.executable, *options_of(warm), "-c", "print('warm')"]
        assert subprocess.check_output(command, template=warm, timeout=PROGRAM_DEADLINE) == b"warm\n"
        assert (warm.report().made, warm.report().cold) == (1, 0)


def test_a_timeout_of_a_program_includes_the_preparation_of_its_template(tmp_path):
    os.mkfifo(tmp_path / "gate")
    with anyfork.Template().execute("open(args[0]).close()", str(tmp_path / "gate")) as template:
        command = [sys.executable, *options_of(None), "-c", "pass"]
        with pytest.raises(subprocess.TimeoutExpired, match=r"0\.01"):
            subprocess.run(command, template=template, timeout=0.01)
        (tmp_path / "gate").write_text("")
        assert subprocess.call(command, template=template, timeout=PROGRAM_DEADLINE) == 0
