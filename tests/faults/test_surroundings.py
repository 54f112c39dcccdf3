"""What surrounds a program: a large environment, tracers, files with the names of standard modules, other users."""

import os
import pwd
import subprocess
import sys

import pytest
from programs import run_program

import anyfork
from _anyfork_child.remote.bootstrap import BOOT, with_boot
from anyfork import ArgumentError, AttributeRefusedError, RemoteTemplate, Template, UnsafeTemplateError

LARGE = {f"V{number}": "x" * 100_000 for number in range(13)}  # 1.3 MB
MAKERS = {"fork": lambda **options: Template().fork(**options), "new_exec": Template.new_exec}
TRACER = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='tracer').start()\n"
SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
kept = interpreters.create()
"""
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
NOBODY = pwd.getpwnam("nobody")


@pytest.mark.parametrize("make", MAKERS)
def test_an_environment_above_the_size_of_a_frame_arrives(make):
    with MAKERS[make](env=LARGE) as template:
        assert anyfork.call(os.getenv, "V12", template=template.fork()) == LARGE["V12"]


def test_a_present_environment_above_the_size_of_a_frame_arrives(monkeypatch):
    for name, value in LARGE.items():
        monkeypatch.setenv(name, value)
    with Template.new_exec() as template:
        assert anyfork.call(os.getenv, "V12", template=template) == LARGE["V12"]


def test_an_environment_that_is_too_large_for_another_machine_is_an_argument_error():
    with RemoteTemplate([sys.executable]) as template:
        with pytest.raises(ArgumentError, match="bytes to .* at most 1048576"):
            template.fork(env=LARGE)
        assert anyfork.call(abs, -1, template=template) == 1


def test_threads_that_the_interpreter_starts_itself_are_kept_away_by_flags(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(TRACER)
    source = f"""
os.environ["PYTHONPATH"] = {str(tmp_path)!r} + os.pathsep + os.environ["PYTHONPATH"]
try:
    anyfork.call(abs, -1)
except anyfork.UnsafeTemplateError as error:
    seen = [str(error)]
with Template.new_exec(flags=["-S"]) as template, anyfork.Executor(template, max_workers=1) as executor:
    seen += [anyfork.call(abs, -1, template=template), executor.submit(abs, -2).result()]
say(seen)
"""
    why, *values = run_program(source)
    assert 'new_exec(flags=["-S"])' in why
    assert why.endswith(": tracer")
    assert values == [1, 2]


@pytest.mark.parametrize("name", ["socket", "selectors", "resource", "array", "inspect", "traceback", "heapq"])
def test_a_file_of_the_program_that_hides_a_standard_module_hides_it_not_from_anyfork(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('hidden')\n")
    program = """
import sys
sys.path[:] = [entry for entry in sys.path if entry != sys.argv[1]]
import anyfork, cloudpickle, concurrent.futures, resource
sys.path.insert(0, sys.argv[1])
def by_value(number):
    return number
def fail():
    raise KeyError("x")
with anyfork.Executor(max_workers=1) as executor, anyfork.Worker() as worker:
    print(anyfork.call(abs, -1), executor.submit(by_value, 2).result(), worker.call(by_value, 3))
    try:
        worker.call(fail)
    except KeyError:
        print("raised")
print(anyfork.call(by_value, 4, template=anyfork.Template.new_exec()))
print(anyfork.call(by_value, 5, template=anyfork.Template().fork(rlimits={"CORE": 0})))
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=40)
    assert done.stdout.split() == ["1", "2", "3", "raised", "4", "5"], done.stderr


