"""The examples of AnyEvent::Fork's manual, and the problems it warns of, each in Python and run for real."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from conftest import eventually
from deadlines import DEADLINE
from original_functions import receive_all
from original_owner import Pipe, other_owner
from procfs import parent_of

import anyfork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVERS = 10


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=64)


# --- A single new process that runs a worker function --------------------------------------------------------------


def test_a_single_process_runs_a_worker_function_connected_to_its_owner():
    process = anyfork.Template().preload("original_functions").run("original_functions:shout")
    with process, process.channel.makefile("rw", encoding="utf-8") as lines:
        answers = []
        for line in ("a first line\n", "größer\n"):
            lines.write(line)
            lines.flush()
            answers.append(lines.readline())
    assert answers == ["A FIRST LINE\n", "GRÖSSER\n"]


def test_a_single_worker_ends_with_code_0_when_its_owner_closes_the_channel():
    process = anyfork.Template().preload("original_functions").run("original_functions:shout")
    process.channel.close()
    assert process.wait().code == 0


# --- Ten servers that accept on one listening socket -------------------------------------------------------------


@pytest.fixture
def servers() -> Iterator[tuple[int, list[anyfork.Process]]]:
    """Yield a port, and ten web servers on it, whose template is gone by now."""
    listener = listen()
    port = listener.getsockname()[1]
    with anyfork.Template().preload("http.server", "original_functions").send(listener) as pool:
        listener.close()  # what was sent is the pool's own
        processes = [pool.fork().send(number).start("original_functions:serve_http") for number in range(SERVERS)]
    try:
        for process in processes:
            process.ready()
        yield port, processes
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            process.close()


class Client:
    """A web client with one connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)

    def ask(self, path: str, body: str = "") -> dict[str, object]:
        """Return the decoded answer to one request."""
        self._connection.request("POST", path, body.encode())
        response = self._connection.getresponse()
        assert (response.status, response.version) == (200, 11)
        said: dict[str, object] = json.loads(response.read())
        return said

    def close(self) -> None:
        self._connection.close()


def test_ten_servers_on_one_socket_answer_ten_clients_at_once_from_ten_processes(servers):
    port, processes = servers
    with contextlib.ExitStack() as stack:
        # A server keeps to a connection as long as it is open, so ten open ones need ten servers.
        answers = [stack.enter_context(contextlib.closing(Client(port))).ask("/") for _ in range(SERVERS)]
    assert {answer["pid"] for answer in answers} == {process.pid for process in processes}


def test_each_server_has_the_number_that_was_sent_after_the_fork(servers):
    port, processes = servers
    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(contextlib.closing(Client(port))).ask("/") for _ in range(SERVERS)]
    assert {(answer["number"], answer["pid"]) for answer in answers} == {
        (number, process.pid) for number, process in enumerate(processes)
    }


def test_a_server_answers_all_requests_of_one_connection_with_their_own_contents(servers):
    port, _ = servers
    with contextlib.closing(Client(port)) as client:
        answers = [client.ask(f"/page/{n}", "ä" * n) for n in range(20)]
    assert [(answer["path"], answer["received"]) for answer in answers] == [(f"/page/{n}", "ä" * n) for n in range(20)]
    assert len({answer["pid"] for answer in answers}) == 1


def test_a_hundred_clients_one_after_the_other_are_all_answered(servers):
    port, processes = servers
    pids = set()
    for number in range(100):
        with contextlib.closing(Client(port)) as client:
            pids.add(client.ask(f"/{number}")["pid"])
    assert pids <= {process.pid for process in processes}


def test_clients_are_answered_when_only_one_of_ten_servers_is_left(servers):
    port, processes = servers
    for process in processes[1:]:
        process.kill()
        process.wait()
    with contextlib.closing(Client(port)) as client:
        assert client.ask("/")["pid"] == processes[0].pid


def test_a_server_that_closes_its_channel_shows_its_owner_the_end_and_goes_on(servers):
    port, processes = servers
    assert [receive_all(process.channel) for process in processes] == [b""] * SERVERS
    for process in processes:
        process.channel.close()
    with contextlib.closing(Client(port)) as client:
        assert client.ask("/after/the/end/of/the/channel")["path"] == "/after/the/end/of/the/channel"


def test_terminated_servers_end_by_the_signal_they_were_sent(servers):
    _, processes = servers
    for process in processes:
        process.terminate()
    assert [process.wait().signal for process in processes] == [signal.SIGTERM] * SERVERS


def test_nobody_listens_any_more_when_the_last_server_is_gone(servers):
    port, processes = servers
    for process in processes:
        process.kill()
        process.wait()

    def connects() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
        except ConnectionRefusedError:
            return False
        except ConnectionResetError:  # it was closed in the middle of this
            return True
        return True

    # The template, closed long ago, holds the socket until it has seen its last server end.
    eventually(lambda: not connects(), "somebody still listens")


