"""A process that raises: its exit code and its traceback are true, whatever it has done to its descriptors."""

import os

import endings
import faces
import pytest
from deadlines import DEADLINE
from programs import Program
from test_template_death import killed, needs_pidfds

import anyfork
from anyfork import DEVNULL, Template, aio

RAISE = {"exception": (endings.raise_error, "ValueError: mine\n"), "SystemExit": (endings.exit_with_text, "mine\n")}
TEMPLATES = {
    "plain": lambda: Template(),
    "exit handlers": lambda: Template().preload("logging"),
    "execed": lambda: Template.new_exec().preload("logging"),
    "async": lambda: faces.Template.make("asyncio", aio.Template),
}


ORPHAN = """
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what the template leaves behind is ours
import endings
template = Template.new_exec().ready()
process = template.fork(stderr=anyfork.DEVNULL).run(endings.wait_first, endings.raise_error)
process.channel.recv(1)
ended = os.pidfd_open(template.pid)
os.kill(template.pid, signal.SIGKILL)
select.select([ended], [], [], 10)
process.channel.sendall(b"x")
say(os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]))
"""


@pytest.fixture
def output(tmp_path):
    with (tmp_path / "output").open("w+") as file:
        yield file


def end_of(process):
    status = process.wait(DEADLINE)
    process.close()
    return status


def text_of(file):
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("end", RAISE)
@pytest.mark.parametrize(
    "what", [endings.close_all, endings.close_everything, endings.fill_own], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("make", TEMPLATES)
def test_a_function_that_raises_ends_with_code_1_whatever_it_did_to_its_descriptors(make, what, end):
    with TEMPLATES[make]() as template:
        assert end_of(template.fork(stderr=DEVNULL).run(what, RAISE[end][0])).code == 1


@pytest.mark.parametrize("end", RAISE)
@pytest.mark.parametrize("make", TEMPLATES)
def test_nothing_is_written_to_what_a_function_has_opened_under_the_old_numbers(make, end, output, tmp_path):
    with TEMPLATES[make]() as template, (tmp_path / "seen").open("w+") as seen:
        assert end_of(template.fork(stderr=output).run(endings.fill_numbers, RAISE[end][0], seen)).code == 1
        assert text_of(seen) == "b''"
    assert RAISE[end][1] in text_of(output)  # the file that was closed behind its back has its say in 3.13


def test_the_words_of_a_process_are_in_its_own_status_alone():
    with Template() as template:
        victim = template.fork().run(endings.wait_first, endings.kill_itself)
        assert victim.channel.recv(1) == b"."
        forged = end_of(template.fork(stderr=DEVNULL).run(endings.pretend, victim.pid))
        assert "of another process" in forged.error
        victim.channel.sendall(b"x")
        status = end_of(victim)
        assert (status.signal, status.error) == (9, None)


@pytest.mark.parametrize(
    "junk", [b"", b"x", b"\xff\xff\xff\xff", bytes(7), b"report\0\xff\xff", b"report" * 1000], ids=len
)
def test_what_is_no_report_is_dropped(junk):
    with Template() as template:
        for _ in range(2):
            status = end_of(template.fork().run(endings.write_junk, junk, 3))
            assert (status.code, status.error) == (3, None)


def test_a_process_that_raises_ends_while_siblings_that_have_raised_go_on():
    with Template() as template:
        siblings = [template.fork(stderr=DEVNULL).run(endings.linger, 50_000) for _ in range(12)]
        for sibling in siblings:
            sibling.channel.recv(1)
        assert "ValueError: mine" in end_of(template.fork(stderr=DEVNULL).run(endings.raise_error)).error
        for sibling in siblings:
            sibling.channel.sendall(b"x")
            status = end_of(sibling)
            assert status.code == 1
            assert "a" * 50_000 in status.error


@needs_pidfds
@pytest.mark.parametrize("then", [endings.raise_error, endings.raise_after_deadly_pipes], ids=lambda f: f.__name__)
def test_a_process_that_raises_after_its_template_was_killed_prints_its_own_traceback_alone(then, output):
    template = Template.new_exec().ready()
    process = template.fork(stderr=output).run(endings.wait_first, then)
    assert process.channel.recv(1) == b"."
    killed(template)
    process.channel.sendall(b"x")
    assert not end_of(process).known
    assert text_of(output).count("Traceback") == 1
    assert text_of(output).endswith("ValueError: mine\n")


def test_a_process_that_raises_after_its_template_was_killed_ends_with_code_1():
    # Whoever reaps it then sees that: here the program itself.
    with Program(ORPHAN) as program:
        assert program.read() == 1


def test_a_copy_of_a_process_does_not_speak_for_it(output):
    with Template() as template:
        process = template.fork(stderr=output).run(endings.fork_and_raise)
        assert process.channel.recv(9) == b"1"
        status = end_of(process)
    assert (status.code, status.error) == (5, None)
    assert text_of(output).endswith("ValueError: of the copy\n")


def test_a_program_is_not_concerned():
    status = end_of(Template().run_program([b"false"]))
    assert (status.code, status.error) == (1, None)


def test_the_template_holds_nothing_of_processes_that_have_ended():
    with Template() as template:
        end_of(template.fork(stderr=DEVNULL).run(endings.raise_error))
        before = len(os.listdir(f"/proc/{template.ready().pid}/fd"))
        for function in (endings.raise_error, endings.exit_with_text, endings.kill_itself):
            end_of(template.fork(stderr=DEVNULL).run(function))
        assert len(os.listdir(f"/proc/{template.ready().pid}/fd")) == before


def test_a_template_whose_code_replaces_its_descriptors_writes_nothing_there(output, tmp_path):
    path = tmp_path / "file"
    code = (
        "import os; os.closerange(3, 256); [os.open(args[0], os.O_RDWR | os.O_CREAT | os.O_APPEND) for _ in range(20)]"
    )
    with Template().fork(stderr=output).execute(code, os.fspath(path)) as template:
        with pytest.raises(anyfork.TemplateDiedError) as caught:
            template.ready(DEADLINE)
    assert caught.value.status.code == 1
    assert path.read_bytes() == b""
    assert "has closed or replaced descriptors" in text_of(output)
