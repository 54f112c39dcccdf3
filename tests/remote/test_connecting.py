"""How a connection comes to be, or why it does not: each failure is an error of its own, within the time given."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import sys
import time

import anyio
import far_side
import machines
import pytest
from conftest import eventually, owned, wait_for_end
from deadlines import DEADLINE
from owner_side import read_all

import anyfork
from anyfork import aio

remote = machines.remote
SHORT = 0.5  # seconds of a deadline that has to pass


def works(template):
    """Return whether a process of this template can be talked with."""
    with template.run(far_side.identify, 1) as process:
        return pickle.loads(read_all(process.channel))[3] == (1,)


def why(command, **options):
    """Return the error of a template that never comes to be; the same for whoever asks again."""
    with anyfork.RemoteTemplate(command, **options) as template:
        with pytest.raises(anyfork.RemoteTemplateError) as caught:
            template.ready(DEADLINE)
        with pytest.raises(type(caught.value)):
            template.fork().run(far_side.identify, timeout=DEADLINE)
    return caught.value


# --- Commands that do not lead to a Python ----------------------------------------------------------------------


def test_a_command_that_does_not_exist_is_a_connect_error():
    error = why(["/no/such/command", "host", "python3"])
    assert type(error) is anyfork.ConnectError
    assert "'/no/such/command' cannot be executed" in str(error)


def test_a_command_that_may_not_be_executed_is_a_connect_error(tmp_path):
    (tmp_path / "command").write_text("")
    assert "Permission denied" in str(why([str(tmp_path / "command"), "python3"]))


def test_a_command_that_fails_is_a_connect_error_with_its_words_and_its_exit_code():
    error = why(["sh", "-c", "echo the door is closed >&2; exit 5; python3"])
    assert type(error) is anyfork.ConnectError
    assert "exit code 5" in str(error)
    assert error.stderr == "the door is closed"


def test_a_shell_that_finds_no_python_is_a_remote_python_error():
    error = why(["sh", "-c", "exec no-such-python"])
    assert type(error) is anyfork.RemotePythonError
    assert "exit code 127" in str(error)
    assert "not found" in error.stderr


def test_a_command_that_ends_by_a_signal_is_a_connect_error():
    assert "signal 9" in str(why(["sh", "-c", "kill -KILL $$; python3"]))


def test_something_that_is_no_python_and_ends_is_a_connect_error():
    assert type(why(["cat", "/dev/null"])) is anyfork.ConnectError


def test_something_that_is_no_python_and_talks_without_end_is_a_remote_python_error():
    error = why(["sh", "-c", "yes; python3"])
    assert type(error) is anyfork.RemotePythonError
    assert "without an answer" in str(error)


def test_an_echo_is_no_answer():
    error = why(["sh", "-c", "cat; : python3"], connect_timeout=SHORT)
    assert type(error) is anyfork.ConnectTimeoutError


def test_a_command_that_says_nothing_is_given_up_after_the_time_given_and_killed(tmp_path):
    before = time.monotonic()
    error = why(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000; python3"], connect_timeout=SHORT)
    assert time.monotonic() - before < DEADLINE
    assert type(error) is anyfork.ConnectTimeoutError
    assert isinstance(error, TimeoutError)
    assert "0.5 seconds have passed" in str(error)
    pid = int((tmp_path / "pid").read_text())
    wait_for_end(pid)


# Some builds have zlib in the interpreter, so no file can take its place.
HANGING = """
import sys, time
class Hanging:
    def find_spec(name, path, target):
        if name == "zlib":
            time.sleep(1000)
