"""A process dies, is killed or hangs before it enters its function: the owner learns which, and nothing is left."""

import os
import select
import signal
import sys

import faulty
import pytest
from deadlines import DEADLINE
from owner_side import interrupted_at
from programs import stop

import anyfork
from _anyfork_child.wire.frames import REVOKE, Frame
from anyfork import Descriptor, Process, Template

SHORT = 0.05  # seconds: for what will not happen


def test_a_function_that_was_entered_is_ready_however_much_stands_before_that_in_the_socket(tmp_path):
    """Fill the socket with answers to earlier questions and the note that the module was imported."""
    (tmp_path / "latecomer.py").write_text(
        "import os\ndef tell(channel, file): os.write(file.fileno(), b'.'); channel.recv(1)"
    )
    read, write = os.pipe()
    template = Template().execute(f"import sys; sys.path.append({str(tmp_path)!r})")
    with pytest.raises(TimeoutError):
        template.ready(timeout=0)
    process = template.start("latecomer:tell", Descriptor(write))
    os.close(write)
    assert os.read(read, 1) == b"."
    os.close(read)
    with process.ready(timeout=0):
        pass
    assert process.returncode == 0


def test_an_interrupt_before_the_wait_for_a_process_leaves_none():
    with Template() as template, anyfork.Warm("json") as warm:
        warm.template()
        for run in (
            lambda: template.fork().run_program(["sleep", "1000"]),
            lambda: template.fork().run_code("import signal; signal.pause()"),
            lambda: warm.run_code("import signal; signal.pause()"),
        ):
            interrupted_at(Process._ready_or_gone, run)


def test_a_start_that_is_revoked_before_its_template_has_heard_of_it_says_nothing(tmp_path):
    with open(tmp_path / "said", "w+") as said, Template().fork(stderr=said).ready() as template:
        template._link.send(Frame(REVOKE))
        with pytest.raises(anyfork.TemplateDiedError):
            template.ready(DEADLINE)
        assert said.read() == ""


@pytest.fixture
def trace():
    """Yield a pipe that tells whether a function was entered."""
    trace = Trace(*os.pipe())
    yield trace
    trace.close()


class Trace:
    """``argument`` goes to the function ``write_to``; then ``entered`` waits for the end of all that have it."""

    def __init__(self, read, write):
        self._read = read
        self.argument = Descriptor(write)

    def entered(self):
        self.argument.close()
        assert select.select([self._read], [], [], DEADLINE)[0], "a process holds on to what it was sent"
        return os.read(self._read, 100) != b""

    def close(self):
        self.argument.close()
        os.close(self._read)


def start(trace, *functions):
    """Start a function whose arguments do something when they are decoded."""
    return Template().start(faulty.write_to, trace.argument, *[faulty.Decoding(*call) for call in functions])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGUSR1])
def test_a_process_killed_before_it_is_ready_is_an_error_with_the_signal(trace, number):
    process = start(trace, (faulty.die_by, number))
    with pytest.raises(anyfork.DiedBeforeReadyError) as caught:
        process.ready(DEADLINE)
    assert caught.value.status.signal == number
    process.close()


def test_a_process_that_exits_before_it_is_ready_is_an_error_with_the_code(trace):
    process = start(trace, (os._exit, 9))
    with pytest.raises(anyfork.DiedBeforeReadyError) as caught:
        process.ready(DEADLINE)
    assert caught.value.status.code == 9
    process.close()


def test_an_argument_that_exits_by_systemexit_is_a_decode_error(trace):
    """Treat SystemExit like other exceptions of the decoding."""
    process = start(trace, (os.sys.exit, 3))
    with pytest.raises(anyfork.ArgumentDecodeError, match="SystemExit"):
        process.ready(DEADLINE)
    process.close()


@pytest.mark.parametrize("call", [(os._exit, 0), (faulty.die_by, 9), (os.sys.exit, 0)])
def test_the_function_of_a_process_that_died_before_it_was_ready_was_never_entered(trace, call):
    process = start(trace, call)
    with pytest.raises(anyfork.StartError):
        process.ready(DEADLINE)
    assert not trace.entered()
    process.close()


def test_the_status_of_a_process_that_died_before_it_was_ready_is_there_for_wait(trace):
    process = start(trace, (os._exit, 9))
    assert process.wait(DEADLINE).code == 9
    process.close()


def test_run_raises_what_ready_would_raise(trace):
    with pytest.raises(anyfork.DiedBeforeReadyError):
        Template().run(faulty.write_to, trace.argument, faulty.Decoding(os._exit, 9))


