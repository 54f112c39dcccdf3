"""A process that runs a function: how it ends, what its owner learns of that, and what the handle can do."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import child_side
import pytest
from conftest import eventually, merge_references, wait_for_end
from deadlines import DEADLINE
from owner_side import ask, blocking_only, ended, pipe
from processes_functions import write_when_closed

import anyfork

# --- Exit codes and signals -----------------------------------------------------------------------------------------


def test_a_function_that_returns_ends_with_code_0(template):
    status = ended(template.run(child_side.enter))
    assert (status.code, status.signal, status.returncode, status.known) == (0, None, 0, True)


def test_what_a_function_returns_is_no_exit_code(template):
    assert ended(template.run(lambda channel: 7)).code == 0


@pytest.mark.parametrize(
    ("code", "expected"), [(None, 0), (0, 0), (3, 3), (255, 255), (256 + 5, 5), (-1, 255), (True, 1), ((), 1)], ids=repr
)
def test_system_exit_sets_the_code_as_an_interpreter_would(template, code, expected):
    assert ended(template.run(child_side.leave, code)).code == expected


def test_system_exit_without_a_code_is_0(template):
    assert ended(template.run(child_side.leave_without)).code == 0


def test_system_exit_with_a_text_prints_it_and_is_1(template, tmp_path):
    with (tmp_path / "err").open("w") as err:
        assert ended(template.fork(stderr=err).run(child_side.leave, "all is lost")).code == 1
    assert (tmp_path / "err").read_text() == "all is lost\n"


def test_system_exit_is_no_error(template):
    assert ended(template.run(child_side.leave, 3)).error is None


def test_os_exit_sets_the_code(template):
    assert ended(template.run(child_side.exit_at_once, 77)).code == 77


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGABRT, signal.SIGRTMIN])
def test_a_signal_that_ends_the_process_is_its_status(template, number):
    status = ended(template.fork(rlimits={"CORE": 0}).run(child_side.die_of, number))
    assert (status.code, status.signal, status.returncode) == (None, number, -number)


def test_an_exception_ends_with_code_1_and_its_traceback_is_the_error(template):
    status = ended(template.fork(stderr=anyfork.DEVNULL).run(child_side.fail, "größer"))
    assert status.code == 1
    assert status.error is not None
    assert status.error.startswith("Traceback (most recent call last):\n")
    assert status.error.endswith("ValueError: größer\n")


def test_the_traceback_begins_with_the_function_itself(template):
    error = ended(template.fork(stderr=anyfork.DEVNULL).run(child_side.fail, "x")).error
    assert error is not None
    assert [line.split()[-1] for line in error.splitlines() if line.startswith("  File")] == ["fail", "_fail_inside"]


def test_an_exception_is_printed_on_standard_error_too(template, tmp_path):
    with (tmp_path / "err").open("w") as err:
        status = ended(template.fork(stderr=err).run(child_side.fail, "shown"))
    assert (tmp_path / "err").read_text() == status.error


def test_an_exception_that_cannot_be_formatted_is_reported_all_the_same(template):
    status = ended(template.fork(stderr=anyfork.DEVNULL).run(child_side.fail_unreadably))
    assert (status.code, status.error) == (1, "UnreadableError: still said\n")


def test_an_exception_is_reported_although_the_hook_that_prints_it_fails(template, tmp_path):
    with (tmp_path / "err").open("w") as err:
        status = ended(template.fork(stderr=err).run(child_side.fail_with_a_failing_hook))
    assert status.code == 1
    assert status.error is not None
    assert status.error.endswith("ValueError: the error itself\n")
    assert "ValueError: the error itself" in (tmp_path / "err").read_text()


def test_a_long_error_keeps_its_end(template):
    error = ended(template.fork(stderr=anyfork.DEVNULL).run(child_side.fail, "x" * 300_000 + " the end")).error
    assert error is not None
    assert error.endswith("x the end\n")


def test_an_error_whose_text_is_no_unicode_still_arrives(template):
    error = ended(template.fork(stderr=anyfork.DEVNULL).run(child_side.fail, "\ud800")).error
    assert error is not None
    assert "ValueError" in error


def test_a_good_end_has_no_error(template):
    assert ended(template.run(child_side.enter)).error is None


# --- Usage ----------------------------------------------------------------------------------------------------------


def test_the_cpu_time_that_a_process_has_used_shows_in_its_usage(template):
    usage = ended(template.run(child_side.burn, 0.3)).usage
    assert usage is not None
    assert 0.25 <= usage.user_time + usage.system_time < DEADLINE


def test_the_memory_that_a_process_has_used_shows_in_its_usage(template):
    usage = ended(template.run(child_side.fill_memory, 100 << 20)).usage
    assert usage is not None
    assert 100 << 10 <= usage.max_rss < 1 << 20
    assert usage.minor_faults > 0


@pytest.mark.untraced
def test_usage_is_that_of_one_process_and_not_of_its_siblings(template):
    burnt = ended(template.fork().run(child_side.burn, 0.3)).usage
    idle = ended(template.fork().run(child_side.enter)).usage
    assert burnt is not None
    assert idle is not None
    assert idle.user_time + idle.system_time < 0.2 < burnt.user_time + burnt.system_time


def test_a_killed_process_has_usage_too(template):
    with template.run(child_side.until_closed) as process:
        process.kill()
        usage = process.wait(DEADLINE).usage
    assert usage is not None
    assert usage.max_rss > 0


# --- The end of a process, from inside ------------------------------------------------------------------------------


def test_threads_are_joined_and_then_exit_handlers_run(template):
    with pipe() as (read, write), os.fdopen(write, "wb", 0) as file:
        assert ended(template.run(child_side.with_exit_handlers, file)).code == 0
        assert os.read(read, 100) == b"thread atexit "


def test_exit_handlers_of_the_template_do_not_run_in_its_processes(template):
    with pipe() as (read, write):
        template.execute(
            "import atexit, os\natexit.register(lambda: os.write(args[0].fileno(), b'template '))",
            anyfork.Descriptor(write),
        )
        ended(template.fork().run(child_side.enter))
        with template.fork().run(child_side.until_closed):
            template.close()
        eventually(lambda: select.select([read], [], [], 0)[0])
        os.close(write)
        assert read_to_end(read) == b"template "


def read_to_end(fd):
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def test_output_that_was_not_flushed_is_written_at_the_end(template, tmp_path):
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        ended(template.fork(stdout=out, stderr=err).run(child_side.print_unflushed, "to stdout", "to stderr"))
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("to stdout", "to stderr")


def test_a_process_starts_with_the_signal_handlers_of_an_interpreter(template):
    template.execute("import signal; signal.signal(signal.SIGUSR1, lambda *_: None)")
    expression = "[str(signal.getsignal(n)) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)]"
    assert ask(template, expression) == [
        str(handler) for handler in (signal.SIG_DFL, signal.SIG_DFL, signal.default_int_handler)
    ]


def test_a_process_starts_with_no_signal_blocked(template):
    assert ask(template, "signal.pthread_sigmask(signal.SIG_BLOCK, [])") == set()


# --- Waiting --------------------------------------------------------------------------------------------------------


def test_wait_with_a_timeout_gives_up_and_the_process_goes_on(template):
    with template.run(child_side.echo) as process:
        with pytest.raises(TimeoutError, match="has not ended within 0.02 seconds"):
            process.wait(0.02)
        process.channel.sendall(b"alive")
        assert process.channel.recv(100) == b"alive"


@blocking_only
def test_wait_answers_the_same_as_often_as_asked(template):
    with template.run(child_side.leave, 5) as process:
        assert process.wait(DEADLINE) is process.wait(0)


def test_returncode_is_none_until_somebody_has_looked(template):
    with template.run(child_side.leave, 5) as process:
        select.select([process.fileno()], [], [], DEADLINE)
        assert process.returncode is None
        process.wait(DEADLINE)
        assert process.returncode == 5


@blocking_only
def test_poll_has_the_code_as_soon_as_the_descriptor_says_that_the_process_has_ended(template):
    processes = [template.fork().start(child_side.leave, 5) for _ in range(20)]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            select.select([process], [], [], DEADLINE)
            assert process.poll() == 5


def test_poll_is_none_while_the_process_runs(template):
    with template.run(child_side.until_closed) as process:
        assert process.poll() is None


def test_many_threads_may_wait_for_one_process(template):
    with template.run(child_side.until_closed) as process, ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(process.wait, DEADLINE) for _ in range(16)]
        process.send_signal(signal.SIGKILL)
        assert {status.result().signal for status in waiting} == {signal.SIGKILL}


def test_threads_may_wait_with_different_deadlines(template):
    with template.run(child_side.until_closed) as process, ThreadPoolExecutor(2) as pool:
        patient = pool.submit(process.wait, DEADLINE)
        hasty = pool.submit(process.wait, 0.02)
        assert isinstance(hasty.exception(), TimeoutError)
        process.kill()
        assert patient.result().signal == signal.SIGKILL


def test_one_thread_waits_while_another_uses_the_channel(template):
    with template.run(child_side.echo) as process, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(process.wait, DEADLINE)
        process.channel.sendall(b"x" * 1000)
        assert process.channel.recv(1000, 0x100) == b"x" * 1000
        process.channel.shutdown(1)
        assert waiting.result().code == 0


# --- Signals --------------------------------------------------------------------------------------------------------


def test_a_signal_reaches_the_function(template):
    with template.run(child_side.on_signal, signal.SIGUSR1, 42) as process:
        assert process.channel.recv(1) == b"."
        process.send_signal(signal.SIGUSR1)
        assert process.wait(DEADLINE).code == 42


def test_terminate_sends_sigterm(template):
    with template.run(child_side.until_closed) as process:
        process.terminate()
        assert process.wait(DEADLINE).signal == signal.SIGTERM


def test_kill_sends_sigkill(template):
    with template.run(child_side.until_closed) as process:
        process.kill()
        assert process.wait(DEADLINE).signal == signal.SIGKILL


def test_a_signal_may_be_sent_right_after_the_start(template):
    with template.start(child_side.until_closed) as process:
        process.kill()
        assert process.wait(DEADLINE).signal == signal.SIGKILL


@pytest.mark.parametrize("seen", [True, False], ids=["end seen", "end not seen"])
def test_a_signal_to_a_process_that_has_ended_does_nothing(template, seen):
    with template.run(child_side.leave, 3) as process:
        if seen:
            process.wait(DEADLINE)
        else:
            select.select([process.fileno()], [], [], DEADLINE)
        process.kill()
        assert process.wait(DEADLINE).code == 3


# --- fileno ---------------------------------------------------------------------------------------------------------


def test_the_descriptor_becomes_readable_when_the_process_ends(template):
    with template.run(child_side.until_closed) as process:
        assert select.select([process], [], [], 0) == ([], [], [])
        process.kill()
        assert select.select([process], [], [], DEADLINE)[0] == [process]


def test_the_descriptor_is_gone_once_the_end_was_seen(template):
    with template.run(child_side.enter) as process:
        process.wait(DEADLINE)
        with pytest.raises(anyfork.HandleError, match="has ended"):
            process.fileno()


# --- The handle -----------------------------------------------------------------------------------------------------


def test_a_handle_as_context_closes_the_channel_and_waits(template):
    with template.run(child_side.until_closed) as process:
        pass
    assert process.returncode == 0


def test_a_handle_as_context_ends_a_process_whose_channel_nobody_asked_for(template):
    with template.start(child_side.until_closed) as process:
        pass
    assert process.returncode == 0


def test_the_end_is_awaited_also_when_the_block_raises(template):
    with pytest.raises(ZeroDivisionError), template.run(child_side.until_closed) as process:
        1 / 0  # noqa: B018
    assert process.returncode == 0


def test_a_closed_handle_lets_the_process_go_on(template):
    with pipe() as (read, write):
        process = template.run(write_when_closed, anyfork.Descriptor(write))
        os.close(write)
        process.close()
        assert os.read(read, 100) == b"went on"
        assert os.read(read, 1) == b""


def test_a_dropped_handle_lets_the_process_go_on(template):
    with pipe() as (read, write):
        template.start(write_when_closed, anyfork.Descriptor(write))
        merge_references()
        os.close(write)
        assert os.read(read, 100) == b"went on"
        assert os.read(read, 1) == b""


def test_closing_a_handle_twice_is_harmless(template):
    process = template.run(child_side.enter)
    process.wait(DEADLINE)
    process.close()
    process.close()


@pytest.mark.parametrize("use", ["ready", "wait", "poll", "terminate", "kill", "fileno"])
def test_a_closed_handle_refuses(template, use):
    process = template.run(child_side.enter)
    process.wait(DEADLINE)
    process.close()
    with pytest.raises(anyfork.HandleError, match="closed"):
        getattr(process, use)()


def test_a_closed_handle_has_no_channel(template):
    process = template.run(child_side.until_closed)
    process.close()
    with pytest.raises(anyfork.HandleError, match="closed"):
        _ = process.channel


def test_a_closed_handle_still_tells_pid_and_returncode(template):
    with template.run(child_side.leave, 9) as process:
        pid = process.pid
    assert (process.pid, process.returncode) == (pid, 9)


def test_the_channel_is_one_object(template):
    with template.run(child_side.enter) as process:
        assert process.channel is process.channel


@blocking_only
def test_the_channel_is_a_blocking_socket_that_is_not_inherited(template):
    with template.run(child_side.enter) as process:
        assert (process.channel.gettimeout(), process.channel.get_inheritable()) == (None, False)


def test_a_function_sees_the_end_of_its_channel_when_the_owner_closes_it(template):
    with template.run(child_side.until_closed) as process:
        process.channel.close()
        assert process.wait(DEADLINE).code == 0


def test_the_repr_of_a_process_says_pid_and_state(template):
    with template.run(child_side.until_closed) as process:
        running = repr(process)
        process.kill()
        process.wait(DEADLINE)
        assert (running, repr(process)) == (
            f"<Process pid={process.pid} running>",
            f"<Process pid={process.pid} ended by signal 9 (SIGKILL)>",
        )


def test_start_returns_before_the_function_is_entered(template, gate):
    process = template.start(child_side.leave, child_side.Decoding(child_side.stay_when_decoded, gate))
    state = repr(process)
    os.write(gate.fileno(), b"x")
    ended(process)
    assert "starting" in state


def test_ready_returns_the_process_itself_as_often_as_asked(template):
    with template.start(child_side.until_closed) as process:
        assert process.ready() is process.ready() is process


def test_run_with_a_timeout_that_suffices_runs(template):
    with template.run(child_side.until_closed, timeout=DEADLINE) as process:
        assert process.pid is not None


# --- Templates and their processes ----------------------------------------------------------------------------------


def test_a_closed_template_lets_its_processes_finish_with_their_status(template):
    with template.fork().run(child_side.until_closed) as process:
        template.close()
        assert process.poll() is None
        process.terminate()
        assert process.wait(DEADLINE).signal == signal.SIGTERM


def test_a_process_leaves_no_zombie_while_nobody_waits(template):
    template.ready()
    process = template.fork().run(child_side.enter)
    pid = process.pid
    wait_for_end(pid)
    assert process.wait(DEADLINE).code == 0
    process.close()


def test_the_status_of_a_process_whose_template_was_killed_is_unknown(template):
    template.ready()
    with template.fork().run(child_side.until_closed) as process:
        os.kill(template.pid, signal.SIGKILL)
        process.channel.close()
        status = process.wait(DEADLINE)
        assert (status.code, status.signal, status.known, status.usage) == (None, None, False, None)
        with pytest.raises(anyfork.StatusUnknownError, match="exit status of a process is unknown"):
            _ = process.returncode


def test_a_process_may_start_threads(template):
    assert ask(template, "[threading.Thread(target=int).start() for _ in v] and len(v)", 1, 2, 3) == 3


def test_a_process_is_single_threaded_when_its_function_is_entered(template):
    with template.run(child_side.say_and_stay) as process:
        process.channel.recv(1)
        assert os.listdir(f"/proc/{process.pid}/task") == [str(process.pid)]


def test_a_thread_of_the_owner_may_start_and_another_wait(template):
    made = []
    starter = threading.Thread(target=lambda: made.append(template.run(child_side.leave, 4)))
    starter.start()
    starter.join()
    assert ended(made[0]).code == 4


# --- Memory -----------------------------------------------------------------------------------------------------------


def test_a_collection_in_a_process_copies_none_of_the_objects_of_its_template(template):
    # In free-threaded builds too, whose collector finds objects in another way.
    template.prepare("processes_functions:fill", 100_000)
    before, after = ask(template, "__import__('processes_functions').private_around_a_collection()")
    assert after - before < 2 << 20 < 100_000 * sys.getsizeof([0])
