"""A template is killed: what it has started goes on, nothing is invented about its end, and the next template works."""

import os
import select
import signal

import faulty
import pytest
from deadlines import DEADLINE
from programs import Program, stop

import anyfork
from _anyfork_child.wire.platform import has_pidfds
from anyfork import Descriptor, Template

# Without them nobody but the template can signal a process, or see its end: what outlives it is out of reach.
needs_pidfds = pytest.mark.skipif(not has_pidfds(), reason="the system has no pidfds")


def killed(template):
    """Kill a template by SIGKILL, and wait until it is gone."""
    pidfd = os.pidfd_open(template.ready().pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], DEADLINE)[0]
    finally:
        os.close(pidfd)


@pytest.fixture
def orphan():
    """Yield a running process whose template was killed."""
    template = Template.new_exec()
    process = template.fork().run(faulty.echo)
    killed(template)
    yield process
    process.kill()
    process.wait(DEADLINE)
    process.close()


def test_a_process_goes_on_when_its_template_is_killed(orphan):
    orphan.channel.sendall(b"still there?")
    assert orphan.channel.recv(100) == b"still there?"


@needs_pidfds
def test_a_process_that_lives_has_no_status_when_its_template_was_killed(orphan):
    # Not a made-up 255.
    assert orphan.poll() is None


@needs_pidfds
def test_wait_times_out_on_a_living_process_whose_template_was_killed(orphan):
    with pytest.raises(TimeoutError):
        orphan.wait(0.01)


@needs_pidfds
def test_kill_reaches_a_process_whose_template_was_killed(orphan):
    # By the pidfd, which needs no template.
    orphan.kill()
    assert orphan.channel.recv(1) == b""


@needs_pidfds
def test_terminate_reaches_a_process_whose_template_was_killed(orphan):
    orphan.terminate()
    assert orphan.channel.recv(1) == b""


def test_the_status_of_a_process_that_ends_after_its_template_is_unknown(orphan):
    orphan.channel.close()
    status = orphan.wait(DEADLINE)
    assert (status.code, status.signal, status.usage, status.known) == (None, None, None, False)


def test_the_returncode_of_a_process_that_ends_after_its_template_is_an_error(orphan):
    orphan.kill()
    orphan.wait(DEADLINE)
    with pytest.raises(anyfork.StatusUnknownError):
        _ = orphan.returncode


@needs_pidfds
def test_the_descriptor_of_a_process_becomes_readable_when_it_ends_after_its_template(orphan):
    assert not select.select([orphan], [], [], 0)[0]
    orphan.kill()
    assert select.select([orphan], [], [], DEADLINE)[0]


def test_the_status_of_a_process_that_ended_before_its_template_is_known():
    # It was reported at once, so nothing of it is lost, although nobody has asked before.
    template = Template.new_exec()
    process = template.fork().run(faulty.end_with, 7)
    assert select.select([process], [], [], DEADLINE)[0]
    template.execute("")  # answered behind the report
    killed(template)
    assert process.wait(DEADLINE).code == 7
    process.close()


def test_a_killed_template_answers_ready_with_how_it_ended():
    template = Template()
    killed(template)
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready(DEADLINE)
    assert caught.value.status.signal == signal.SIGKILL
    template.close()


def test_a_fork_asked_of_a_killed_template_says_how_the_template_ended():
    template = Template()
    killed(template)
    with pytest.raises(anyfork.TemplateDiedError, match="SIGKILL"):
        template.fork().run(faulty.echo)
    template.close()


def test_calls_on_a_killed_template_do_not_raise_before_ready():
    # They only queue.
    template = Template()
    killed(template)
    template.preload("json").execute("x = 1").send(1).fork().close()
    with pytest.raises(anyfork.TemplateDiedError):
        template.ready(DEADLINE)
    template.close()


def test_a_fork_that_was_made_before_its_template_was_killed_works_on():
    # With a template in the place of the process.
    template = Template()
    fork = template.fork().ready()
    killed(template)
    with fork.fork().run(faulty.end_with, 5) as process:
        pass
    assert process.returncode == 5
    fork.close()
    template.close()


def test_a_process_run_in_a_fork_whose_template_was_killed_has_an_unknown_status():
    # Its operating system's parent was the template that is gone.
    template = Template()
    fork = template.fork().ready()
    killed(template)
    process = fork.run(faulty.end_with, 5)
    assert not process.wait(DEADLINE).known
    process.close()
    template.close()


