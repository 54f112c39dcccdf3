"""The parts of a connection that do no I/O: what is said, how it is cut, what it is called."""

from __future__ import annotations

import importlib
import os
import select
import subprocess
import sys
import traceback
import zlib
from select import POLLHUP, POLLIN, POLLOUT

import machines
import pytest
from conftest import eventually
from deadlines import DEADLINE
from hypothesis import given
from hypothesis import strategies as st
from procfs import runs

from _anyfork_child.remote.bootstrap import BOOT, NOISE, Answers, digest, lines, pack, package, with_boot
from _anyfork_child.remote.importer import BundleImporter
from _anyfork_child.remote.protocol import DATA, EOF, MAX_BODY, MessageDecoder, credit, message
from _anyfork_child.remote.ssh_command import LONGEST, Command, StderrLines
from _anyfork_child.remote.transport import EpollPoller, PollPoller
from _anyfork_child.wire.frames import ProtocolError
from anyfork._blocking.remote import destination

# --- Commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python3"], ["python3", "-c", BOOT]),
        (["ssh", "host", "python3"], ["ssh", "host", "python3", "-c", BOOT]),
        (["python3", "-"], ["python3", "-c", BOOT]),
        (["sh", "-c", "python3"], ["sh", "-c", f"python3 -c {BOOT}"]),
        (["sh", "-c", "exec python3 -"], ["sh", "-c", f"exec python3 -c {BOOT}"]),
        (["bash", "-lc", "python3 "], ["bash", "-lc", f"python3 -c {BOOT}"]),
        (["ssh", "host", "sh -c 'python3'"], ["ssh", "host", f"sh -c 'python3 -c {BOOT}'"]),
        (["ssh", "host", "cd /srv; python3"], ["ssh", "host", "cd /srv; python3", "-c", BOOT]),
    ],
)
def test_a_command_gets_what_makes_its_python_listen(command, expected):
    assert with_boot(command) == expected