# --- A faster fork and exec --------------------------------------------------------------------------------------

SHELL = ["/bin/sh", "-c", "echo to the file; echo to the channel >&2; exit 3"]
EXECUTE_HELPER = """
import os

def become(channel, output, *command):
    os.dup2(output.fileno(), 1)
    os.dup2(channel.fileno(), 2)
    os.execv(command[0], command)
"""


@pytest.fixture(params=["a function that redirects and executes", "run_program"])
def executed(request, tmp_path: Path) -> Iterator[tuple[anyfork.Process, Path]]:
    """Yield the shell command, with its standard output in a file and its standard error on the channel."""
    log = tmp_path / "log"
    with open(log, "w") as output, anyfork.Template() as template:
        if request.param == "run_program":
            process = template.fork(stdout=output, stderr=anyfork.CHANNEL).run_program(SHELL)
        else:
            process = template.execute(EXECUTE_HELPER).send(output).send(*SHELL).run("become")
    with process:
        yield process, log


def test_an_executed_program_writes_its_standard_output_to_the_file(executed):
    process, log = executed
    process.wait()
    assert log.read_text() == "to the file\n"


def test_an_executed_program_writes_its_standard_error_to_the_channel(executed):
    process, _ = executed
    assert receive_all(process.channel) == b"to the channel\n"


def test_the_exit_code_of_an_executed_program_reaches_the_owner(executed):
    process, _ = executed
    assert process.wait().code == 3


def test_the_environment_of_a_program_is_prepared_before_it_is_executed(tmp_path):
    with open(tmp_path / "log", "w") as output, anyfork.Template() as template:
        clone = template.fork(cwd=tmp_path, env={"GREETING": "hi"}, stdout=output)
        with clone.run_program(["/bin/sh", "-c", "echo $GREETING from $(pwd -P)"]) as process:
            process.wait()
    assert (tmp_path / "log").read_text() == f"hi from {tmp_path.resolve()}\n"


# --- Code that is kept in a string -------------------------------------------------------------------------------

WORKER_CODE = '''
"""A worker whose code is in no file."""

def _double(text):
    return text * 2

def doit(channel, *words):
    channel.sendall(" ".join(_double(word) for word in words).encode())
'''


def test_a_function_whose_code_is_a_string_is_run_by_its_name():
    with anyfork.Template().execute(WORKER_CODE).run("doit", "ab", "c") as process:
        assert receive_all(process.channel) == b"abab cc"


def test_code_kept_in_a_string_is_compiled_once_for_all_processes_forked_from_it():
    with anyfork.Template().execute(WORKER_CODE) as template:
        processes = [template.fork().start("doit", str(number)) for number in range(5)]
    answers = []
    for process in processes:
        with process:
            answers.append(receive_all(process.channel))
    assert answers == [b"00", b"11", b"22", b"33", b"44"]


# --- The template of a process pool: strings and files before and after the fork ----------------------------------