def test_the_channel_of_a_process_that_died_before_it_was_ready_is_the_error(trace):
    # Never a socket that leads nowhere.
    process = start(trace, (os._exit, 9))
    with pytest.raises(anyfork.DiedBeforeReadyError):
        _ = process.channel
    process.close()


def test_the_template_of_a_process_that_died_before_it_was_ready_works_on(trace):
    with Template() as template:
        with pytest.raises(anyfork.DiedBeforeReadyError):
            template.fork().run(faulty.write_to, faulty.Decoding(faulty.die_by, signal.SIGKILL))
        template.fork().run(faulty.write_to, trace.argument).wait(DEADLINE)
    assert trace.entered()


def test_an_exec_ed_interpreter_that_dies_at_its_start_is_an_error_with_what_it_wrote():
    # Standard error is ours there, so its tail is in the error.
    template = Template.new_exec(flags=["-X", "frozen_modules=neither-on-nor-off"])
    with pytest.raises(anyfork.LaunchError) as caught:
        template.ready(DEADLINE)
    assert "frozen_modules" in caught.value.stderr
    template.close()


def test_a_process_that_hangs_before_it_is_ready_is_killed_at_the_deadline(trace):
    read, write = os.pipe()
    process = start(trace, (faulty.hang, Descriptor(write)))
    assert os.read(read, 1) == b"."
    os.close(write)
    with pytest.raises(anyfork.NotReadyError):
        process.ready(SHORT)
    assert process.wait(DEADLINE).signal == signal.SIGKILL
    assert os.read(read, 1) == b""
    os.close(read)
    process.close()


def test_the_deadline_of_run_kills_too_and_the_function_was_never_entered(trace):
    read, write = os.pipe()
    with pytest.raises(anyfork.NotReadyError):
        Template().run(faulty.write_to, trace.argument, faulty.Decoding(faulty.hang, Descriptor(write)), timeout=SHORT)
    os.close(read)
    os.close(write)
    assert not trace.entered()


def test_a_passed_deadline_is_a_timeout_error_too():
    read, write = os.pipe()
    with pytest.raises(TimeoutError):
        Template().run(faulty.write_to, faulty.Decoding(faulty.hang, Descriptor(write)), timeout=SHORT)
    os.close(read)
    os.close(write)


def test_a_stopped_template_never_enters_the_function_after_the_deadline_of_run(trace):
    # Not even when it goes on and reads what is queued.
    template = Template().ready()
    stop(template.pid)
    pid = template.pid
    with pytest.raises(anyfork.NotReadyError):
        template.run(faulty.write_to, trace.argument, timeout=SHORT)
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass  # it was killed at once, and reaped
    assert not trace.entered()


def test_a_fork_of_a_stopped_template_never_enters_the_function_after_the_deadline_of_run(trace):
    # The process is not even born when the deadline passes, so nothing can be killed yet.
    with Template() as template:
        stop(template.ready().pid)
        with pytest.raises(anyfork.NotReadyError):
            template.fork().run(faulty.write_to, trace.argument, timeout=SHORT)
        os.kill(template.pid, signal.SIGCONT)
        assert not trace.entered()


def test_a_stopped_template_works_on_after_the_deadline_of_a_fork_of_it(trace):
    with Template() as template:
        stop(template.ready().pid)
        with pytest.raises(anyfork.NotReadyError):
            template.fork().run(faulty.echo, timeout=SHORT)
        os.kill(template.pid, signal.SIGCONT)
        template.fork().run(faulty.write_to, trace.argument).wait(DEADLINE)
    assert trace.entered()


@pytest.mark.parametrize("programs_before", [0, 1])  # the template starts the second one without a fork
def test_a_program_never_runs_after_the_deadline_of_run_program(tmp_path, programs_before):
    with Template() as template:
        for _ in range(programs_before):
            template.fork().run_program(["true"]).wait(DEADLINE)
        stop(template.ready().pid)
        with pytest.raises(anyfork.NotReadyError):
            template.fork().run_program(["touch", tmp_path / "entered"], timeout=SHORT)
        os.kill(template.pid, signal.SIGCONT)
        template.fork().run(faulty.echo).close()  # behind the other in the same template
    assert not (tmp_path / "entered").exists()


def test_ready_of_a_template_that_is_busy_times_out_and_the_template_goes_on():
    # A template is not killed for being slow.
    read, write = os.pipe()
    with Template() as template:
        template.execute("import os; os.read(args[0].fileno(), 1)", Descriptor(read))
        with pytest.raises(TimeoutError):
            template.ready(SHORT)
        os.write(write, b".")
        assert template.ready(DEADLINE) is template
    os.close(read)
    os.close(write)


