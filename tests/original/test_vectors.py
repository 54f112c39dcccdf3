"""The behaviour that was measured on AnyEvent::Fork, and where we differ from it on purpose."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import os
import resource
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import eventually
from deadlines import DEADLINE
from original_functions import PidOnArrival, receive_all
from original_owner import Pipe, Watch, answer_of, other_owner, read_to_end, stop, title
from procfs import parent_of, state_of

import anyfork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEGABYTE = 1 << 20
PIECE = b"x" * 60_000  # bytes: small enough to travel in the socket itself
PIECES = 800  # more than any socket takes: its buffer is 16 MiB, counted twice
WAIT_THEN_SAY = """
import os
pipe, gate = args
os.read(gate.fileno(), 1)
os.write(pipe.fileno(), b"done")
"""
SAY = "import os; os.write(args[0].fileno(), args[1])"
SAY_AT_EXIT = "import atexit, os; atexit.register(os.write, args[0].fileno(), args[1])"


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with Pipe() as pipe:
        yield pipe


@pytest.fixture
def gate() -> Iterator[Pipe]:
    """Yield what a process waits for until the test lets it go on."""
    with Pipe() as pipe:
        yield pipe


@pytest.fixture(params=["forked", "executed"])
def make(request) -> Callable[..., anyfork.Template]:
    """Return a way to make a template: each of both in turn."""
    return anyfork.Template if request.param == "forked" else anyfork.Template.new_exec


# --- Handles that are dropped before anything is run -----------------------------------------------------------------


def test_a_template_whose_handle_is_dropped_unused_ends(make):
    template = make().ready()
    with Watch(template.pid) as process:
        del template
        process.wait()


def test_a_template_whose_handle_is_dropped_unused_says_nothing(tmp_path):
    with open(tmp_path / "said", "w") as file:
        template = anyfork.Template.new_exec(stdout=file, stderr=file).ready()
        with Watch(template.pid) as process:
            del template
            process.wait()
    assert (tmp_path / "said").read_text() == ""


def test_a_template_whose_handle_is_dropped_ends_as_an_interpreter_does_with_its_exit_handlers(pipe):
    # Its exit code 0 is known to its template alone; that its handlers run shows that the end is a normal one.
    template = anyfork.Template.new_exec().execute(SAY_AT_EXIT, pipe.write, b"bye")
    del template
    assert pipe.take() == b"bye"


def test_work_asked_for_is_done_after_the_handle_was_dropped(make, pipe, gate):
    # The code is still waiting when its handle goes.
    template = make().ready()
    with Watch(template.pid) as process:
        template.execute(WAIT_THEN_SAY, pipe.write, gate.read)
        del template
        assert not process.ended
        gate.write.write(b"!")
        assert pipe.take() == b"done"
        process.wait()


def test_output_printed_by_code_is_written_out_when_the_template_ends_after_its_handle(tmp_path):
    """Print buffers when it writes to a file."""
    with open(tmp_path / "said", "w") as file:
        template = anyfork.Template.new_exec(stdout=file).ready()
    with Watch(template.pid) as process:
        template.execute("print('worked')")
        del template
        process.wait()
    assert (tmp_path / "said").read_text() == "worked\n"


def test_queued_work_is_done_without_any_further_call(pipe):
    # Unlike the original: where the original waits for an event loop, we write at once what the socket takes.
    template = anyfork.Template().execute(SAY, pipe.write, b"done")
    del template
    assert pipe.take() == b"done"


def test_work_that_no_socket_takes_at_once_is_done_with_later_calls_although_its_handle_was_dropped(pipe):
    # Unlike the original: what does not fit is written on by whatever call comes next, on any handle.
    template = anyfork.Template().ready()
    with Watch(template.pid) as process:
        stop(template.pid)
        for _ in range(PIECES):
            template.send(PIECE)
        template.execute(SAY, pipe.write, b"done")
        del template
        os.kill(process.pid, signal.SIGCONT)

        def call_and_look() -> bool:
            anyfork.Template().ready().close()
            return pipe.readable()

        eventually(call_and_look, "the queue was not delivered")
        process.wait()
    assert pipe.take() == b"done"


# --- Failures while a template is prepared ----------------------------------------------------------------------------


def test_code_that_raises_is_an_execute_error_with_the_remote_traceback(make):
    # Unlike the original: an exception in the owner, where the original writes a line to standard error and exits with 0.
    with make().execute("def f():\n    raise KeyError('lost')\nf()") as template:
        with pytest.raises(anyfork.ExecuteError, match="KeyError: 'lost'") as caught:
            template.ready()
        assert "line 2, in f\n    raise KeyError('lost')" in caught.value.remote_traceback


def test_code_that_is_not_python_is_an_execute_error_that_shows_where(make):
    # Unlike the original, on purpose.
    with make().execute("x = 1\nx = = 2") as template:
        with pytest.raises(anyfork.ExecuteError, match="SyntaxError") as caught:
            template.ready()
        assert "line 2\n    x = = 2" in caught.value.remote_traceback


def test_a_missing_module_is_a_preload_error_that_names_it(make):
    # Unlike the original, on purpose.
    with make().preload("json", "no_module_of_that_name") as template:
        with pytest.raises(anyfork.PreloadError, match="no_module_of_that_name") as caught:
            template.ready()
        assert caught.value.module == "no_module_of_that_name"


def test_a_function_is_not_run_in_a_template_that_could_not_be_prepared(pipe):
    # Unlike the original: the original runs nothing either, but its callback gets a socket as if it had.
    process = anyfork.Template().execute("1 / 0").send(pipe.write).start("original_functions:note", b"ran")
    with pytest.raises(anyfork.ExecuteError, match="ZeroDivisionError"):
        process.ready()
    assert pipe.take() == b""


def test_code_that_exits_ends_its_template_and_the_owner_learns_the_exit_code(make):
    # The code is the original's; ours reaches the owner as an error too.
    template = make().execute("raise SystemExit(7)")
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready()
    assert caught.value.status.code == 7


def test_code_that_kills_its_template_shows_the_owner_the_signal(make):
    template = make().execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready()
    assert caught.value.status.signal == signal.SIGKILL


# --- Running ----------------------------------------------------------------------------------------------------------


def test_running_a_function_that_does_not_exist_raises_in_the_owner(make):
    # Unlike the original: an error; the original's callback gets a socket that ends.
    template = make().preload("original_functions")
    with pytest.raises(anyfork.FunctionNotFoundError, match="nothing_of_that_name"):
        template.run("original_functions:nothing_of_that_name")


def test_a_process_whose_function_does_not_exist_ends_with_code_1():
    # Unlike the original: 255 in the original, which is Perl's code; 1 is Python's.
    assert anyfork.Template().start("original_functions:nothing_of_that_name").wait().code == 1


def test_a_process_whose_function_raises_ends_with_code_1_and_the_owner_learns_why(tmp_path):
    # Unlike the original: 255 in the original, and only its standard error knows why.
    with open(tmp_path / "said", "w") as file, anyfork.Template() as template:
        status = template.fork(stderr=file).run("original_functions:fail").wait()
    assert status.code == 1
    assert "ValueError: this function fails on purpose" in status.error


def test_the_traceback_of_a_raising_function_is_written_to_its_standard_error(tmp_path):
    with open(tmp_path / "said", "w") as file, anyfork.Template() as template:
        template.fork(stderr=file).run("original_functions:fail").wait()
    assert (tmp_path / "said").read_text().endswith("ValueError: this function fails on purpose\n")


def test_a_process_whose_function_returns_ends_with_code_0(make):
    assert make().run("original_functions:do_nothing").wait().code == 0


def test_a_channel_is_given_for_functions_that_return_and_for_functions_that_raise(tmp_path):
    with open(tmp_path / "said", "w") as file, anyfork.Template() as template:
        raising = template.fork(stderr=file).run("original_functions:fail")
        returning = template.fork().run("original_functions:do_nothing")
    with raising, returning:
        assert (raising.channel.recv(1), returning.channel.recv(1)) == (b"", b"")


def test_start_returns_before_a_stopped_template_has_entered_the_function(pipe):
    # Unlike the original: start never blocks and promises nothing.
    template = anyfork.Template().preload("original_functions").ready()
    stop(template.pid)
    process = template.start("original_functions:note", pipe.write, b"entered")
    assert state_of(process.pid) == "T"
    assert not pipe.readable()
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait().code == 0
    assert pipe.take() == b"entered"


def test_a_process_is_ready_only_when_its_function_has_been_entered(gate, pipe):
    # Unlike the original: the original calls back when the kernel has the bytes; ready waits for the function itself.
    process = anyfork.Template().execute(WAIT_THEN_SAY, pipe.write, gate.read).start("original_functions:until_end")
    before = process.pid
    gate.write.write(b"!")
    process.ready()
    assert before is None
    assert pipe.readable()  # what was queued before the function has been done
    with process:
        assert title(process.pid).endswith("original_functions:until_end")


def test_a_process_killed_before_it_has_entered_its_function_is_an_error_with_the_signal(pipe):
    # Unlike the original: the original calls back for a killed process as for any other.
    template = anyfork.Template().ready()
    stop(template.pid)
    process = template.start("original_functions:note", pipe.write, b"entered")
    os.kill(template.pid, signal.SIGKILL)
    with pytest.raises(anyfork.DiedBeforeReadyError) as caught:
        process.ready()
    assert caught.value.status.signal == signal.SIGKILL
    assert pipe.take() == b""


def test_a_function_without_anybody_at_the_other_end_reads_the_end_first(make, pipe):
    process = make().start("original_functions:note_end", pipe.write)
    del process
    assert pipe.take() == b"read b''"


def test_a_process_goes_on_when_its_handle_is_dropped(gate, pipe):
    process = (
        anyfork.Template()
        .execute(
            "def work(channel, pipe, gate):\n import os\n os.read(gate.fileno(), 1)\n os.write(pipe.fileno(), b'done')"
        )
        .run("work", pipe.write, gate.read)
    )
    del process
    gc.collect()
    gate.write.write(b"!")
    assert pipe.take() == b"done"


# --- Clones -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def family(pipe) -> tuple[dict[str, object], int]:
    """Return what three processes of one line were given, and the pipe all three got, as a number."""
    first = anyfork.Template().prepare("original_functions:set_generation", 1).send("s1", pipe.write)
    second = first.fork().send("s2").prepare("original_functions:set_generation", 2)
    first.send("x")
    third = first.fork()
    return (
        {
            name: answer_of(template.run("original_functions:tell_arguments"))
            for name, template in (("first", first), ("second", second), ("third", third))
        },
        os.fstat(pipe.write.fileno()).st_ino,
    )


def test_a_clone_has_the_arguments_queued_before_its_birth_and_then_its_own(family):
    told, inode = family
    assert told["second"] == {"generation": 2, "arguments": ["s1", inode, "s2"]}


def test_a_later_clone_has_what_its_template_queued_meanwhile_and_nothing_of_its_sibling(family):
    told, inode = family
    assert told["third"] == {"generation": 1, "arguments": ["s1", inode, "x"]}


def test_a_template_keeps_its_arguments_when_it_is_forked(family):
    told, inode = family
    assert told["first"] == {"generation": 1, "arguments": ["s1", inode, "x"]}


def test_a_process_works_after_its_template_was_dropped_and_keeps_it_as_its_parent():
    # Unlike the original: its parent is not init, since the dropped template stays to reap it.
    template = anyfork.Template().preload("original_functions").ready()
    with template.fork().run("original_functions:tell_pids") as process:
        pid = template.pid
        del template
        assert process.channel.recv(100) == f"{process.pid} {pid}".encode()
        assert parent_of(process.pid) == pid


def test_a_dropped_template_ends_with_the_last_of_its_processes():
    # Unlike the original, on purpose.
    template = anyfork.Template().preload("original_functions").ready()
    with Watch(template.pid) as watch:
        process = template.fork().run("original_functions:until_end")
        del template
        with process:
            assert not watch.ended
        watch.wait()


def test_the_status_of_a_process_is_known_after_its_template_was_dropped():
    """Check what the original cannot tell."""
    with anyfork.Template() as template:
        process = template.fork().run("original_functions:forever")
    process.terminate()
    assert process.wait().signal == signal.SIGTERM


# --- Arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", bytes(range(256)), os.urandom(1000) * 64, os.urandom(64 * MEGABYTE)], ids=["0", "256", "64k", "64M"]
)
def test_bytes_arrive_intact_whatever_their_length_and_values(make, data):
    expected = [len(data), hashlib.sha256(data).hexdigest()]
    assert answer_of(make().send(data).run("original_functions:digest")) == expected


def test_bytes_of_64_megabytes_reach_every_clone_of_a_template_intact():
    # After a fork, the clones share what was sent.
    data = os.urandom(MEGABYTE) * 64
    with anyfork.Template().send(data) as template:
        processes = [template.fork().start("original_functions:digest") for _ in range(3)]
    assert [answer_of(process) for process in processes] == [[len(data), hashlib.sha256(data).hexdigest()]] * 3


@pytest.mark.parametrize("text", ["", "ÿ", "€", "Ελληνικά", "\U0001f40d\0\n", "\udc80"])
def test_text_arrives_as_the_same_text(text):
    # Unlike the original: strings travel as text, beyond the 255th character too, where the original loops forever.
    assert answer_of(anyfork.Template().send(text).run("original_functions:tell_arguments"))["arguments"] == [text]


def test_what_cannot_travel_is_an_error_at_the_call_that_names_the_argument():
    # Unlike the original, on purpose.
    with anyfork.Template() as template, pytest.raises(anyfork.ArgumentError, match=r"argument 2 of send\(\)"):
        template.send("fine", (n for n in range(3)))


def test_arguments_are_sent_on_by_a_template_after_one_of_them_was_refused():
    # Unlike the original: the error concerns one call.
    template = anyfork.Template().send(1)
    with pytest.raises(anyfork.ArgumentError):
        template.send(2, (n for n in range(3)))
    assert answer_of(template.send(3).run("original_functions:tell_arguments"))["arguments"] == [1, 3]


def test_what_the_owner_writes_behind_the_start_is_exactly_what_the_function_reads(make):
    with make().run("original_functions:echo_exactly", 6) as process:
        process.channel.sendall(b"hello\n")
        process.channel.shutdown(socket.SHUT_WR)
        assert receive_all(process.channel) == b"hello\n|"


def test_what_the_function_writes_first_is_exactly_what_the_owner_reads(make):
    # The other way round, and with bytes that look like frames.
    with make().run("original_functions:speak_first") as process:
        assert receive_all(process.channel) == bytes(range(256)) * 4


def test_a_file_closed_by_the_caller_right_after_send_arrives_open(tmp_path):
    # Unlike the original: descriptors are duplicated at the call; the original sends standard input instead.
    (tmp_path / "file").write_text("")
    file = open(tmp_path / "file")
    inode = os.fstat(file.fileno()).st_ino
    template = anyfork.Template().send(file)
    file.close()
    assert answer_of(template.run("original_functions:tell_arguments"))["arguments"] == [inode]


def test_a_file_closed_while_it_waits_in_the_queue_of_a_stopped_template_arrives_open(tmp_path):
    # Unlike the original: also when another file has got its number meanwhile.
    template = anyfork.Template().ready()
    stop(template.pid)
    for _ in range(PIECES):
        template.send(PIECE)
    (tmp_path / "file").write_text("")
    file = open(tmp_path / "file")
    inode, number = os.fstat(file.fileno()).st_ino, file.fileno()
    template.send(file)
    file.close()
    with open(tmp_path / "other", "w") as other:
        assert other.fileno() == number
        os.kill(template.pid, signal.SIGCONT)
        assert answer_of(template.run("original_functions:tell_last")) == inode


def test_a_file_that_is_closed_already_is_an_error_at_the_call(tmp_path):
    # Unlike the original, on purpose.
    file = open(tmp_path / "file", "w")
    file.close()
    with anyfork.Template() as template, pytest.raises(anyfork.ArgumentError, match=r"argument 1 of send\(\).*closed"):
        template.send(file)


def test_code_in_a_template_sees_its_own_arguments_and_leaves_those_of_the_function_alone():
    # Unlike the original: there is no run_args. What was sent belongs to the function, and code gets arguments of its own.
    template = anyfork.Template().send("for the function")
    template.execute("import original_functions; original_functions.generation = args", "for", "the code")
    assert answer_of(template.run("original_functions:tell_arguments")) == {
        "generation": ["for", "the code"],
        "arguments": ["for the function"],
    }


def test_arguments_are_decoded_in_the_process_that_runs_the_function_and_not_in_its_template():
    # Unlike the original: a template cannot look at what was sent, since it never decodes it.
    with anyfork.Template().send(PidOnArrival()) as template:
        processes = [template.fork().start("original_functions:tell_value") for _ in range(2)]
    for process in processes:
        decoded_by, running = answer_of(process)
        assert decoded_by == running


# --- Titles, flags, surroundings --------------------------------------------------------------------------------------


def test_the_title_of_an_executed_template_is_the_owners_pid_and_anyfork_exec():
    # Unlike the original, on purpose.
    with anyfork.Template.new_exec().ready() as template:
        eventually(lambda: title(template.pid) == f"{os.getpid()} anyfork/exec")


def test_the_title_of_a_forked_template_is_the_owners_pid_and_anyfork():
    # Unlike the original, on purpose.
    with anyfork.Template().ready() as template:
        eventually(lambda: title(template.pid) == f"{os.getpid()} anyfork")


def test_the_title_of_a_fork_of_a_fork_begins_with_the_pid_of_the_same_owner():
    with anyfork.Template.new_exec() as first, first.fork() as second, second.fork().ready() as third:
        eventually(lambda: title(third.pid) == f"{os.getpid()} anyfork")


def test_the_title_of_a_running_process_is_the_owners_pid_and_the_function(make):
    # Unlike the original: with the module.
    with make().run("original_functions:until_end") as process:
        assert title(process.pid) == f"{os.getpid()} original_functions:until_end"


def test_the_short_name_of_a_process_is_the_beginning_of_the_title_that_was_asked_for():
    # Unlike the original: the kernel keeps 15 bytes for programs like top; without title= they are left as they were.
    with (
        anyfork.Template() as template,
        template.fork(title="a title of our own").run("original_functions:until_end") as process,
    ):
        assert Path(f"/proc/{process.pid}/comm").read_text() == "a-title-of-our-\n"


def test_the_owners_end_of_a_channel_blocks_and_is_closed_by_exec(make):
    # Unlike the original: it blocks, as this is the blocking face; the original's does not.
    with make().run("original_functions:do_nothing") as process:
        assert (process.channel.getblocking(), os.get_blocking(process.channel.fileno())) == (True, True)
        assert not os.get_inheritable(process.channel.fileno())


def test_the_functions_end_of_its_channel_and_what_was_sent_block_and_are_closed_by_exec(make, pipe):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for file in (theirs, pipe.write):
            os.set_inheritable(file.fileno(), True)
        template = make().send(theirs, pipe.write)
        assert answer_of(template.run("original_functions:tell_flags")) == [[True, True]] * 3


@pytest.fixture
def places(tmp_path, monkeypatch) -> dict[str, list[str]]:
    """Return where a fork of an old template and a new interpreter are once the owner has moved, and its old place."""
    monkeypatch.setenv("ANYFORK_TEST_PLACE", "old")
    before = os.getcwd()
    with anyfork.Template.new_exec().preload("original_functions").ready() as template:
        monkeypatch.setenv("ANYFORK_TEST_PLACE", "new")
        monkeypatch.chdir(tmp_path)
        return {
            "fork": answer_of(template.fork().run("original_functions:tell_place")),
            "new_exec": answer_of(anyfork.Template.new_exec().run("original_functions:tell_place")),
            "before": [before, "old"],
            "after": [os.getcwd(), "new"],
        }


def test_a_fork_sees_the_directory_and_environment_that_its_template_began_with(places):
    assert places["fork"] == places["before"]


def test_a_fresh_interpreter_sees_the_directory_and_environment_of_the_moment(places):
    assert places["new_exec"] == places["after"]


# --- Many at once -----------------------------------------------------------------------------------------------------

THOUSAND = '''
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
import anyfork

CODE = """
import os
def tell(channel):
    channel.sendall(b"%d" % os.getpid())
