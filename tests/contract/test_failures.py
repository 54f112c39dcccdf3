"""What fails is told to the owner: a typed error on the right handle, with the remote traceback or the status."""

from __future__ import annotations

import os
import pickle
import select
import signal

import child_side
import pytest
from child_side import Decoding
from conftest import eventually
from deadlines import DEADLINE
from owner_side import ask, ended, pipe, stopped

import anyfork

# --- Steps ----------------------------------------------------------------------------------------------------------

# name: what is asked of the template, the error, a part of its message, a part of the remote traceback
STEPS = {
    "a missing module": (
        lambda t: t.preload("json", "no_such_module"),
        anyfork.PreloadError,
        "module 'no_such_module' cannot be imported in the template: ModuleNotFoundError",
        "No module named 'no_such_module'",
    ),
    "a missing submodule": (
        lambda t: t.preload("json.no_such_part"),
        anyfork.PreloadError,
        "module 'json.no_such_part' cannot be imported",
        "No module named 'json.no_such_part'",
    ),
    "code that is not Python": (
        lambda t: t.execute("x = = 1"),
        anyfork.ExecuteError,
        "code given to execute failed in the template: SyntaxError",
        "x = = 1",
    ),
    "code that raises": (
        lambda t: t.execute("def f():\n    return 1 / 0\n\nf()"),
        anyfork.ExecuteError,
        "code given to execute failed in the template: ZeroDivisionError: division by zero",
        "    return 1 / 0",
    ),
    "code whose arguments cannot be decoded": (
        lambda t: t.execute("pass", Decoding(child_side.raise_when_decoded, "not here")),
        anyfork.ExecuteError,
        "LookupError: not here",
        "raise LookupError(text)",
    ),
    "a function that raises": (
        lambda t: t.prepare(child_side.fail_step),
        anyfork.PrepareError,
        "prepare(child_side:fail_step) failed in the template: RuntimeError: no model there",
        "raise RuntimeError(text)",
    ),
    "a function that is not there": (
        lambda t: t.prepare("child_side:no_such_step"),
        anyfork.PrepareError,
        "no_such_step",
        "",
    ),
    "a function of a module that is not there": (
        lambda t: t.prepare("no_such_module:step"),
        anyfork.PrepareError,
        "no_such_module",
        "No module named 'no_such_module'",
    ),
    "a function that got the wrong arguments": (
        lambda t: t.prepare(child_side.add, 1, 2, 3),
        anyfork.PrepareError,
        "TypeError: add() takes 1 positional argument but 3 were given",
        "",
    ),
    "a function whose arguments cannot be decoded": (
        lambda t: t.prepare(child_side.add, Decoding(child_side.raise_when_decoded, "not here")),
        anyfork.PrepareError,
        "LookupError: not here",
        "raise LookupError(text)",
    ),
    "a thread that is left running": (
        lambda t: t.prepare(child_side.start_thread),
        anyfork.UnsafeTemplateError,
        "threads run in the template, and a fork does not copy them: left-over",
        "",
    ),
}


@pytest.fixture(params=STEPS)
def failing(request):
    return STEPS[request.param]


def matches(error, failing):
    _, kind, message, trace = failing
    assert type(error) is kind
    assert message in str(error)
    assert trace in error.remote_traceback
    return True


def test_a_failed_step_is_raised_by_ready(template, failing):
    failing[0](template)
    with pytest.raises(anyfork.TemplateError) as caught:
        template.ready(DEADLINE)
    assert matches(caught.value, failing)


def test_a_failed_step_is_raised_by_run(template, failing):
    failing[0](template)
    with pytest.raises(anyfork.TemplateError) as caught:
        template.run(child_side.enter, timeout=DEADLINE)
    assert matches(caught.value, failing)


def test_a_failed_step_is_raised_by_the_fork_queued_behind_it(template, failing):
    failing[0](template)
    with template.fork() as fork, pytest.raises(anyfork.TemplateError) as caught:
        fork.ready(DEADLINE)
    assert matches(caught.value, failing)


