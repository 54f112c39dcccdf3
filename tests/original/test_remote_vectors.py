"""AnyEvent::Fork::Remote, section 4 of its specification and the vectors M1 to M5; its four defects are not here."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from pathlib import Path

import pytest
from conftest import children, descendants, eventually
from deadlines import DEADLINE
from owner_side import HERE

import anyfork

PYTHON = ["env", f"PYTHONPATH={HERE}:{HERE}/remote", sys.executable]


def said_by(process):
    """Return all that a process sends, unpickled."""
    with process, process.channel.makefile("rb") as file:
        return pickle.loads(file.read())


def identity(template, *values):
    """Return the pid, the parent and the arguments of a process."""
    return said_by(template.send(*values).fork().run("far_side:identify"))[1:]


# --- 4.1 Constructors -------------------------------------------------------------------------------------------


def test_a_command_that_ends_in_an_interpreter_which_reads_its_program_from_standard_input():
    with anyfork.RemoteTemplate([*PYTHON, "-"]) as template:
        assert identity(template, "a", 1)[2] == ("a", 1)


def test_the_command_is_found_by_path(tmp_path, monkeypatch):
    (tmp_path / "lead-there").write_text(f'#!/bin/sh\nexec {" ".join(PYTHON)} "$@"\n')
    (tmp_path / "lead-there").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with anyfork.RemoteTemplate(["lead-there"]) as template:
        assert identity(template)[2] == ()


def test_fork_copies_code_and_arguments_and_is_a_real_fork_of_the_prepared_template():
    with anyfork.RemoteTemplate(PYTHON) as template:
        template.execute("import far_side; far_side.mark = 7").send("first")
        clone = template.fork().send("second")
        pid, parent, values = said_by(clone.fork().run("far_side:identify"))[1:]
        assert values == ("first", "second")
        assert parent == clone.ready().pid
        assert pid != parent
        clone.close()
        assert identity(template)[2] == ("first",)


def test_the_pid_is_known_where_the_original_has_none():
    with anyfork.RemoteTemplate(PYTHON) as template:
        assert template.pid is None
        assert template.ready().pid == identity(template)[1]


def test_descriptors_are_refused_at_the_call(tmp_path):
    with anyfork.RemoteTemplate(PYTHON) as template, (tmp_path / "file").open("w") as file:
        with pytest.raises(anyfork.ArgumentError):
            template.send(file)


# --- 4.2 and M1 to M5: the boot --------------------------------------------------------------------------------


def test_m1_the_program_is_text_that_needs_no_quoting_and_functions_get_their_arguments():
    values = ("'single'", '"double"', "$HOME `ls` \\ ; & | * ?", "\x10\0\x00", "größer\n")
    with anyfork.RemoteTemplate(["sh", "-c", " ".join(PYTHON)]) as template:
        assert identity(template, *values)[2] == values


def test_m2_noise_before_the_answer_is_passed_over():
    with anyfork.RemoteTemplate(["sh", "-c", f"cat /etc/passwd; echo 'motd'; {' '.join(PYTHON)}"]) as template:
        assert identity(template)[2] == ()


def test_m3_a_missing_command_is_an_error_of_the_next_wait():
    with anyfork.RemoteTemplate(["/no/such/command"]) as template, pytest.raises(anyfork.ConnectError):
        template.ready(DEADLINE)


def test_m4_code_that_raises_is_an_error_with_its_traceback():
    with anyfork.RemoteTemplate(PYTHON) as template:
        template.execute("raise LookupError('in vain')")
        with pytest.raises(anyfork.ExecuteError, match="in vain") as caught:
            template.run("far_side:identify", timeout=DEADLINE)
        assert "Traceback" in caught.value.remote_traceback


def test_m5_a_megabyte_of_code_is_executed():
    code = "size = 0\n" + "size += 1  # and so on\n" * 50_000
    assert len(code) > 1_000_000
    with anyfork.RemoteTemplate(PYTHON) as template:
        template.execute(code).execute("import far_side; far_side.size = size")
        with anyfork.Worker(template) as worker:
            assert worker.call("builtins:eval", "__import__('far_side').size") == 50_000


# --- 4.3 Run functions ------------------------------------------------------------------------------------------


def test_a_function_gets_one_channel_for_both_directions_also_where_there_are_two_pipes():
    command = ["sh", "-c", f'cat | {" ".join(PYTHON)} -c "$0" "$@" | cat']
    # Between two pipes the interpreter does not stand at the end: what makes it listen is given by hand.
    from _anyfork_child.remote.bootstrap import BOOT

    command = ["sh", "-c", f"cat | {' '.join(PYTHON)} -c {BOOT} | cat; : python3"]
    with anyfork.RemoteTemplate(command) as template, template.run("far_side:echo") as process:
        process.channel.sendall(b"both ways")
        process.channel.shutdown(socket.SHUT_WR)
        assert process.channel.makefile().read() == "both ways"


def test_the_end_of_the_stream_reaches_the_function_which_ends():
    with anyfork.RemoteTemplate(PYTHON) as template:
        process = template.run("far_side:echo")
        process.channel.shutdown(socket.SHUT_WR)
        assert process.channel.recv(1) == b""
        assert process.wait(DEADLINE).code == 0
        process.close()


def test_calls_and_their_events_work_as_with_any_template():
    with anyfork.RemoteTemplate(PYTHON) as template, anyfork.Worker(template) as worker:
        assert worker.call("far_side:double", 4) == 8
        assert list(worker.map("far_side:double", range(10))) == list(range(0, 20, 2))


# --- 4.4 Defects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\\\\b", "ends in \\", "\\", "'\\'", "\x10\\\x10"])
def test_backslashes_in_strings_arrive_as_they_are(text):
    with anyfork.RemoteTemplate(PYTHON) as template:
        template.execute("import far_side; far_side.text = args[0]", text)
        with anyfork.Worker(template) as worker:
            assert worker.call("builtins:eval", "__import__('far_side').text") == text


def test_the_answer_is_recognised_over_several_reads():
    with anyfork.RemoteTemplate([sys.executable, f"{HERE}/remote/forwarder.py", "1", *PYTHON]) as template:
        assert identity(template)[2] == ()


def test_no_zombie_of_a_command_is_left():
    def zombies():
        return [text for text in descendants().values() if text.startswith("Z")]

    for command in ([*PYTHON], ["sh", "-c", "exit 3; python3"]):
        template = anyfork.RemoteTemplate(command)
        try:
            template.run("far_side:identify").close()
        except anyfork.ConnectError:
            pass
        del template
    eventually(lambda: not zombies(), lambda: f"zombies: {zombies()}")
    assert all(Path(f"/proc/{pid}").exists() for pid in children(os.getpid()))


def test_standard_input_and_output_of_the_owner_are_not_touched():
    before = [os.fstat(fd)[:3] for fd in (0, 1)]
    with anyfork.RemoteTemplate(PYTHON) as template:
        assert [os.fstat(fd)[:3] for fd in (0, 1)] == before
        template.ready()
    assert [os.fstat(fd)[:3] for fd in (0, 1)] == before
