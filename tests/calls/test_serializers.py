"""Serializers: what they carry, and that nothing which comes back by one of the harmless ones is ever unpickled."""

from __future__ import annotations

import operator
import os
import pickle
import struct
import textwrap

import call_functions
import pytest
from call_makers import MAKERS
from owner_side import output_of

import anyfork
from _anyfork_child.values.serializers import Json, Msgpack, Raw
from _anyfork_child.wire import call_messages as wire
from _anyfork_child.wire.failure import pack_texts

pytestmark = pytest.mark.usefixtures("warm_templates")

HARMLESS = ["json", "msgpack", "raw"]
LARGE = 3 << 20  # bytes: travels in a file


@pytest.fixture(params=MAKERS)
def new_worker(request):
    return MAKERS[request.param]


VALUES = {
    "json": [None, True, 1, 1.5, "text", ["nested", {"a": [1]}], "\ud800", "x" * LARGE],
    "msgpack": [None, True, 1, 1.5, "text", b"bytes", ["nested", {"a": [1]}], b"x" * LARGE],
    "raw": [b"", b"bytes", b"\0" * 100, b"x" * LARGE],
}


@pytest.mark.parametrize("name", HARMLESS)
def test_values_go_and_come(new_worker, name):
    with new_worker(serializer=name) as worker:
        for value in VALUES[name]:
            assert worker.call(call_functions.echo, value) == value
        assert list(worker.map(call_functions.echo, VALUES[name])) == VALUES[name]


class Padded(Json):
    """A serializer that makes long JSON of every value."""

    name = "padded"

    def dumps(self, value):
        """Return JSON, and spaces."""
        return super().dumps(value) + b" " * 100_000


def test_short_values_may_be_long_in_a_serializer_of_the_user(new_worker):
    with new_worker(serializer=Padded()) as worker:
        assert worker.call(call_functions.echo, 1) == 1
        assert list(worker.map(call_functions.echo, range(5))) == [*range(5)]


def test_functions_may_go_by_value_because_the_owner_is_trusted(new_worker):
    with new_worker(serializer="json") as worker:
        assert worker.call(lambda x: x + 1, 41) == 42


@pytest.mark.parametrize(("name", "value"), [("json", {1, 2}), ("msgpack", object()), ("raw", "text")])
def test_what_one_does_not_carry_fails_at_the_call_or_as_the_result(new_worker, name, value):
    with new_worker(serializer=name) as worker:
        with pytest.raises(anyfork.ArgumentError, match=f"cannot be encoded by {name}"):
            worker.call(call_functions.echo, value)
        with pytest.raises(anyfork.ResultError, match="cannot travel"):
            worker.call(lambda *_: {1: object()})


def test_a_descriptor_does_not_travel_by_one(new_worker):
    with new_worker(serializer="json") as worker, open(os.devnull) as file:
        with pytest.raises(anyfork.ArgumentError):
            worker.call(call_functions.echo, file)
        with pytest.raises(anyfork.ArgumentError, match="descriptor"):
            worker.call(lambda: file.fileno())


def test_exceptions_come_as_text(new_worker):
    with new_worker(serializer="json") as worker:
        with pytest.raises(anyfork.RemoteError, match="PlainError: why") as caught:
            worker.call(call_functions.fail, "why")
        assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize("name", HARMLESS)
def test_events_and_streams_go_by_it_too(new_worker, name):
    said = []
    text = b"text" if name == "raw" else "text"
    with new_worker(serializer=name) as worker:
        worker.call("_anyfork_child.wire.emitter:emit", text, on_event=said.append) if name != "raw" else said.append(
            text
        )
        assert said == [text]
        assert list(worker.stream("builtins:iter", text)) == list(text) if name != "raw" else True


def test_an_object_of_ones_own_may_be_the_serializer(new_worker):
    with new_worker(serializer=Reversed()) as worker:
        assert worker.call(call_functions.echo, "abc") == "abc"


class Reversed:
    """Text, written backwards."""

    name = "reversed"

    def dumps(self, values):
        return "\0".join(value[::-1] for value in values).encode()

    def loads(self, data):
        return [part[::-1] for part in data.decode().split("\0")]


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"\x81\xa1a\x01", b"\5\0\0\0ab", b"[1", b"\0\0"])
def test_bytes_that_are_none_of_it_are_an_error(name, data):
    serializer = {"json": Json, "msgpack": Msgpack, "raw": Raw}[name]()
    if name == "raw" and not data:
        assert serializer.loads(data) == []
        return
    with pytest.raises(ValueError, match="."):
        serializer.loads(data)


# --- A hostile worker -----------------------------------------------------------------------------------------------