def test_workers_of_a_pool_get_strings_and_files_sent_before_and_after_their_fork_in_order(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    with open(tmp_path / "journal", "a") as journal, open(secret, "rb") as key:
        pool = anyfork.Template().send("str1", "str2").send(journal, key)
    processes = [pool.fork().send("str3").start("original_functions:relay_line") for _ in range(2)]
    pool.close()
    for number, process in enumerate(processes, 1):
        process.channel.sendall(f"hi #{number}\n".encode())
        process.channel.close()
    assert [process.wait().code for process in processes] == [0, 0]
    lines = (tmp_path / "journal").read_text().splitlines()
    assert sorted(lines) == ["hi #1 str1 str2 key str3", "hi #2 str1 str2 key str3"]


# --- The three ways to come by a process --------------------------------------------------------------------------


def test_a_process_of_its_own_is_a_child_of_the_default_template():
    templates = [anyfork.Template().ready() for _ in range(2)]
    parents = {parent_of(template.pid) for template in templates}
    for template in templates:
        template.close()
    assert len(parents) == 1
    assert parent_of(parents.pop()) == os.getpid()


def test_ten_processes_forked_off_a_template_are_its_children():
    with anyfork.Template().preload("original_functions").ready() as template:
        processes = [template.fork().start("original_functions:tell_pids") for _ in range(10)]
        told = []
        for process in processes:
            with process:
                told.append(process.channel.recv(100).split())
        assert {int(ppid) for _, ppid in told} == {template.pid}
        assert [int(pid) for pid, _ in told] == [process.pid for process in processes]


def test_processes_answer_after_the_template_they_were_forked_from_is_destroyed():
    with anyfork.Template().preload("original_functions") as template:
        processes = [template.fork().run("original_functions:shout") for _ in range(3)]
    del template
    for process in processes:
        with process:
            process.channel.sendall(b"still there\n")
            assert process.channel.recv(100) == b"STILL THERE\n"


def test_a_freshly_executed_interpreter_runs_a_function():
    template = anyfork.Template.new_exec().preload("original_functions")
    with template.run("original_functions:shout") as process:
        process.channel.sendall(b"hello\n")
        assert process.channel.recv(100) == b"HELLO\n"


def test_a_process_whose_function_does_not_use_the_channel_shows_its_end_on_it():
    with anyfork.Template().run("original_functions:do_nothing") as process:
        assert process.channel.recv(1) == b""


# --- Typical problems --------------------------------------------------------------------------------------------

SERVER_WITH_LEAK = """
import socket, sys
import original_functions

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.set_inheritable(True)  # what a careless library does
import anyfork
process = anyfork.Template().run("original_functions:until_end")
connection.close()
print(process.pid, flush=True)
sys.stdin.read()
process.channel.close()
process.wait()
"""


def test_a_client_of_the_owner_sees_its_connection_close_although_the_default_template_started_meanwhile():
    # The manual: a leaked connection stays open in the first process executed, and the client waits forever.
    read, write = os.pipe()
    with other_owner(SERVER_WITH_LEAK, stdin=read) as owner:
        os.close(read)
        port = int(owner.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
            pid = int(owner.stdout.readline())
            assert client.recv(1) == b""
            os.kill(pid, 0)  # and the process is there
        os.close(write)
    assert owner.returncode == 0


def test_a_connection_that_may_be_inherited_does_not_leak_into_a_fresh_interpreter():
    ours, theirs = socket.socketpair()
    ours.set_inheritable(True)
    ours.settimeout(DEADLINE)
    theirs.settimeout(DEADLINE)
    with theirs, anyfork.Template.new_exec().ready():
        ours.close()
        assert theirs.recv(1) == b""


def test_the_channel_of_a_process_does_not_leak_into_those_forked_after_it():
    with anyfork.Template().preload("original_functions") as template:
        first, second = (template.fork().run("original_functions:until_end") for _ in range(2))
    with second, first:
        first.kill()
        first.channel.settimeout(DEADLINE)
        assert first.channel.recv(1) == b""
        assert second.poll() is None


OBJECT_WITH_DESTRUCTOR = """
import os

class Display:
    def __init__(self, pipe):
        self.pipe = pipe
    def __del__(self):
        os.write(self.pipe.fileno(), b"free the resources of process %d" % os.getpid())

display = Display(*args)
"""


def test_the_destructors_of_objects_made_in_a_template_do_not_run_at_the_end_of_its_forks():
    with Pipe() as pipe:
        with anyfork.Template().execute(OBJECT_WITH_DESTRUCTOR, pipe.write) as template:
            for _ in range(3):
                with template.fork().run("original_functions:do_nothing") as process:
                    assert process.wait().code == 0
            assert not pipe.readable()
        assert pipe.take() == b""


EXIT_HANDLER = """
import atexit, os
atexit.register(os.write, args[0].fileno(), b"the template ends;")
"""


def test_an_exit_handler_registered_in_a_template_runs_once_at_the_end_of_the_template():
    with Pipe() as pipe:
        with anyfork.Template().execute(EXIT_HANDLER, pipe.write) as template:
            for _ in range(3):
                template.fork().run("original_functions:do_nothing").wait()
            assert not pipe.readable()
        assert pipe.take() == b"the template ends;"


# --- In processes that were forked from the owner by hand ---------------------------------------------------------

FORKED_BY_HAND = """
import json, os, sys
import anyfork

def ask():
    with anyfork.Template().run("original_functions:tell_pids") as process:
        pid, parent = process.channel.recv(100).split()
    return int(parent)

template = anyfork.Template()
ours = ask()
read, write = os.pipe()
if os.fork() == 0:
    try:
        template.ready()
    except anyfork.HandleError:
        refused = True
    else:
        refused = False
    os.write(write, json.dumps([refused, ask()]).encode())
    sys.exit(0)
os.close(write)
refused, theirs = json.loads(os.read(read, 1000))
os.wait()
print(json.dumps([refused, theirs != ours, ask() == ours]))
"""


@pytest.fixture(scope="module")
def after_fork_by_hand() -> list[bool]:
    with other_owner(FORKED_BY_HAND) as owner:
        told: list[bool] = json.loads(owner.stdout.read())
    assert owner.returncode == 0
    return told


def test_a_copy_of_the_owner_forked_by_hand_cannot_use_the_handles_of_the_original(after_fork_by_hand):
    assert after_fork_by_hand[0]


def test_a_copy_of_the_owner_forked_by_hand_starts_a_default_template_of_its_own(after_fork_by_hand):
    assert after_fork_by_hand[1]


def test_the_default_template_stays_that_of_the_owner_after_a_fork_by_hand(after_fork_by_hand):
    assert after_fork_by_hand[2]