@pytest.mark.parametrize("shell", ["", "sh", "bash"])
def test_what_a_python_is_told_means_nothing_to_a_shell(shell):
    text = f"{sys.executable} -c {BOOT}"
    command = [shell, "-c", f'{shell} -c "{text}"'] if shell else [sys.executable, "-c", BOOT]
    done = subprocess.run(command, input=b"print('ran')\n", capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr


@pytest.mark.parametrize("minor", ["2.7", "3.6", "3.11", "3.12", "3.13"])
def test_every_python_answers_with_its_version(minor):
    python = machines.other_python(minor)
    done = subprocess.run([python, "-c", BOOT], input=lines("0123456789abcdef-"), capture_output=True, check=False)
    kind, *version = Answers("0123456789abcdef-").take(done.stdout)
    assert kind == "python"
    assert ".".join(version[:2]) == minor


@pytest.mark.parametrize(
    ("command", "host"),
    [
        (["ssh", "host", "python3"], "host"),
        (["ssh", "me@host", "python3"], "host"),
        (["/usr/bin/ssh", "-p", "22", "-o", "A=b", "-4", "host", "python3"], "host"),
        (["ssh", "-p22", "-vv", "-i", "key", "me@host", "python3"], "host"),
        (["ssh", "-tti", "key", "ssh://me@host:22", "python3"], "host:22"),
        (["ssh", "-v"], ""),
        (["kubectl", "exec", "pod", "--", "python3"], ""),
    ],
)
def test_the_host_of_an_ssh_is_found_in_its_command(command, host):
    assert destination(command) == host


# --- Answers ----------------------------------------------------------------------------------------------------

WORD = "0123456789abcdef-"
MARK = b"\n<-fedcba9876543210>"


@given(st.binary(max_size=50), st.lists(st.integers(1, 30), max_size=60))
def test_an_answer_is_found_however_the_stream_is_cut(noise, cuts):
    stream = noise + MARK + b"python 3 11 2 host\nrest"
    answers = Answers(WORD)
    found = None
    while stream and found is None:
        size = cuts.pop() if cuts else 1
        found = answers.take(stream[:size])
        stream = stream[size:]
    assert found == ["python", "3", "11", "2", "host"]
    assert b"rest".startswith(answers.rest)
    assert answers.rest + stream == b"rest"


def test_an_echo_of_what_is_sent_is_no_answer():
    assert Answers(WORD).take(lines(WORD)) is None


def test_noise_without_end_is_an_error():
    answers = Answers(WORD)
    with pytest.raises(ValueError, match="without an answer"):
        for _ in range(NOISE // 1000 + 2):
            answers.take(bytes(1000))


# --- Luggage ----------------------------------------------------------------------------------------------------


def test_what_is_carried_are_the_sources_of_the_child_and_of_cloudpickle():
    data = zlib.decompress(pack(("host", 7)))
    files = eval(data)
    assert files.pop("") == ("host", 7)
    assert {
        "_anyfork_child",
        "_anyfork_child.remote.remote_relay",
        "_anyfork_child.remote.importer",
        "cloudpickle.cloudpickle",
    } <= {*files}
    assert not [name for name in files if name.partition(".")[0] not in ("_anyfork_child", "cloudpickle")]
    whole = package(pack(("host", 7)))
    assert whole.endswith(digest(whole[8:-64]).encode())


def test_what_is_carried_shows_its_lines_in_a_traceback():
    finder = BundleImporter({"carried": "", "carried.inside": "def fail():\n    raise ValueError('shown')\n"})
    sys.meta_path.insert(0, finder)
    try:
        fail = importlib.import_module("carried.inside").fail
        with pytest.raises(ValueError, match="shown") as caught:
            fail()
        assert "    raise ValueError('shown')\n" in "".join(traceback.format_exception(caught.value))
    finally:
        sys.meta_path.remove(finder)
        for name in ("carried", "carried.inside"):
            sys.modules.pop(name, None)


# --- Messages ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([DATA, EOF]), st.integers(0, 2**32 - 1), st.binary(max_size=40))), st.data())
def test_messages_are_cut_wherever_the_stream_is(messages, data):
    stream = b"".join(message(*one) for one in messages)
    cutter = MessageDecoder()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += cutter.take(stream[:size])
        stream = stream[size:]
    assert found == messages


@pytest.mark.parametrize("data", [b"\0" * 9, b"\xff" * 9, message(DATA, 1)[:5] + (MAX_BODY + 1).to_bytes(4, "little")])
def test_what_is_no_message_is_an_error(data):
    with pytest.raises(ProtocolError):
        MessageDecoder().take(data)


def test_credit_is_a_message():
    ((kind, number, body),) = MessageDecoder().take(credit(7, 1000))
    assert (kind, number, int.from_bytes(body, "little")) == (6, 7, 1000)


# --- Lines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_lines_wait_until_it_is_known_how_they_begin(pipe):
    read, write = pipe
    said = StderrLines(write)
    said.take(b"one\nt")
    assert said.tail == "one\nt"
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    said.begin("host")
    said.take(b"wo\r\nthr")
    assert os.read(read, 100) == b"host: one\nhost: two\n"
    said.end()
    assert os.read(read, 100) == b"host: thr\n"


def test_a_line_without_end_is_cut(pipe):
    read, write = pipe
    said = StderrLines(write)
    said.begin("h")
    for _ in range(LONGEST // 1000 + 1):
        said.take(b"x" * 1000)
    assert os.read(read, 5) == b"h: xx"


def test_lines_that_nobody_reads_are_dropped_and_that_is_said(pipe):
    read, write = pipe
    said = StderrLines(write)
    said.begin("h")
    for _ in range(2000):
        said.take(b"x" * 999 + b"\n")
    assert said.waits
    got = b""
    os.set_blocking(read, False)

    def read_on():
        nonlocal got
        while said.waits:
            got += os.read(read, 1 << 20)
            said.flush()

    read_on()
    said.take(b"again\n")
    read_on()
    got += os.read(read, 1 << 20)
    assert b"bytes are missing here]\nh: again\n" in got


# --- Waiting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [EpollPoller, PollPoller])
def test_both_ways_to_wait_tell_the_same(make, pipe):
    read, write = pipe
    poller = make()
    poller.add(read, 0)
    poller.add(write, POLLOUT)
    assert list(poller.wait(1.0)) == [(write, POLLOUT)]
    poller.change(read, POLLIN)
    poller.change(write, 0)
    assert list(poller.wait(0.0)) == []
    os.write(write, b"x")
    assert list(poller.wait(1.0)) == [(read, POLLIN)]
    poller.remove(read)
    assert list(poller.wait(0.0)) == []
    other, closed = os.pipe()
    os.close(closed)
    poller.add(other, 0)  # an end is told without being asked for
    assert list(poller.wait(1.0)) == [(other, POLLHUP)]
    poller.remove(other)
    os.close(other)


BY_A_THREAD = """
import subprocess, sys, threading
def start():
    print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
    threading.Event().wait()
threading.Thread(target=start).start()
"""


def test_what_a_thread_of_a_command_has_started_is_killed_with_it():
    command = Command([sys.executable, "-c", BY_A_THREAD])
    try:
        select.select([command.fd], [], [], DEADLINE)
        pid = int(os.read(command.fd, 100))
        command.kill()
        assert command.ended(DEADLINE)
        eventually(lambda: not runs(pid), "the child of a thread goes on")
    finally:
        os.close(command.fd)
        os.close(command.errors)