sys.meta_path.insert(0, Hanging)
"""


@pytest.mark.untraced
def test_a_python_that_hangs_after_its_answer_is_given_up_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    error = why(["env", f"PYTHONPATH={tmp_path}", sys.executable], connect_timeout=SHORT * 4)
    assert type(error) is anyfork.ConnectTimeoutError
    assert "before the Python there was ready" in str(error)


def test_a_python_that_cannot_do_without_a_module_says_which(tmp_path):
    (tmp_path / "_socket.py").write_text("raise ImportError('no sockets here')")
    error = why(["env", f"PYTHONPATH={tmp_path}", sys.executable, "-c", "0"])
    assert type(error) is anyfork.ConnectError


def test_a_command_that_closes_its_output_and_stays_is_a_connect_error():
    error = why(["sh", "-c", "exec >&- <&-; sleep 1000; python3"])
    assert type(error) is anyfork.ConnectError
    assert "closed the connection" in str(error)


def test_closing_a_template_while_it_connects_ends_the_command(tmp_path):
    template = anyfork.RemoteTemplate(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000; python3"])
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    template.close()
    del template
    gc.collect()
    pid = int((tmp_path / "pid").read_text())
    wait_for_end(pid)


async def close_while_it_connects(command, *directories):
    """Ask a template and a fork of it each for a directory, and close both at once, in the async face."""
    async with aio.RemoteTemplate(command) as template:
        for asked, directory in zip((template, template.fork()), directories, strict=True):
            asked.execute("import os; os.mkdir(args[0])", str(directory))


def test_what_was_asked_of_a_template_that_was_closed_while_it_connects_is_still_done(tmp_path, gate):
    command = ["sh", "-c", f"read go < {gate.path}; exec {sys.executable}"]
    with anyfork.RemoteTemplate(command) as template:
        for asked, name in ((template, "by it"), (template.fork(), "by a fork")):
            asked.execute("import os; os.mkdir(args[0])", str(tmp_path / name))
    del asked
    directories = [tmp_path / "by an async one", tmp_path / "by its fork"]
    anyio.run(close_while_it_connects, command, *directories)
    gc.collect()
    os.write(gate.fileno(), b"go\n" * 2)
    names = {"by it", "by a fork", "by an async one", "by its fork"}
    eventually(lambda: set(os.listdir(tmp_path)) == names, lambda: str(os.listdir(tmp_path)))


def test_a_closed_template_that_does_not_connect_says_what_is_not_done(gate, capfd):
    with anyfork.RemoteTemplate(["sh", "-c", f"read go < {gate.path}; exit 3; python3"]) as template:
        template.execute("pass")
    os.write(gate.fileno(), b"go\n")
    said = ""

    def all_said():
        nonlocal said
        said += capfd.readouterr().err
        return "\n" in said

    eventually(all_said)
    assert said == (
        "anyfork: a template that nobody waited for failed: 'sh' has ended with exit code 3 before a Python has answered\n"
    )


def test_a_deadline_of_ready_leaves_the_connection_alone():
    with anyfork.RemoteTemplate(["sh", "-c", "sleep 0.3; exec " + " ".join(machines.PYTHON)]) as template:
        with pytest.raises(TimeoutError):
            template.ready(0.01)
        assert works(template)


def test_errors_of_connecting_survive_pickle():
    error = why(["sh", "-c", "exit 3; python3"])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.host, again.stderr) == (type(error), str(error), error.host, error.stderr)


# --- What makes no sense ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [anyfork.RemoteTemplate, aio.RemoteTemplate])
@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("ssh host python3", {}, "a sequence of arguments"),
        ([], {}, "at least the name"),
        ([""], {}, "at least the name"),
        (["ssh", 3], {}, "strings or paths"),
        (["python3"], {"connect_timeout": 0}, "connect_timeout as a positive number"),
        (["python3"], {"connect_timeout": "3"}, "connect_timeout as a positive number"),
        (["python3"], {"keep_alive": -1.0}, "keep_alive as a positive number"),
        (["python3"], {"keep_alive": float("nan")}, "keep_alive as a positive number"),
        (["python3"], {"keep_alive": True}, "keep_alive as a positive number"),
    ],
)
def test_a_command_or_an_option_that_makes_no_sense_is_refused_at_once(make, command, options, message):
    with pytest.raises(anyfork.ArgumentError, match=message):
        make(command, **options)


@pytest.mark.parametrize("cls", [anyfork.RemoteTemplate, aio.RemoteTemplate])
def test_what_needs_this_machine_is_refused(cls):
    with pytest.raises(anyfork.ArgumentError, match="named in the command"):
        cls.new_exec()
    a, b = socket.socketpair()
    with a, b, pytest.raises(anyfork.ArgumentError, match="cannot be handed over"):
        cls.from_socket(a)


def test_a_remote_template_is_not_detached(remote):
    with pytest.raises(anyfork.HandleError, match="belongs to this process"):
        remote.detach()
    assert works(remote)


@pytest.mark.parametrize("name", ["send", "execute", "prepare", "start", "run", "fork"])
def test_a_descriptor_is_refused_at_the_call_and_nothing_is_lost(remote, name):
    remote.send("before")
    with open(os.devnull) as file:
        calls = {
            "send": lambda: remote.send(file),
            "execute": lambda: remote.execute("0", file),
            "prepare": lambda: remote.prepare(far_side.double, [file]),
            "start": lambda: remote.start(far_side.identify, file),
            "run": lambda: remote.run(far_side.identify, anyfork.Descriptor(file.fileno())),
            "fork": lambda: remote.fork(stdin=file),
        }
        with pytest.raises(anyfork.ArgumentError, match="descriptors do not travel to another machine"):
            calls[name]()
    with remote.run(far_side.identify) as process:
        assert pickle.loads(read_all(process.channel))[3] == ("before",)


def test_a_descriptor_among_the_arguments_of_a_call_is_refused(remote):
    with anyfork.Worker(remote) as worker, open(os.devnull) as file:
        with pytest.raises(anyfork.ArgumentError, match="a descriptor cannot go to another machine"):
            worker.call(far_side.double, file)
        with pytest.raises(anyfork.ResultError, match="a descriptor cannot go to another machine"):
            worker.call(open, os.devnull)
        assert worker.call(far_side.double, 2) == 4


def test_a_one_time_call_takes_no_descriptor(remote):
    with open(os.devnull) as file, pytest.raises(anyfork.ArgumentError, match="descriptors do not travel"):
        anyfork.call(far_side.double, file, template=remote)
    assert anyfork.call(far_side.double, 3, template=remote) == 6


# --- Noise, and pieces ------------------------------------------------------------------------------------------

NOISE = {
    "a line": "echo Welcome",
    "no end of line": "printf 'Welcome to'",
    "many lines": "seq 20000",
    "nothing but ends of lines": "printf '\\n\\n\\n'",
    "what looks like an answer": "printf '\\n<0123456789abcdef>python 3 11 2 host\\n'",
    "zero bytes and no UTF-8": "printf '\\0\\377\\376\\n<'",
    "on both sides": "echo Welcome; echo Warning >&2",
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_noise_before_the_start_is_passed_over(noise):
    with anyfork.RemoteTemplate(["sh", "-c", f"{noise}; exec {' '.join(machines.PYTHON)}"]) as template:
        assert works(template)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 4095])
def test_a_connection_survives_any_split_of_the_stream(size):
    forwarder = [sys.executable, f"{machines.HERE}/remote/forwarder.py", str(size)]
    with anyfork.RemoteTemplate([*forwarder, *machines.PYTHON], connect_timeout=DEADLINE) as template:
        assert works(template.fork())
        with template.run(far_side.echo) as process:
            process.channel.sendall(bytes(range(256)) * 8)
            process.channel.shutdown(socket.SHUT_WR)
            assert read_all(process.channel) == bytes(range(256)) * 8


def test_what_arrives_otherwise_than_it_was_sent_is_not_run():
    forwarder = [sys.executable, f"{machines.HERE}/remote/forwarder.py", "65536@20000"]
    error = why([*forwarder, *machines.PYTHON])
    assert type(error) is anyfork.ConnectError
    assert "arrived damaged" in str(error)


def test_titles_on_the_other_side_name_the_owner_too(remote):
    remote.ready()
    assert [title.partition(" ")[2] for title in owned(os.getpid()).values()].count("anyfork/relay") >= 1