class Evil:
    """Leaves a file behind in whoever unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


SPEAK = """
import _anyfork_child.worker.loop as worker, os, struct, array, socket
def serve(channel, *given):
    channel.recv(1 << 16)
    for data, fds in args[0]:
        if fds:
            files = []
            for content in fds:
                fd = os.memfd_create("x")
                os.write(fd, content)
                files.append(fd)
            socket.send_fds(channel, [data], files)
        else:
            channel.sendall(data)
    while channel.recv(1 << 16):
        pass
worker.serve = serve
"""


def message(kind, body=b"", number=1, detail=0, flags=0, count=0):
    return wire.HEADER.pack(len(body), number, detail, kind, flags, count) + body


def attacks(path):
    """Yield ways to get something unpickled, or the owner confused: what the worker says, and in files."""
    evil = pickle.dumps(Evil(path))
    texts = pack_texts(("Error", "text", "trace"))
    error = struct.pack("<I", len(texts)) + texts
    ready = (message(wire.READY, detail=wire.VERSION, number=0), ())
    yield "a result", [ready, (message(wire.RESULT, evil), ())]
    yield "a result in a tuple", [ready, (message(wire.RESULT, evil, detail=1), ())]
    yield "a result in a file", [ready, (message(wire.RESULT, flags=wire.IN_FILE, count=1), (evil,))]
    yield "a result with a buffer", [ready, (message(wire.RESULT, evil, flags=1, count=1), (evil,))]
    yield "a result with a descriptor", [ready, (message(wire.RESULT, evil, count=1), (b"",))]
    yield "an exception", [ready, (message(wire.ERROR, error + evil), ())]
    yield "an exception in a file", [ready, (message(wire.ERROR, flags=wire.IN_FILE, count=1), (error + evil,))]
    yield "an exception that is none", [ready, (message(wire.ERROR, b"\xff" * 50), ())]
    yield "an event", [ready, (message(wire.EVENT, evil), ()), (message(wire.RESULT, evil), ())]
    yield "an item", [ready, (message(wire.ITEM, evil), ())]
    yield "a failed start", [(message(wire.FAILED, error + evil, number=0), ())]
    yield "an answer nobody expects", [ready, (message(wire.RESULT, evil, number=77), ())]
    yield "a message of the owner", [ready, (message(wire.CALL, evil), ())]
    yield "an unknown kind", [ready, (message(99, evil), ())]
    yield "too long a message", [ready, (wire.HEADER.pack(1 << 30, 1, 0, wire.RESULT, 0, 0), ())]
    yield "descriptors that do not come", [ready, (message(wire.RESULT, evil, count=3), ())]
    yield "another version", [(message(wire.READY, detail=77, number=0), ())]
    yield "noise", [(b"GET / HTTP/1.1\r\n\r\n" * 10, ())]


NAMES = [name for name, _ in attacks("")]


@pytest.mark.parametrize("serializer", HARMLESS)
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_worker_runs_nothing_in_its_owner(new_worker, serializer, name, tmp_path):
    path = str(tmp_path / "evil")
    said = dict(attacks(path))[name]
    template = new_worker.template().preload("_anyfork_child.worker.loop").execute(SPEAK, said)
    worker = new_worker(template, serializer=serializer, on_event=lambda value: None)
    try:
        with pytest.raises(anyfork.AnyforkError):
            worker.call(operator.neg, b"1" if serializer == "raw" else 1)
    finally:
        worker.kill()
        worker.close()
    assert not os.path.exists(path)


def test_the_attacks_work_on_pickle(tmp_path):
    """Prove that the test above can fail: the owner trusts a worker that uses pickle."""
    path = str(tmp_path / "evil")
    said = dict(attacks(path))["a result"]
    template = anyfork.Template().preload("_anyfork_child.worker.loop").execute(SPEAK, said)
    with anyfork.Worker(template) as worker:
        assert worker.call(operator.neg, 1) is None
        worker.kill()
    assert os.path.exists(path)


# --- Versions -------------------------------------------------------------------------------------------------------


def test_a_worker_of_another_version_says_so(new_worker):
    template = new_worker.template().preload("_anyfork_child.worker.loop")
    template.execute("import _anyfork_child.worker.loop as worker; worker.VERSION = 77")
    worker = new_worker(template)
    with pytest.raises(anyfork.PeerError, match=r"owner speaks version 1 of calls, this worker version 77"):
        worker.call(operator.neg, 1)
    worker.close()


def test_a_worker_without_msgspec_says_so():
    program = textwrap.dedent("""
        import anyfork, sys
        sys.modules["msgspec"] = None
        with anyfork.Worker(serializer="msgpack") as worker:
            try:
                worker.call("operator:neg", 1)
            except anyfork.ArgumentError as error:
                print("msgspec" in str(error))
    """)
    assert output_of("-c", program) == "True\n"
