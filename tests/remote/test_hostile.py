"""Another machine that wants no good: what it can do to the program here, which is nothing, but for pickle."""

from __future__ import annotations

import os
import pickle
import select
import struct
import subprocess
import sys

import far_side
import machines
import pytest
from deadlines import DEADLINE

import anyfork
from _anyfork_child.remote.protocol import BEAT, CREDIT, DATA, FILE, FRAME, HEADER, MAX_BODY, message
from _anyfork_child.wire import call_messages, frames
from _anyfork_child.wire.failure import pack_texts
from _anyfork_child.wire.frames import DEATH

remote = machines.remote
CONTROL, STATUS = 1, 3  # the streams of the first template
HARMLESS = ["json", "msgpack", "raw"]


def frame(kind, body=b"", value=0, streams=(), flag=0):
    numbers = b"".join(struct.pack("<I", number) for number in streams)
    return frames.HEADER.pack(frames.VERSION, kind | flag, len(streams), len(body), value) + numbers + body


def failure(*texts):
    return frame(frames.FAILED, pack_texts(texts))


EVIL = pickle.dumps(far_side.Trap("evil"))

# What comes from the other side instead of what should.
ATTACKS = {
    "noise": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "an unknown kind": message(99, CONTROL),
    "too long a message": HEADER.pack(DATA, CONTROL, MAX_BODY + 1),
    "half a message": message(DATA, CONTROL, b"x" * 100)[:50],
    "pickles": message(DATA, CONTROL, EVIL) + message(DATA, STATUS, EVIL),
    "a frame of no frame": message(FRAME, CONTROL, b"x"),
    "a frame of another version": message(FRAME, CONTROL, b"\x09" + frame(frames.READY)[1:]),
    "a frame of a wrong length": message(FRAME, CONTROL, frame(frames.READY) + b"x"),
    "a fork": message(FRAME, CONTROL, frame(frames.FORK, streams=(2, 4))),
    "a start": message(FRAME, CONTROL, frame(frames.START, EVIL)),
    "an adoption": message(FRAME, CONTROL, frame(frames.ADOPTED, value=1, streams=(2, 4))),
    "an answer with streams": message(FRAME, CONTROL, frame(frames.READY, streams=(2, 4))),
    "an answer with a file": message(FILE, CONTROL, EVIL)
    + message(FRAME, CONTROL, frame(frames.READY, flag=frames.IN_FILE)),
    "a file": message(FILE, CONTROL, EVIL),
    "a program without its pipe": message(FRAME, CONTROL, frame(frames.EXECUTING, value=1)),
    "a stream that is there": message(FRAME, CONTROL, frame(frames.EXECUTING, value=1, streams=(STATUS,))),
    "an entry nobody asked for": message(FRAME, CONTROL, frame(frames.ENTERED, value=1)),
    "two births": message(FRAME, STATUS, frame(frames.BORN, value=1)) * 2,
    "a death that is none": message(FRAME, STATUS, frame(frames.DIED, b"x")),
    "a failure that is none": message(FRAME, CONTROL, frame(frames.FAILED, b"\xff" * 20)),
    "a failure without a number": message(FRAME, CONTROL, failure("preload", "m", "x", "s", "t")),
    "a failure of an unknown kind": message(FRAME, CONTROL, failure("evil", "m", "0", "s", "t")),
    "credit that is none": message(CREDIT, CONTROL, b"x"),
    "more than there is room for": b"".join([message(DATA, STATUS, bytes(1 << 20))] * 8),
}


@pytest.fixture
def hostile(tmp_path):
    """Return a function that makes a template whose other side says this."""

    def make(said):
        (tmp_path / "said").write_bytes(said)
        command = [sys.executable, f"{machines.HERE}/remote/hostile.py", str(tmp_path / "said")]
        return anyfork.RemoteTemplate(command, keep_alive=1.0)  # nobody there says that it is done

    return make


@pytest.fixture
def beating(tmp_path):
    """Return a template whose other side says this again and again; wait until it does."""
    (tmp_path / "said").write_bytes(b"")

    def make(data):
        program = f"{machines.HERE}/remote/hostile.py"
        template = anyfork.RemoteTemplate([sys.executable, program, str(tmp_path / "said"), data.hex()])
        while not (tmp_path / "said.pid").exists() or not (tmp_path / "said.pid").read_text():
            select.select([], [], [], 0.01)
        return template, os.pidfd_open(int((tmp_path / "said.pid").read_text()))

    return make


def has_ended(pidfd, seconds):
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def test_a_side_that_only_beats_ends_soon_after_the_template_was_closed(beating):
    template, pidfd = beating(message(BEAT, 0))
    template.close()
    assert has_ended(pidfd, DEADLINE)  # long before the keep-alive time, which never ends


def test_a_side_that_makes_the_relay_answer_and_reads_nothing_is_given_up(beating):
    unknown = message(FRAME, 999, frame(frames.READY, value=1, streams=range(1000, 1008)))
    template, pidfd = beating(unknown * 500)
    with template, pytest.raises(anyfork.RemoteTemplateError, match="does not read"):
        template.ready(DEADLINE)
    assert has_ended(pidfd, DEADLINE)