def test_a_template_that_is_killed_before_it_forks_leaves_no_process_that_was_started():
    # It never read the request.
    template = Template().ready()
    stop(template.pid)
    read, write = os.pipe()
    process = template.fork().start(faulty.write_to, Descriptor(write))
    os.close(write)
    os.kill(template.pid, signal.SIGKILL)
    with pytest.raises(anyfork.TemplateDiedError, match="nothing of it has run"):
        process.ready(DEADLINE)
    assert os.read(read, 100) == b"", "the function was entered"
    os.close(read)
    process.close()
    template.close()


DIES_AT_FORK = "import os\nos.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), 9))"


def test_a_process_whose_template_is_killed_right_after_the_fork_is_told_from_none():
    # It runs, and the handle knows its pid, although nobody could report its birth.
    template = Template().execute(DIES_AT_FORK)
    process = template.fork().run(faulty.echo)
    process.channel.sendall(b"x")
    assert process.channel.recv(1) == b"x"
    assert os.readlink(f"/proc/{process.pid}/exe")
    process.channel.close()
    assert not process.wait(DEADLINE).known
    process.close()
    template.close()


@needs_pidfds
def test_a_process_whose_template_is_killed_right_after_the_fork_can_be_killed():
    # There is a way to find and end it.
    template = Template().execute(DIES_AT_FORK)
    process = template.fork().run(faulty.forever)
    process.channel.recv(1)
    process.kill()
    assert process.channel.recv(1) == b""
    assert not process.wait(DEADLINE).known
    process.close()
    template.close()


def test_a_process_whose_template_is_killed_right_after_the_fork_ends_with_its_owner():
    # The lifeline closes, so what was never taken over ends.
    source = """
        template = Template().execute(sys.argv[1])
        fork = template.fork().ready()
        say(fork.pid)
        hear()
    """
    with Program(source, DIES_AT_FORK) as program:
        assert program.read() in program.everyone()
        program.kill()
        program.wait_for(())


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_template_that_dies_in_a_step_answers_ready_with_the_signal(number):
    # A preload that crashes the interpreter.
    template = Template().prepare(faulty.die_by, number)
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready(DEADLINE)
    assert caught.value.status.signal == number
    template.close()


def test_forks_queued_behind_a_step_that_killed_the_template_get_its_fate():
    template = Template().prepare(faulty.die_by, signal.SIGKILL)
    forks = [template.fork() for _ in range(3)]
    for fork in forks:
        with pytest.raises(anyfork.TemplateDiedError, match="SIGKILL"):
            fork.run(faulty.echo)
    template.close()


DEFAULT = """
from anyfork._processes.default_template import default_template

def kill_default():
    pid = default_template._link.session.pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
"""


def default_program(source):
    """Return a program that may kill its default template, without harm to that of the tests."""
    return Program(DEFAULT + source)


def test_a_killed_default_template_is_replaced_by_the_next_template():
    # The caller is not affected.
    with default_program(
        """
Template().ready()
kill_default()
with Template().run(faulty.end_with, 3) as process:
    pass
say(process.returncode)
"""
    ) as program:
        assert program.read() == 3
        assert program.wait() == 0
        assert program.errors() == ""


def test_a_default_template_may_be_killed_again_and_again():
    # Descriptors and zombies of the dead ones do not pile up.
    with default_program(
        """
def census():
    states = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                states.append(fields[0])
    return len(os.listdir("/proc/self/fd")), len(states), states.count("Z")

Template().ready().close()
counts = []
for _ in range(10):
    kill_default()
    Template().run(faulty.end_with, 0).wait()
    counts.append(census())
say(counts)
"""
    ) as program:
        counts = program.read()
        assert counts == [[counts[0][0], 1, 0]] * 10


def test_processes_go_on_when_the_default_template_is_killed():
    with default_program(
        """
process = Template().run(faulty.echo)
kill_default()
process.channel.sendall(b"x")
heard = process.channel.recv(1).decode()
process.channel.close()
say([heard, process.wait(5).known])
"""
    ) as program:
        assert program.read() == ["x", False]


def test_a_template_made_before_the_default_template_is_killed_works_on():
    with default_program(
        """
template = Template().ready()
kill_default()
with template.fork().run(faulty.end_with, 4) as process:
    pass
say(process.returncode)
"""
    ) as program:
        assert program.read() == 4


def test_a_template_asked_of_a_default_template_that_is_killed_meanwhile_says_so():
    # The request was on its way when it was killed; it is not known whether it was done, and never was.
    with default_program(
        """
Template().ready()
pid = default_template._link.session.pid
stop(pid)
template = Template()
os.kill(pid, signal.SIGKILL)
try:
    template.run(faulty.echo)
except anyfork.TemplateDiedError as error:
    say(str(error))
"""
    ) as program:
        assert "nothing of it has run" in program.read()
