"""run_program from the second program on: the template starts the program, and does not fork itself for it.

The contract is that of every program, so the tests of test_programs run here, too.
"""

from __future__ import annotations

import os
import select
import signal

import faces
import pytest
from deadlines import DEADLINE
from owner_side import ended, read_all
from test_programs import *  # noqa: F403  # the same tests, with the template below
from test_programs import output

import anyfork
from _anyfork_child.template.program_start import search_path
from anyfork import aio

MAKERS = {"blocking": anyfork.Template, "asyncio": lambda: faces.Template.make("asyncio", aio.Template)}


class Runner:
    """A template whose programs run in forks of it."""

    def __init__(self, template):
        self._template = template

    def __getattr__(self, name):
        return getattr(self._template, name)

    def run_program(self, argv, **options):
        return self._template.fork().run_program(argv, **options)


@pytest.fixture(params=MAKERS)
def template(request):
    """Return a template of which a fork has run a program."""
    with MAKERS[request.param]() as template:
        assert ended(template.fork().run_program(["true"])).code == 0
        yield Runner(template)


def faults(process):
    return ended(process).usage.minor_faults


@pytest.mark.untraced
@pytest.mark.parametrize("pidfds", ["1", "0"])
def test_the_template_is_not_forked(pidfds):
    with anyfork.Template.new_exec(env={**os.environ, "ANYFORK_PIDFD": pidfds}) as template:
        forked = faults(template.fork().run_program(["true"]))
        assert faults(template.fork().run_program(["true"])) < forked / 2


def test_attributes_are_those_of_a_fork(template, tmp_path):
    script = "pwd; umask; ps -o sid= -p $$; echo $$; echo said >&2; cat"
    (tmp_path / "input").write_text("read\n")
    with open(tmp_path / "output", "w+") as file, open(tmp_path / "input") as given:
        streams = {"stdin": given, "stdout": file, "stderr": anyfork.STDOUT}
        attributes = {"cwd": tmp_path, "umask": 0o027, "new_session": True}
        assert ended(template.fork(**streams, **attributes).run_program(["sh", "-c", script])).code == 0
    place, umask, session, pid, *rest = (tmp_path / "output").read_text().split()
    assert (place, umask, session, rest) == (str(tmp_path), "0027", pid, ["said", "read"])


def test_devnull_and_pipes_are_streams(template):
    blocking = isinstance(template._template, anyfork.Template)
    streams = {"stdin": anyfork.DEVNULL, "stdout": anyfork.PIPE} if blocking else {"stdout": anyfork.CHANNEL}
    with template.fork(**streams).run_program(["echo", "said"]) as process:
        said = process.communicate()[0] if blocking else read_all(process.channel)
    assert said == b"said\n"


def test_inherited_streams_are_those_of_the_template(template):
    with template.fork(stdout=anyfork.CHANNEL).ready() as inner:
        ended(inner.fork().run_program(["true"]))
        with inner.fork(stderr=anyfork.STDOUT).run_program(["sh", "-c", "echo one; echo two >&2"]) as process:
            assert read_all(process.channel) == b"one\ntwo\n"


def test_a_refused_directory_is_named(template, tmp_path):
    with pytest.raises(anyfork.AttributeRefusedError) as caught:
        template.fork(cwd=tmp_path / "gone").run_program(["true"], timeout=DEADLINE)
    assert (caught.value.attribute, caught.value.errno) == ("cwd", 2)
    assert output(template, ["echo", "on"]) == b"on\n"


@pytest.mark.parametrize("when", ["before", "after_in_parent", "after_in_child"])
def test_hooks_of_the_user_run_as_after_any_fork(when):
    code = f"import os; os.register_at_fork({when}=lambda: os.write(1, b'hook'))"
    with anyfork.Template() as template:
        ended(template.fork().run_program(["true"]))
        read, write = os.pipe()
        with template.fork(stdout=write).execute(code).ready() as inner:
            os.close(write)
            ended(inner.fork().run_program(["true"]))
            ended(inner.fork().run_program(["true"]))
        assert os.read(read, 100) == b"hook" * 2
        os.close(read)


@pytest.mark.parametrize("path", [None, "", ":", "/bin::/nowhere", "/größer:/bin"])
def test_programs_are_looked_for_in_the_places_of_every_interpreter(monkeypatch, path):
    if path is None:
        monkeypatch.delenv("PATH", raising=False)
    else:
        monkeypatch.setenv("PATH", path)
    assert search_path() == [*map(os.fsencode, os.get_exec_path())]


def test_signals_that_the_template_ignores_end_a_program(template):
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        assert ended(template.run_program(["sh", "-c", f"kill -{int(number)} $$"])).signal == number


def test_many_programs_at_once_have_their_own_ends(template):
    processes = [template.run_program(["sh", "-c", f"exit {code}"]) for code in range(20)]
    assert [ended(process).code for process in processes] == [*range(20)]


# --- A fork that is held back -------------------------------------------------------------------------------------


def test_a_fork_that_is_held_back_is_one_of_its_own_time(template):
    before = template.fork()
    template.execute("later = 1")
    before.execute("assert 'later' not in vars(__import__('__main__'))").ready()
    before.close()


def test_whatever_is_asked_of_it_sends_it(template):
    assert ended(template.fork().run("builtins:id")).code == 0
    ended(template.run_program(["true"]))
    with template.fork().ready() as ready:
        assert ready.pid not in (None, template.pid)
    ended(template.run_program(["true"]))
    inner = template.fork().send(1)
    ended(template.run_program(["true"]))
    assert ended(inner.fork().run("operator:is_")).code == 0  # which takes the channel and one more argument
    inner.close()


def test_forks_of_one_that_is_held_back_work(template):
    with template.fork() as first, first.fork() as second:
        assert ended(second.fork().run_program(["true"])).code == 0


def test_one_that_is_dropped_leaves_nothing(template):
    template.fork().close()
    template.fork()
    assert ended(template.run_program(["true"])).code == 0


def test_a_held_one_of_a_template_that_was_closed_still_comes():
    template = anyfork.Template()
    ended(template.fork().run_program(["true"]))
    late = template.fork()
    template.close()
    assert ended(late.run_program(["sh", "-c", "exit 5"])).code == 5


def test_a_dead_default_template_is_replaced():
    ended(anyfork.Template().run_program(["true"]))
    with anyfork.Template().ready() as template, open(f"/proc/{template.pid}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    ended(anyfork.Template().run_program(["true"]))
    pidfd = os.pidfd_open(parent)
    os.kill(parent, signal.SIGKILL)
    select.select([pidfd], [], [], DEADLINE)
    os.close(pidfd)
    assert ended(anyfork.Template().run_program(["true"])).code == 0


def test_a_forked_copy_of_the_owner_keeps_no_ends_of_it():
    with anyfork.Template() as template:
        ended(template.fork().run_program(["true"]))
        held = template.fork(stdout=anyfork.CHANNEL)
        read, write = os.pipe()
        copy = os.fork()
        if copy == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        with held.run_program(["echo", "said"]) as process:
            assert read_all(process.channel) == b"said\n"
        os.close(write)
        os.waitpid(copy, 0)