def test_a_file_that_hides_what_cloudpickle_imports_hides_it_not_from_anyfork(tmp_path):
    (tmp_path / "pickle.py").write_text("raise RuntimeError('hidden')\n")
    program = """
import sys
sys.path[:] = [entry for entry in sys.path if entry != sys.argv[1]]
import anyfork
sys.path.insert(0, sys.argv[1])
print(anyfork.call(lambda: 5))
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=40)
    assert done.stdout.split() == ["5"], done.stderr


@pytest.mark.parametrize("step", ["execute", "prepare", "preload"])
def test_a_template_with_a_subinterpreter_is_unsafe(step, tmp_path):
    (tmp_path / "module_of_interpreters.py").write_text(SUBINTERPRETER)
    (tmp_path / "later.py").write_text("def make():\n    import module_of_interpreters\n")
    template = Template().execute("import sys; sys.path.append(*args)", str(tmp_path))
    {
        "execute": lambda: template.execute(SUBINTERPRETER),
        "prepare": lambda: template.prepare("later:make"),
        "preload": lambda: template.preload("module_of_interpreters"),
    }[step]()
    with pytest.raises(UnsafeTemplateError, match="subinterpreters"):
        template.ready()
    template.close()


def test_a_program_with_a_subinterpreter_is_not_copied():
    source = f"""
exec({SUBINTERPRETER!r}, globals())
report = anyfork.audit(open(os.devnull, "w"))
try:
    anyfork.fork_here()
except anyfork.UnsafeTemplateError as error:
    say([str(error), *report.obstacles, *report.interpreters])
"""
    why, obstacle, name = run_program(source)
    assert ["subinterpreters" in text for text in (why, obstacle)] == [True, True]
    assert name == "interpreter 1"


def test_short_names_of_processes_have_no_space():
    for template in (Template(), Template().fork(title="a name of mine")):
        with template.ready():
            template.fork().ready().close()
            with open(f"/proc/{template.pid}/comm") as file:
                assert " " not in file.read().strip()


@needs_root
@pytest.mark.parametrize("user", ["nobody", NOBODY.pw_uid])
def test_a_user_comes_with_its_groups(user):
    who = anyfork.call("builtins:eval", "__import__('os').getresgid()", template=Template().fork(user=user))
    groups = anyfork.call("os:getgroups", template=Template().fork(user=user))
    assert who == (NOBODY.pw_gid,) * 3
    assert sorted(groups) == sorted(os.getgrouplist("nobody", NOBODY.pw_gid))


@needs_root
def test_groups_that_are_given_are_those_of_the_process():
    template = Template().fork(user="nobody", group=7, extra_groups=[8])
    assert anyfork.call(
        "builtins:eval", "(lambda os: (os.getgid(), os.getgroups()))(__import__('os'))", template=template
    ) == (7, [8])


@needs_root
def test_an_unknown_user_is_refused_without_a_group():
    with pytest.raises(AttributeRefusedError, match="give group="):
        Template().fork(user=54321).ready()
    assert anyfork.call("os:getuid", template=Template().fork(user=54321, group=1)) == 54321


WRAPPED = [
    (["python3"], ["python3", "-c", BOOT]),
    (["unshare", "--mount-proc", "python3"], ["unshare", "--mount-proc", "python3", "-c", BOOT]),
    (["unshare", "-c", "python3"], ["unshare", "-c", "python3", "-c", BOOT]),
    (["unshare", "-rc", "python3"], ["unshare", "-rc", "python3", "-c", BOOT]),
    (["tool", "--exec", "/a b/python3"], ["tool", "--exec", "/a b/python3", "-c", BOOT]),
    (["sh", "-c", "python3"], ["sh", "-c", f"python3 -c {BOOT}"]),
    (
        ["/bin/bash", "-o", "pipefail", "-lc", "exec python3"],
        ["/bin/bash", "-o", "pipefail", "-lc", f"exec python3 -c {BOOT}"],
    ),
    (
        ["docker", "exec", "-i", "c1", "bash", "-lc", "python3"],
        ["docker", "exec", "-i", "c1", "bash", "-lc", f"python3 -c {BOOT}"],
    ),
    (["su", "-", "user", "-c", "python3"], ["su", "-", "user", "-c", f"python3 -c {BOOT}"]),
    (["su", "--command", "python3"], ["su", "--command", f"python3 -c {BOOT}"]),
]


@pytest.mark.parametrize(("command", "wanted"), WRAPPED)
def test_only_the_text_for_a_shell_is_changed_in_a_command(command, wanted):
    assert with_boot(command) == wanted