def test_a_failed_step_is_raised_by_a_fork_made_after_it_was_told(template, failing):
    failing[0](template)
    with pytest.raises(anyfork.TemplateError):
        template.ready(DEADLINE)
    with template.fork() as fork, pytest.raises(anyfork.TemplateError) as caught:
        fork.run(child_side.enter, timeout=DEADLINE)
    assert matches(caught.value, failing)


def test_a_failed_step_is_raised_by_a_fork_of_a_fork_queued_behind_it(template):
    template.preload("no_such_module")
    with (
        template.fork() as fork,
        fork.fork() as fork_of_fork,
        pytest.raises(anyfork.PreloadError, match="no_such_module"),
    ):
        fork_of_fork.ready(DEADLINE)


def test_a_failed_step_is_raised_by_a_fork_of_a_fork_whose_handle_was_dropped(template):
    template.preload("no_such_module")
    with template.fork().fork().fork() as last, pytest.raises(anyfork.PreloadError, match="no_such_module"):
        last.run(child_side.enter, timeout=DEADLINE)


def test_a_refused_attribute_is_raised_by_the_forks_behind_it(template):
    with (
        template.fork(cwd="/no/such/directory").fork().fork() as last,
        pytest.raises(anyfork.AttributeRefusedError, match="cwd="),
    ):
        last.run(child_side.enter, timeout=DEADLINE)


def test_a_fork_that_was_refused_before_its_handle_is_dropped_says_why_to_those_behind_it(template):
    first = template.fork(cwd="/no/such/directory")
    second = first.fork()
    third = second.fork()
    drop_refused(first, second, third, born=1)
    del first, second
    with third, pytest.raises(anyfork.AttributeRefusedError, match="cwd="):
        third.run(child_side.enter, timeout=DEADLINE)


def test_so_does_one_whose_own_template_was_refused(template):
    template.preload("no_such_module")
    first = template.fork()
    second = first.fork()
    third = second.fork()
    drop_refused(first, second, third, born=0)
    del first, second
    with third, pytest.raises(anyfork.PreloadError, match="no_such_module"):
        third.run(child_side.enter, timeout=DEADLINE)


def drop_refused(*line, born):
    """Wait until all but the first ``born`` of a line of forks have been refused, and close all but the last."""
    for refused in line[born:]:
        hung_up(refused)
    for template in line[:-1]:
        template.close()


def hung_up(template):
    """Wait until the other end of its status socket is closed."""
    link = getattr(template, "_template", template)._link
    poller = select.poll()
    poller.register(link.status.fd, 0)
    assert poller.poll(DEADLINE * 1000)


def test_a_failed_step_leaves_the_forks_before_it_alone(template, failing):
    before = template.fork()
    failing[0](template)
    assert ask(before, "v", 1) == [1]


def test_a_failed_step_leaves_running_processes_alone(template, failing):
    with template.fork().run(child_side.echo) as process:
        failing[0](template)
        with pytest.raises(anyfork.TemplateError):
            template.ready(DEADLINE)
        process.channel.sendall(b"alive")
        assert process.channel.recv(100) == b"alive"


def test_a_failed_step_survives_pickle(template, failing):
    failing[0](template)
    with pytest.raises(anyfork.TemplateError) as caught:
        template.ready(DEADLINE)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert matches(copy, failing)
    assert copy.__notes__ == caught.value.__notes__ if caught.value.remote_traceback else True


def test_the_first_failure_is_the_one_that_is_told(template):
    template.execute("1 / 0").preload("no_such_module").execute("raise KeyError")
    with pytest.raises(anyfork.ExecuteError, match="ZeroDivisionError"):
        template.ready(DEADLINE)


def test_nothing_is_done_after_a_failed_step(template, gate):
    template.execute("1 / 0").execute("import os; os.write(args[0].fileno(), b'done')", gate)
    with pytest.raises(anyfork.ExecuteError):
        template.ready(DEADLINE)
    os.set_blocking(gate.fileno(), False)
    with pytest.raises(BlockingIOError):
        os.read(gate.fileno(), 1)