@pytest.mark.parametrize("pid", [0, -1, 1 << 31])
def test_a_pid_that_is_none_is_an_error_of_the_peer(hostile, pid):
    with hostile(message(FRAME, CONTROL, frame(frames.READY, value=pid))) as template:
        with pytest.raises(anyfork.PeerError):
            template.ready(DEADLINE)
        assert template.pid is None


@pytest.mark.parametrize("name", ATTACKS)
def test_whatever_the_other_side_says_is_an_error_and_nothing_else(hostile, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hostile(ATTACKS[name]) as template:
        with pytest.raises(anyfork.AnyforkError):  # at the latest when nothing more comes
            template.ready(DEADLINE)
    assert not (tmp_path / "evil").exists()


def test_a_pid_of_the_other_machine_is_never_signalled_here(hostile):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as victim:
        try:
            born = message(FRAME, STATUS, frame(frames.BORN, value=victim.pid))
            entered = message(FRAME, CONTROL, frame(frames.ENTERED, value=victim.pid))
            process = hostile(born + entered).start(far_side.echo).ready(DEADLINE)
            assert process.pid == victim.pid
            process.kill()
            process.terminate()
            assert not process.wait(DEADLINE).known
            process.close()
            assert victim.poll() is None
        finally:
            victim.kill()


def test_a_death_that_the_other_side_tells_is_a_status_and_no_more(hostile):
    died = frame(frames.DIED, DEATH.pack(9, 0.0, 0.0, *[0] * 14) + EVIL, value=1)
    template = hostile(message(FRAME, STATUS, frame(frames.BORN, value=1)) + message(FRAME, STATUS, died))
    process = template.start(far_side.echo)
    assert process.wait(DEADLINE).signal == 9
    process.close()


def test_too_much_for_a_reader_that_comes_late_ends_the_connection_and_not_the_relay(hostile):
    born = message(FRAME, STATUS, frame(frames.BORN, value=1))
    entered = message(FRAME, CONTROL, frame(frames.ENTERED, value=1))
    process = hostile(born + entered + message(DATA, CONTROL, bytes(1 << 20)) * 8).start(far_side.echo).ready(DEADLINE)
    assert not process.wait(DEADLINE).known  # nothing was read yet
    with process, process.channel.makefile("rb") as came:
        assert len(came.read()) == 3 << 20, "what came before there was too much"


# --- Workers ----------------------------------------------------------------------------------------------------

SPEAK = """
import _anyfork_child.worker.loop as worker
def serve(channel, *given):
    channel.recv(1 << 16)
    channel.sendall(args[0])
    while channel.recv(1 << 16):
        pass
worker.serve = serve
"""


def answer(kind, body, number=1, detail=0):
    return call_messages.HEADER.pack(len(body), number, detail, kind, 0, 0) + body


def answers(path):
    """Return what a worker may say to have something unpickled."""
    evil = pickle.dumps(far_side.Trap(path))
    texts = pack_texts(("Error", "text", "trace"))
    error = struct.pack("<I", len(texts)) + texts + evil
    ready = answer(call_messages.READY, b"", number=0, detail=call_messages.VERSION)
    return {
        "a result": ready + answer(call_messages.RESULT, evil),
        "a result in a tuple": ready + answer(call_messages.RESULT, pickle.dumps((far_side.Trap(path),)), detail=1),
        "an exception": ready + answer(call_messages.ERROR, error),
        "a failed start": answer(call_messages.FAILED, error, number=0),
        "an event": ready + answer(call_messages.EVENT, evil) + answer(call_messages.RESULT, evil),
    }


@pytest.mark.parametrize("serializer", HARMLESS)
@pytest.mark.parametrize("name", answers(""))
def test_a_hostile_worker_on_another_machine_runs_nothing_here(remote, serializer, name, tmp_path):
    path = str(tmp_path / "evil")
    remote.preload("_anyfork_child.worker.loop").execute(SPEAK, answers(path)[name])
    worker = anyfork.Worker(remote, serializer=serializer, on_event=lambda value: None)
    try:
        with pytest.raises(anyfork.AnyforkError):
            worker.call(far_side.double, b"1" if serializer == "raw" else 1)
    finally:
        worker.kill()
        worker.close()
    assert not os.path.exists(path)


@pytest.mark.parametrize("serializer", ["json", "raw"])
def test_results_and_exceptions_that_are_traps_stay_where_they_are(remote, serializer, tmp_path):
    path = tmp_path / "evil"
    argument = os.fsencode(path) if serializer == "raw" else str(path)
    with anyfork.Worker(remote, serializer=serializer) as worker:
        with pytest.raises(anyfork.ResultError):
            worker.call(far_side.return_trap, argument)
        with pytest.raises(anyfork.RemoteError, match="a trap") as caught:
            worker.call(far_side.raise_trap, argument)
        assert caught.value.type_name == "TrapError"
    assert not path.exists()


def test_with_pickle_the_other_side_is_trusted_which_is_why_there_are_others(remote, tmp_path):
    # So that the tests above can fail.
    with anyfork.Worker(remote) as worker:
        worker.call(far_side.return_trap, str(tmp_path / "evil"))
    assert (tmp_path / "evil").exists()


def test_large_answers_of_every_serializer_travel(remote):
    for serializer, value in (("json", "x" * (3 << 20)), ("raw", bytes(3 << 20))):
        with anyfork.Worker(remote.fork(), serializer=serializer) as worker:
            assert worker.call(far_side.double, value) == value * 2
