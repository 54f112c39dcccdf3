"""What travels: values and descriptors of every kind arrive as the same kind of object, wherever they are nested."""

from __future__ import annotations

import array
import collections
import contextlib
import datetime
import decimal
import io
import os
import socket
import tempfile
import zlib
from multiprocessing import resource_sharer
from multiprocessing.connection import Pipe
from pathlib import Path

import child_side
import pytest
from owner_side import ask, blocking_only, ended, pipe, read_all
from values_functions import Job, drop_and_stay, greet, keep_size, serve_one, use_job

import anyfork

# --- Values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(1 << 200),
        3.5,
        "größer \N{SNOWMAN} \0",
        b"",
        bytes(range(256)),
        bytearray(b"abc"),
        [1, (2, {"three": {4}})],
        frozenset({1, 2}),
        collections.OrderedDict(a=1),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        Path("/tmp"),
        array.array("d", [1.0, 2.0]),
        range(10),
        ...,
        int,
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_arrives_as_it_was(template, value):
    (arrived,) = ask(template, "v", value)
    assert (arrived, type(arrived)) == (value, type(value))


def test_a_structure_that_contains_itself_arrives_as_such(template):
    value = []
    value.append(value)
    assert ask(template, "v[0] is v[0][0]", value)


@pytest.mark.parametrize("size", [65_000, 66_000, 1 << 20, 64 << 20])
def test_bytes_of_any_size_arrive(template, size):
    block = os.urandom(1000)
    value = (block * (size // 1000 + 1))[:size]
    assert ask(template, "(len(v[0]), __import__('zlib').crc32(v[0]))", value) == (size, zlib.crc32(value))


def test_large_values_may_be_sent_and_shared_by_forks(template):
    template.send(b"x" * (8 << 20))
    with template.fork() as first, template.fork() as second:
        assert [ask(fork, "(len(v[0]), v[1])", n) for n, fork in enumerate((first, second))] == [
            (8 << 20, 0),
            (8 << 20, 1),
        ]


def test_large_values_reach_every_kind_of_step(template):
    value = b"x" * (1 << 20)
    template.execute("size = len(args[0])", value).prepare(keep_size, value)
    assert ask(template, "(sys.modules['__main__'].size, sys.modules['__main__'].size2)") == (1 << 20, 1 << 20)


def test_large_code_runs(template):
    template.execute("x = '''" + "y" * (1 << 20) + "'''")
    assert ask(template, "len(sys.modules['__main__'].x)") == 1 << 20


def test_numpy_arrays_arrive(template):
    numpy = pytest.importorskip("numpy")
    value = numpy.arange(300_000, dtype="f8").reshape(300, 1000)
    assert ask(template, "(v[0].shape, str(v[0].dtype), float(v[0].sum()))", value) == (
        (300, 1000),
        "float64",
        float(value.sum()),
    )


# --- Sockets --------------------------------------------------------------------------------------------------------


def stream_pair(family):
    host = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        return client, server.accept()[0]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_a_listening_socket_arrives_and_accepts(template, family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as server:
        address = server.getsockname()
        process = template.run(serve_one, server)
    with process, socket.create_connection(address[:2]) as client:
        assert read_all(client) == b"served"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_a_connected_tcp_socket_arrives(template, family):
    ours, theirs = stream_pair(family)
    with ours:
        with theirs:
            process = template.run(greet, theirs)
        with process:
            assert read_all(ours) == b"hello"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_unix_socket_arrives(template, kind):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours:
        with theirs:
            process = template.run(greet, theirs)
        with process:
            assert ours.recv(100) == b"hello"


def test_a_unix_socket_that_listens_on_a_path_arrives(template, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        process = template.run(serve_one, server)
    with process, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert read_all(client) == b"served"


def test_a_udp_socket_arrives(template):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        ours.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        assert ask(template, "v[0].sendto(b'hello', v[1])", udp, ours.getsockname()) == 5
        assert ours.recvfrom(100) == (b"hello", udp.getsockname())


@pytest.mark.parametrize("timeout", [None, 0.0, 2.5])
def test_a_socket_keeps_its_timeout(template, timeout):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(timeout)
        assert ask(template, "v[0].gettimeout()", theirs) == timeout


def test_a_socket_keeps_its_timeout_in_the_owner(template):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(2.5)
        ask(template, "v[0].settimeout(None)", theirs)
        assert theirs.gettimeout() == 2.5


def test_a_socket_arrives_as_a_socket_of_the_same_kind(template):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        expression = "(type(v[0]) is socket.socket, v[0].family, v[0].type, v[0].proto, v[0].get_inheritable())"
        assert ask(template, expression, sock) == (True, socket.AF_INET6, socket.SOCK_DGRAM, sock.proto, False)


@blocking_only
def test_a_process_may_get_the_channel_of_another(template):
    with template.fork().run(child_side.echo) as echo:
        assert ask(template.fork(), "(v[0].sendall(b'through'), v[0].recv(100))[1]", echo.channel) == b"through"


def test_a_channel_travels_over_connections_of_multiprocessing():
    here, there = Pipe()
    with here, there, anyfork.Template().run(child_side.echo) as process:
        there.send(process.channel)
        with here.recv() as channel:
            channel.sendall(b"through")
            assert channel.recv(100) == b"through"
    resource_sharer.stop()


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "w", "a", "r+", "w+", "a+", "rb", "wb", "ab", "rb+", "wb+"])
def test_a_file_keeps_its_kind_and_its_mode(template, tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("content")
    with path.open(mode) as file:
        expression = "(type(v[0]).__name__, v[0].readable(), v[0].writable(), v[0].seekable())"
        expected = (type(file).__name__, file.readable(), file.writable(), file.seekable())
        assert ask(template, expression, file) == expected


@pytest.mark.parametrize("mode", ["rb", "wb", "rb+"])
def test_an_unbuffered_file_arrives_unbuffered(template, tmp_path, mode):
    (tmp_path / "file").write_bytes(b"content")
    with (tmp_path / "file").open(mode, 0) as file:
        assert ask(template, "(type(v[0]).__name__, v[0].mode)", file) == ("FileIO", file.mode)


def test_a_file_opened_for_exclusive_creation_arrives_for_writing(template, tmp_path):
    with (tmp_path / "new").open("x") as file:
        file.write("owner ")
        assert ask(template, "v[0].write('process')", file) == 7
    assert (tmp_path / "new").read_text() == "owner process"


@pytest.mark.parametrize(("encoding", "errors"), [("utf-8", "strict"), ("latin-1", "replace"), ("utf-16", "ignore")])
def test_a_text_file_keeps_its_encoding_and_its_errors(template, tmp_path, encoding, errors):
    path = tmp_path / "file"
    path.write_text("größer\n", encoding=encoding)
    with path.open(encoding=encoding, errors=errors) as file:
        assert ask(template, "(v[0].encoding, v[0].errors, v[0].read())", file) == (encoding, errors, "größer\n")


def test_a_file_goes_on_where_the_owner_has_read_to(template, tmp_path):
    path = tmp_path / "file"
    path.write_text("first\nsecond\nthird\n")
    with path.open() as file:
        assert file.readline() == "first\n"
        assert ask(template, "v[0].readline()", file) == "second\n"


def test_a_binary_file_goes_on_where_the_owner_has_read_to(template, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.read(4)
        assert ask(template, "(v[0].tell(), v[0].read())", file) == (4, b"456789")


def test_a_file_that_is_read_and_written_goes_on_at_its_position(template, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb+") as file:
        file.read(2)
        file.write(b"ab")
        assert ask(template, "v[0].read(2)", file) == b"45"
    assert path.read_bytes() == b"01ab456789"


def test_what_a_writer_buffers_comes_before_what_the_process_writes(template, tmp_path):
    path = tmp_path / "file"
    with path.open("w") as file:
        file.write("owner, ")
        ask(template, "(v[0].write('process, '), v[0].close())", file)
        file.write("owner")
    assert path.read_text() == "owner, process, owner"


def test_a_line_buffered_file_arrives_line_buffered(template, tmp_path):
    with (tmp_path / "file").open("w", 1) as file:
        assert ask(template, "(v[0].line_buffering, v[0].write_through)", file) == (True, False)


def test_the_writing_end_of_a_pipe_arrives_as_a_file(template):
    with pipe() as (read, write), os.fdopen(os.dup(write), "w") as sink:
        ask(template, "v[0].write('through a pipe')", sink)
        assert os.read(read, 100) == b"through a pipe"


def test_the_reading_end_of_a_pipe_arrives_as_a_file(template):
    with pipe() as (read, write), os.fdopen(os.dup(read), encoding="latin-1") as source:
        os.write(write, b"gr\xf6\xdfer")
        os.close(write)
        assert ask(template, "v[0].read()", source) == "größer"


def test_the_standard_output_arrives_as_a_file(template, tmp_path):
    with (tmp_path / "file").open("w") as file, contextlib.redirect_stdout(file):
        import sys

        ask(template, "v[0].write('printed')", sys.stdout)
    assert (tmp_path / "file").read_text() == "printed"


@pytest.mark.parametrize(
    "make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile], ids=["TemporaryFile", "NamedTemporaryFile"]
)
def test_a_temporary_file_arrives_as_a_file(template, make):
    with make("w+") as file:
        file.write("temporary")
        file.seek(0)
        assert ask(template, "v[0].read()", file) == "temporary"


def test_a_named_temporary_file_is_not_removed_by_the_process(template):
    with tempfile.NamedTemporaryFile() as file:
        ask(template, "v[0].close()", file)
        assert os.path.exists(file.name)


# --- Connections, descriptors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplex", [True, False])
def test_a_connection_of_multiprocessing_arrives(template, duplex):
    receiver, sender = Pipe(duplex)
    with receiver:
        with sender:
            expression = "(v[0].send({'a': [1]}), type(v[0]).__name__, v[0].readable, v[0].writable)[1:]"
            assert ask(template, expression, sender) == ("Connection", duplex, True)
        assert receiver.recv() == {"a": [1]}


def test_a_raw_descriptor_arrives_as_one_of_another_number(template):
    with pipe() as (read, write):
        for _ in range(2):
            assert ask(template.fork(), "os.write(v[0].fileno(), b'raw')", anyfork.Descriptor(write)) == 3
        assert os.read(read, 100) == b"rawraw"


def test_a_raw_descriptor_can_be_detached_and_closed(template):
    with pipe() as (_, write):
        expression = "(isinstance(v[0].detach(), int), repr(v[0]), v[1].close(), v[1].close(), repr(v[1]))"
        descriptors = (anyfork.Descriptor(write), anyfork.Descriptor(write))
        closed = "<Descriptor closed>"
        assert ask(template, expression, *descriptors) == (True, closed, None, None, closed)


def test_a_raw_descriptor_stays_the_owners(template):
    with pipe() as (read, write):
        descriptor = anyfork.Descriptor(write)
        ask(template, "v[0].close()", descriptor)
        assert os.write(descriptor.fileno(), b"open") == 4
        assert os.read(read, 10) == b"open"


def test_no_descriptor_that_arrives_is_inherited_by_programs(template):
    with pipe() as (_, write), open(os.devnull) as file, socket.socket() as sock:
        values = (anyfork.Descriptor(write), file, sock)
        assert ask(template, "[os.get_inheritable(x.fileno()) for x in v]", *values) == [False] * 3


# --- Anywhere -------------------------------------------------------------------------------------------------------


def test_descriptors_travel_inside_of_anything(template, tmp_path):
    (tmp_path / "file").write_bytes(b"deep inside")
    ours, theirs = socket.socketpair()
    with ours, (tmp_path / "file").open("rb") as file:
        with theirs:
            process = template.run(use_job, Job(file, theirs))
        with process:
            assert read_all(ours) == b"deep inside"


def test_descriptors_travel_inside_of_closures(template):
    with pipe() as (read, write):
        descriptor = anyfork.Descriptor(write)
        ended(template.run(lambda channel: os.write(descriptor.fileno(), b"closed over") and None))
        assert os.read(read, 100) == b"closed over"


def test_one_object_that_is_named_twice_arrives_as_one(template):
    with open(os.devnull) as file:
        assert ask(template, "v[0] is v[1][0]", file, [file])


def test_a_thousand_descriptors_travel_in_one_call(template):
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(pipe()) for _ in range(10)]
        for number, (_, write) in enumerate(sources):
            os.write(write, bytes([number]) * 100)
        values = [anyfork.Descriptor(sources[number % 10][0]) for number in range(1000)]
        assert ask(template, "[os.read(x.fileno(), 1)[0] for x in v[0]]", values) == [n % 10 for n in range(1000)]


def test_a_thousand_descriptors_may_be_sent_one_after_the_other(template):
    with pipe() as (read, write):
        for _ in range(1000):
            template.send(anyfork.Descriptor(write))
        os.close(write)
        assert ask(template, "sum(os.write(x.fileno(), b'.') for x in v)") == 1000
        template.close()
        with io.FileIO(os.dup(read)) as file:
            assert len(file.readall()) == 1000


def test_an_argument_that_was_passed_is_closed_when_the_process_drops_it(template):
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, template.run(drop_and_stay, theirs) as process:
            theirs.close()
            assert ours.recv(1) == b""
            process.channel.sendall(b"go")