"""

def pids(templates):
    processes = [template.start("tell") for template in templates]
    told = []
    for process in processes:
        with process:
            told.append(int(process.channel.recv(100)))
    assert told == [process.pid for process in processes]
    return told

pool = anyfork.Template().execute(CODE)
print(len(set(pids([MAKE for _ in range(1000)]))))
'''


@pytest.mark.slow
# Four descriptors each, all at once: the limit that root has set for this machine is not to be raised by a test.
@pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096, reason="a thousand processes need 4,000 descriptors"
)
@pytest.mark.parametrize("what", ["anyfork.Template().execute(CODE)", "pool.fork()"], ids=["Template", "fork"])
def test_a_thousand_processes_asked_for_in_a_row_all_answer(what):
    # Nothing is waited for between them.
    with other_owner(THOUSAND.replace("MAKE", what)) as owner:
        assert owner.stdout.read() == b"1000\n"
    assert owner.returncode == 0


# --- The default template is killed ----------------------------------------------------------------------------------


def default_template_pid() -> int:
    with anyfork.Template().ready() as template:
        return parent_of(template.pid)


def test_a_killed_default_template_is_replaced_by_the_next_template_of_the_program():
    # Unlike the original: the original's next process has a socket that never ends.
    killed = default_template_pid()
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    with anyfork.Template().run("original_functions:tell_pids") as process:
        assert int(process.channel.recv(100).split()[1]) != killed


def test_a_killed_default_template_leaves_no_zombie_when_it_is_replaced():
    # Unlike the original, on purpose.
    killed = default_template_pid()
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    anyfork.Template().ready().close()
    assert not Path(f"/proc/{killed}").exists()


def test_what_a_default_template_had_not_done_when_it_was_killed_is_an_error_and_no_endless_wait():
    # Unlike the original, on purpose.
    killed = default_template_pid()
    stop(killed)
    template = anyfork.Template()
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(anyfork.TemplateDiedError):
        template.ready()
    template.close()
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    anyfork.Template().ready().close()


def test_processes_of_a_killed_default_template_go_on_and_their_status_is_unknown():
    # Unlike the original: a status is never invented.
    killed = default_template_pid()
    process = anyfork.Template().run("original_functions:shout")
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    with process:
        process.channel.sendall(b"still there\n")
        assert process.channel.recv(100) == b"STILL THERE\n"
        process.channel.close()
        assert not process.wait().known


# --- Signals ----------------------------------------------------------------------------------------------------------


def test_an_idle_template_survives_a_signal_that_its_code_handles(make, pipe):
    # Unlike the original: the original's ends without a word.
    handle = "import os, signal; signal.signal(signal.SIGUSR1, lambda *_, fd=args[0].fileno(): os.write(fd, b'!'))"
    with make().execute(handle, pipe.write).ready() as template:
        for _ in range(3):
            os.kill(template.pid, signal.SIGUSR1)
            assert pipe.readable(DEADLINE)
            assert pipe.read.read(1) == b"!"
        template.ready()
        assert template.fork().run("original_functions:do_nothing").wait().code == 0


# --- Moving a handle --------------------------------------------------------------------------------------------------


def test_an_idle_template_is_detached_and_goes_on_behind_its_socket():
    template = anyfork.Template().preload("original_functions").ready()
    pid = template.pid
    with anyfork.Template.from_socket(template.detach()) as again:
        assert again.ready().pid == pid


def test_a_busy_template_is_detached_without_waiting_for_its_work(pipe, gate):
    # Unlike the original: all that was queued is delivered when detach returns; the work itself need not be done.
    template = anyfork.Template().execute(WAIT_THEN_SAY, pipe.write, gate.read).send("still there")
    sock = template.detach()
    assert not pipe.readable()
    gate.write.write(b"!")
    process = anyfork.Template.from_socket(sock).run("original_functions:tell_arguments")
    assert pipe.readable()
    assert answer_of(process)["arguments"] == ["still there"]


def test_a_detached_handle_refuses_further_use():
    # Unlike the original: an error, where the original's object does what it likes.
    template = anyfork.Template().ready()
    with template.detach(), pytest.raises(anyfork.HandleError):
        template.send(1)


# --- The limit of descriptors -----------------------------------------------------------------------------------------


@pytest.fixture
def no_descriptors() -> Iterator[list[int]]:
    """Bring this program to its limit of open files; closing some of the list makes room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 16, hard))
    held: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    try:
        yield held
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