def test_a_failure_is_told_as_often_as_asked_each_time_as_a_new_error(template):
    template.preload("no_such_module")
    errors = []
    for _ in range(3):
        with pytest.raises(anyfork.PreloadError) as caught:
            template.ready(DEADLINE)
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == 1


def test_the_error_names_the_module(template):
    with pytest.raises(anyfork.PreloadError) as caught:
        template.preload("json", "no_such_module", "os").ready(DEADLINE)
    assert caught.value.module == "no_such_module"


def test_the_error_of_a_module_that_raises_shows_where(template, tmp_path):
    (tmp_path / "broken_module.py").write_text("def inside():\n    raise OSError('no licence')\n\ninside()\n")
    template.execute("import sys; sys.path.insert(0, args[0])", str(tmp_path))
    with pytest.raises(anyfork.PreloadError, match="OSError: no licence") as caught:
        template.preload("broken_module").ready(DEADLINE)
    assert "raise OSError('no licence')" in caught.value.remote_traceback
    assert "_anyfork_child" not in caught.value.remote_traceback


def test_the_remote_traceback_is_printed_with_the_error(template):
    import traceback

    with pytest.raises(anyfork.PrepareError) as caught:
        template.prepare(child_side.fail_step).ready(DEADLINE)
    assert "raise RuntimeError(text)" in "".join(traceback.format_exception(caught.value))


def test_the_error_names_the_threads(template):
    with pytest.raises(anyfork.UnsafeTemplateError) as caught:
        template.prepare(child_side.start_thread).ready(DEADLINE)
    assert caught.value.threads == "left-over"


# --- Templates that end ---------------------------------------------------------------------------------------------


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("step", "argument", "code", "number"),
    [
        (child_side.leave_step, 7, 7, None),
        (child_side.leave_step, None, 0, None),
        (os._exit, 9, 9, None),
        (child_side.die_step, signal.SIGKILL, None, signal.SIGKILL),
        (child_side.die_step, signal.SIGTERM, None, signal.SIGTERM),
    ],
    ids=["SystemExit 7", "SystemExit", "_exit", "SIGKILL", "SIGTERM"],
)
def test_a_template_that_ends_in_a_step_tells_its_status(template, step, argument, code, number):
    template.prepare(step, argument)
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready(DEADLINE)
    assert (caught.value.status.code, caught.value.status.signal) == (code, number)


def test_an_idle_template_that_is_killed_tells_its_status(template):
    pid = template.ready().pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(anyfork.TemplateDiedError, match=rf"template {pid} ended by signal 9 \(SIGKILL\)") as caught:
        template.ready(DEADLINE)
    assert caught.value.status.signal == signal.SIGKILL


def test_what_is_asked_of_a_dead_template_fails_when_it_is_waited_for(template):
    pid = template.ready().pid
    os.kill(pid, signal.SIGKILL)
    fork = template.send(1).preload("json").fork()
    with pytest.raises(anyfork.TemplateDiedError, match="nothing of it has run"):
        fork.run(child_side.enter, timeout=DEADLINE)


def test_starting_a_process_of_a_dead_template_tells_that_it_died_before_it_was_ready(template):
    pid = template.ready().pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(anyfork.DiedBeforeReadyError) as caught:
        template.run(child_side.enter, timeout=DEADLINE)
    assert caught.value.status.signal == signal.SIGKILL


@pytest.mark.untraced
def test_forks_queued_behind_the_end_of_a_template_were_never_born(template):
    fork = template.prepare(os._exit, 3).fork()
    process = fork.start(child_side.enter)
    with pytest.raises(anyfork.TemplateDiedError, match="ended with exit code 3"):
        process.ready(DEADLINE)
    process.close()