HOOK = """
import os
failing = [True]
def hook():
    if failing:
        raise RuntimeError("the hook does not like this")
os.register_at_fork({}=hook)
"""


@pytest.mark.parametrize("where", ["before", "after_in_child"])
def test_a_hook_that_raises_fails_the_new_process(where):
    # Closed, not with a line on stderr and a half-made process.
    with Template() as template:
        template.execute(HOOK.format(where))
        with pytest.raises(anyfork.HookError, match="the hook does not like this"):
            template.fork().run(faulty.echo)


@pytest.mark.parametrize("where", ["before", "after_in_child"])
def test_a_hook_that_raises_is_shown_with_its_traceback(where):
    with Template() as template:
        template.execute(HOOK.format(where))
        with pytest.raises(anyfork.HookError) as caught:
            template.fork().ready(DEADLINE)
    assert "in hook" in caught.value.remote_traceback


@pytest.mark.parametrize("where", ["before", "after_in_child"])
def test_the_template_lives_on_after_a_hook_has_raised(where):
    with Template() as template:
        template.execute(HOOK.format(where))
        with pytest.raises(anyfork.HookError):
            template.fork().run(faulty.echo)
        template.execute("failing.clear()")
        with template.fork().run(faulty.end_with, 6) as process:
            pass
    assert process.returncode == 6


def test_a_hook_that_raises_in_the_template_does_not_fail_the_new_process():
    # The hook after_in_parent runs too late to change anything.
    with Template() as template:
        template.execute(HOOK.format("after_in_parent"))
        with template.fork().run(faulty.end_with, 6) as process:
            pass
    assert process.returncode == 6


def test_a_hook_that_ends_the_new_process_is_an_error_with_the_status():
    with Template() as template:
        template.execute("import os; os.register_at_fork(after_in_child=lambda: os._exit(8))")
        with pytest.raises(anyfork.DiedBeforeReadyError) as caught:
            template.fork().run(faulty.echo)
    assert caught.value.status.code == 8


def test_a_hook_that_hangs_in_the_new_process_is_killed_at_the_deadline():
    with Template() as template:
        template.execute("import os, signal; os.register_at_fork(after_in_child=signal.pause)")
        with pytest.raises(anyfork.NotReadyError):
            template.fork().run(faulty.echo, timeout=SHORT)


# --- Exceptions that are no Exception, such as panics of libraries in Rust ---


PANICS = {
    "prepare": (lambda: Template().prepare(faulty.panic).ready(), anyfork.PrepareError),
    "an argument of prepare": (
        lambda: Template().prepare(len, faulty.Decoding(faulty.panic)).ready(),
        anyfork.PrepareError,
    ),
    "execute": (lambda: Template().execute("import faulty; faulty.panic()").ready(), anyfork.ExecuteError),
    "before": (lambda: Template().fork(before=faulty.panic).ready(), anyfork.AttributeRefusedError),
    "run": (lambda: Template().run(faulty.write_to, faulty.Decoding(faulty.panic)), anyfork.ArgumentDecodeError),
    "an initializer": (lambda: anyfork.Worker(Template(), initializer=faulty.panic).ready(), anyfork.InitializerError),
}


@pytest.mark.parametrize("step", PANICS)
def test_an_exception_that_is_no_exception_is_told_as_any_other(step):
    fail, kind = PANICS[step]
    with pytest.raises(kind, match="NoException: lost|raised NoException"):
        fail()


def test_a_call_whose_argument_panics_fails_alone():
    with anyfork.Worker(Template()) as worker:
        pid = worker.call(os.getpid)
        for function in (anyfork.call, worker.call):
            with pytest.raises(anyfork.ArgumentDecodeError, match="NoException: lost"):
                function(len, faulty.Decoding(faulty.panic))
        assert worker.call(os.getpid) == pid


def test_a_job_whose_argument_panics_fails_alone():
    with anyfork.Executor(max_workers=1) as executor:
        pid = executor.submit(os.getpid).result()
        with pytest.raises(anyfork.ArgumentDecodeError):
            executor.submit(len, faulty.Decoding(faulty.panic)).result()
        assert executor.submit(os.getpid).result() == pid


def test_an_argument_that_exits_ends_the_worker_and_nothing_else():
    with anyfork.Executor(max_workers=1) as executor:
        with pytest.raises(anyfork.WorkerDiedError):
            executor.submit(len, faulty.Decoding(sys.exit)).result()
        assert executor.submit(abs, -1).result() == 1