def open_descriptors() -> list[int]:
    """Return the open descriptors. Asks for each, since listing them takes a descriptor."""
    found = []
    for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found


@pytest.mark.parametrize("free", range(4))
def test_a_program_at_its_limit_of_descriptors_gets_an_error_at_the_call_and_loses_none(no_descriptors, free):
    # A template needs two pairs of sockets, so four descriptors.
    for _ in range(free):
        os.close(no_descriptors.pop())
    before = open_descriptors()
    with pytest.raises(OSError, match="Too many open files") as caught:
        anyfork.Template()
    assert caught.value.errno == errno.EMFILE
    assert open_descriptors() == before


def test_a_program_that_was_at_its_limit_of_descriptors_goes_on_when_there_is_room_again(no_descriptors):
    # Unlike the original, on purpose.
    with pytest.raises(OSError, match="Too many open files"):
        anyfork.Template()
    while no_descriptors:
        os.close(no_descriptors.pop())
    assert anyfork.Template().run("original_functions:do_nothing").wait().code == 0


# --- The owner is killed ----------------------------------------------------------------------------------------------

KILLED = """
import json, sys
import anyfork
from pathlib import Path

pool = anyfork.Template().preload("original_functions").ready()
executed = anyfork.Template.new_exec().ready()
nested = pool.fork().fork().ready()
running = pool.fork().run("original_functions:forever")
stubborn = executed.fork().run("original_functions:forever_whatever_comes")
deep = nested.fork().run("original_functions:forever_whatever_comes")
for process in (running, stubborn, deep):
    process.channel.recv(1)
default = int(Path(f"/proc/{pool.pid}/stat").read_text().rpartition(")")[2].split()[1])
pids = [default, pool.pid, executed.pid, nested.pid, running.pid, stubborn.pid, deep.pid]
print(json.dumps(pids), flush=True)
sys.stdin.read()
"""