# --- Starts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("child_side:no_such_function", "no_such_function"),
        ("child_side:Holder.no_such_method", "no_such_method"),
        ("no_such_module:function", "No module named 'no_such_module'"),
        ("no.such.package:function", "No module named 'no'"),
        ("never_executed", "never_executed"),
        ("child_side:not_a_function", "not callable but int"),
    ],
)
def test_a_function_that_is_not_there_is_not_found(template, function, message):
    with pytest.raises(anyfork.FunctionNotFoundError, match=message):
        template.run(function, 1, timeout=DEADLINE)


def test_a_function_whose_module_raises_is_not_found_and_the_traceback_shows_why(template, tmp_path):
    (tmp_path / "broken_function.py").write_text("raise OSError('no licence')\n")
    template.execute("import sys; sys.path.insert(0, args[0])", str(tmp_path))
    with pytest.raises(anyfork.FunctionNotFoundError, match="OSError: no licence") as caught:
        template.run("broken_function:main", timeout=DEADLINE)
    assert "raise OSError('no licence')" in caught.value.remote_traceback


def test_an_argument_that_cannot_be_decoded_is_told_with_its_traceback(template):
    with pytest.raises(anyfork.ArgumentDecodeError, match="LookupError: not here") as caught:
        template.run(child_side.enter, Decoding(child_side.raise_when_decoded, "not here"), timeout=DEADLINE)
    assert "raise LookupError(text)" in caught.value.remote_traceback


def test_a_sent_value_that_cannot_be_decoded_fails_the_process_and_not_the_template(template):
    template.send(Decoding(child_side.raise_when_decoded, "not here"))
    with template.fork() as fork:
        assert fork.ready(DEADLINE) is fork
        with pytest.raises(anyfork.ArgumentDecodeError, match="LookupError: not here"):
            fork.run(child_side.enter, timeout=DEADLINE)


def test_system_exit_while_decoding_is_a_failure_to_decode(template):
    with pytest.raises(anyfork.ArgumentDecodeError, match="SystemExit: 4"):
        template.run(child_side.enter, Decoding(child_side.leave_when_decoded, 4), timeout=DEADLINE)


@pytest.mark.parametrize(
    ("value", "code", "number"),
    [
        (Decoding(child_side.exit_when_decoded, 6), 6, None),
        (Decoding(child_side.die_when_decoded, signal.SIGKILL), None, signal.SIGKILL),
    ],
    ids=["exit", "signal"],
)
def test_a_process_that_dies_before_it_is_ready_tells_its_status(template, value, code, number):
    with pytest.raises(anyfork.DiedBeforeReadyError) as caught:
        template.run(child_side.enter, value, timeout=DEADLINE)
    assert (caught.value.status.code, caught.value.status.signal) == (code, number)
    assert "before it entered its function" in str(caught.value)


def test_a_process_that_hangs_before_it_is_ready_is_killed_at_the_deadline(template):
    with pipe() as (read, write):
        value = Decoding(child_side.stay_when_decoded, anyfork.Descriptor(read))
        process = template.start(child_side.enter, value)
        os.close(read)
        with pytest.raises(anyfork.NotReadyError, match="within 0.05 seconds; it was killed"):
            process.ready(0.05)
        assert process.wait(DEADLINE).signal == signal.SIGKILL
        process.close()
        assert pipe_is_broken(write)


@pytest.mark.parametrize("dropped", [False, True], ids=["kept", "dropped"])
def test_a_process_that_is_not_born_at_its_deadline_is_killed_at_its_birth(template, dropped):
    with pipe() as (read, write):
        value = Decoding(child_side.stay_when_decoded, anyfork.Descriptor(read))
        with stopped(template.ready().pid):
            process = template.fork().start(child_side.enter, value)
            with pytest.raises(anyfork.NotReadyError):
                process.ready(0.01)
            if dropped:
                process.close()
        os.close(read)
        if not dropped:
            assert process.wait(DEADLINE).signal == signal.SIGKILL
            process.close()
        eventually(lambda: has_no_reader(write))


def has_no_reader(fd):
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


def pipe_is_broken(fd):
    try:
        os.write(fd, b"x")
    except BrokenPipeError:
        return True
    return False


def test_a_deadline_that_passed_is_a_timeout_error(template, gate):
    with pytest.raises(TimeoutError):
        template.run(child_side.enter, Decoding(child_side.stay_when_decoded, gate), timeout=0.05)


def test_a_process_of_a_stopped_template_is_not_ready_and_never_enters_its_function(template):
    with pipe() as (read, write), os.fdopen(os.dup(write), "wb", 0) as file:
        os.close(write)
        with stopped(template.ready().pid):
            process = template.fork().start(child_side.write_to, file, b"entered")
            file.close()
            with pytest.raises(anyfork.NotReadyError):
                process.ready(0.05)
        process.wait(DEADLINE)
        process.close()
        assert os.read(read, 100) == b""


def test_a_failed_start_is_over_and_its_status_can_be_asked(template):
    process = template.start("child_side:no_such_function")
    with pytest.raises(anyfork.FunctionNotFoundError):
        process.ready(DEADLINE)
    assert process.wait(DEADLINE).code == 1
    process.close()


def test_a_failed_start_has_no_channel(template):
    process = template.start("child_side:no_such_function")
    with pytest.raises(anyfork.FunctionNotFoundError):
        _ = process.channel
    process.close()


def test_a_failed_start_of_a_fork_leaves_the_template_and_its_siblings_alone(template):
    with pytest.raises(anyfork.FunctionNotFoundError):
        template.fork().run("child_side:no_such_function", timeout=DEADLINE)
    assert ask(template.fork(), "v", 1) == [1]


def test_each_handle_gets_its_own_error(template):
    missing = template.fork().start("child_side:no_such_function")
    undecodable = template.fork().start(child_side.enter, Decoding(child_side.raise_when_decoded, "x"))
    dying = template.fork().start(child_side.enter, Decoding(child_side.exit_when_decoded, 6))
    refused = template.fork(cwd="/no/such/directory").start(child_side.enter)
    good = template.fork().start(child_side.enter)
    with pytest.raises(anyfork.AttributeRefusedError):
        refused.ready(DEADLINE)
    with pytest.raises(anyfork.DiedBeforeReadyError):
        dying.ready(DEADLINE)
    with pytest.raises(anyfork.ArgumentDecodeError):
        undecodable.ready(DEADLINE)
    with pytest.raises(anyfork.FunctionNotFoundError):
        missing.ready(DEADLINE)
    assert ended(good).code == 0
    for process in (missing, undecodable, dying, refused):
        process.wait(DEADLINE)
        process.close()


def test_a_fork_that_the_system_refuses_is_told_with_errno_and_the_template_goes_on(template):
    # Root is exempt from the limit, so the template has to be somebody else.
    with template.preload("child_side", "traceback").fork(rlimits={"NPROC": (1, 1)}, user=65534) as limited:
        with pytest.raises(anyfork.ForkError, match="fork failed") as caught:
            limited.fork().run(child_side.enter, timeout=DEADLINE)
        assert caught.value.errno == 11  # EAGAIN
        assert limited.ready(DEADLINE) is limited


def test_a_refused_fork_survives_pickle_with_its_errno(template):
    with template.preload("child_side", "traceback").fork(rlimits={"NPROC": (1, 1)}, user=65534) as limited:
        with pytest.raises(anyfork.ForkError) as caught:
            limited.fork().ready(DEADLINE)
    assert pickle.loads(pickle.dumps(caught.value)).errno == 11


def test_a_hook_that_raises_in_the_new_process_fails_it_and_leaves_the_template_alone(template):
    template.execute(
        "import os\ndef broken_hook():\n    if fail: raise RuntimeError('hook said no')\n"
        "fail = False\nos.register_at_fork(after_in_child=broken_hook)"
    )
    good = template.fork().ready(DEADLINE)
    template.execute("fail = True")
    with pytest.raises(anyfork.HookError, match="hook said no") as caught:
        template.fork().run(child_side.enter, timeout=DEADLINE)
    assert "raise RuntimeError('hook said no')" in caught.value.remote_traceback or "broken_hook" in str(caught.value)
    assert template.ready(DEADLINE) is template
    good.close()