KINDS = ("default", "forked", "executed", "nested", "running", "ignores SIGTERM", "ignores it deep down")


@pytest.mark.parametrize("which", range(len(KINDS)), ids=KINDS)
def test_templates_and_processes_of_every_kind_vanish_with_an_owner_that_is_killed(which):
    read, write = os.pipe()
    with other_owner(KILLED, stdin=read) as owner:
        os.close(read)
        with contextlib.ExitStack() as stack:
            watches = [stack.enter_context(Watch(pid)) for pid in json.loads(owner.stdout.readline())]
            owner.kill()
            try:
                watches[which].wait()
            finally:
                for watch in watches:
                    watch.kill()
    os.close(write)


CLEANING = """
import os, signal, sys
import anyfork

CODE = '''
import os, signal, sys

def work(channel):
    def clean_up(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that is just born may get it from two sides
        sys.exit(print("cleaned up"))

    signal.signal(signal.SIGTERM, clean_up)
    print("at work", os.getppid(), flush=True)
    while True:
        signal.pause()
'''
process = anyfork.Template().execute(CODE).run("work")
sys.stdin.read()
"""


def test_a_running_process_can_clean_up_when_its_owner_is_killed():
    # Unlike the original: SIGTERM comes first, here from the kernel; the template, which would send SIGKILL after a
    # time of grace, stands still.
    read, write = os.pipe()
    with other_owner(CLEANING, stdin=read) as owner:
        os.close(read)
        template = int(owner.stdout.readline().removeprefix(b"at work "))
        stop(template)
        try:
            owner.kill()
            assert owner.stdout.readline() == b"cleaned up\n"
        finally:
            os.kill(template, signal.SIGCONT)
        assert read_to_end(owner.stdout) == b""
    os.close(write)


DETACHED = """
import sys
import anyfork
process = anyfork.Template().fork(detached=True).run("original_functions:forever")
process.channel.recv(1)
print(process.pid, flush=True)
sys.stdin.read()
"""


def test_a_detached_process_survives_an_owner_that_is_killed():
    # Unlike the original, on purpose.
    read, write = os.pipe()
    with other_owner(DETACHED, stdin=read) as owner:
        os.close(read)
        pid = int(owner.stdout.readline())
        with Watch(pid) as process, Watch(parent_of(pid)) as template:
            owner.kill()
            template.wait()
            assert not process.ended
            os.kill(pid, signal.SIGKILL)
            process.wait()
    os.close(write)
