"""Raw bytes on the wire: what is no frame ends the process that got it, clearly, and nothing else."""

import os
import select
import socket
import struct
from contextlib import contextmanager

import faulty
import pytest
from deadlines import DEADLINE

import anyfork
from _anyfork_child.wire.frames import (
    ADOPT,
    ADOPTED,
    BORN,
    CLOSE,
    DIED,
    ENTERED,
    EXECUTE,
    EXECUTING,
    FAILED,
    FORK,
    HEADER,
    HEADER_SIZE,
    IN_FILE,
    INIT,
    LOST,
    MAX_BODY,
    PING,
    PRELOAD,
    PREPARE,
    PROGRAM,
    READY,
    SEND,
    SIGNAL,
    START,
    VERSION,
)
from anyfork import Template

NOBODY = 1 << 22  # a pid that no process can have: Linux has fewer


def header(kind, descriptors=0, length=0, value=0, version=VERSION):
    """Return the first bytes of a frame."""
    return HEADER.pack(version, kind, descriptors, length, value)


def send_raw(sock, data, fds=()):
    """Write bytes, and descriptors with the first of them."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    try:
        sent = sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        sock.sendall(data[sent:])
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has ended at the first bytes


def read_to_end(sock):
    """Return all that comes until the other side closes."""
    sock.settimeout(DEADLINE)
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


# Bytes for a template, and how many descriptors go with them. After them the owner's side is closed for writing.
ATTACKS = {
    "text": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "zeros": (bytes(100), 0),
    "a wrong version": (header(PING, version=VERSION + 1), 0),
    "version zero": (header(PING, version=0), 0),
    "an unknown kind": (header(99), 0),
    "kind zero": (header(0), 0),
    "the largest kind": (header(255), 0),
    "a body above the limit": (header(SEND, length=MAX_BODY + 1), 0),
    "the largest body": (header(SEND, length=0xFFFFFFFF), 0),
    "a truncated header": (header(PING)[:7], 0),
    "a truncated body": (header(SEND, length=100) + b"x" * 99, 0),
    "truncated descriptors": (header(SEND, descriptors=254), 253),
    "descriptors that were not announced": (header(PING), 3),
    "fewer descriptors than announced": (header(SEND, descriptors=9) + bytes(10), 3),
    "no descriptors where some were announced": (header(SEND, descriptors=3) + bytes(3), 0),
    "a body in a file without a file": (header(SEND | IN_FILE, value=100), 0),
    "a file of negative size": (header(SEND | IN_FILE, descriptors=1, value=-1), 1),
    "descriptors beside half a header": (header(PING)[:7], 2),
    "a fork without sockets": (header(FORK), 0),
    "a fork with one socket": (header(FORK, descriptors=1), 1),
    "an adoption without a lifeline": (header(ADOPT), 0),
    "an adoption with two": (header(ADOPT, descriptors=2), 2),
    "a preload that is no pickle": (header(PRELOAD, length=5) + b"\xffjunk", 0),
    "an execute that is no pickle": (header(EXECUTE, length=5) + b"\xffjunk", 0),
    "a prepare that is no pickle": (header(PREPARE, length=5) + b"\xffjunk", 0),
    "an initialisation that is no pickle": (header(INIT, length=5) + b"\xffjunk", 0),
    "an initialisation that is empty": (header(INIT), 0),
    "a start that is no pickle": (header(START, length=5) + b"\xffjunk", 0),
    "a start with a name beyond its body": (header(START, length=5, value=1000) + b"abcde", 0),
    "a start with a name of negative length": (header(START, length=5, value=-3) + b"abcde", 0),
    "a program that is no pickle": (header(PROGRAM, length=5) + b"\xffjunk", 0),
    **{
        f"kind {kind}, which is for owners": (header(kind), 0)
        for kind in (READY, ENTERED, EXECUTING, FAILED, LOST, ADOPTED, BORN, DIED)
    },
    "a signal, which is for status sockets": (header(SIGNAL, value=9), 0),
}


@contextmanager
def attacked(attack):
    """Yield a template that got the bytes, the socket to it, and a process of the template that runs meanwhile."""
    data, count = ATTACKS[attack]
    template = Template().ready()
    process = template.fork().run(faulty.end_when_told, 4)
    process.channel.recv(1)
    pid = template.pid
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    sock = template.detach()
    try:
        send_raw(sock, data, fds)
        sock.shutdown(socket.SHUT_WR)
        yield pid, sock, process
    finally:
        for fd in fds:
            os.close(fd)
        sock.close()
        process.channel.close()
        process.wait(DEADLINE)
        process.close()


# These are whole frames: the template keeps the failure, and ends with its socket like any other.
KEPT = {name for name in ATTACKS if "no pickle" in name and "start" not in name and "program" not in name}
KEPT.add("an initialisation that is empty")
CUT = sorted(set(ATTACKS) - KEPT)


@pytest.mark.parametrize("attack", CUT)
def test_what_is_no_frame_leaves_the_templates_processes_running(attack):
    # Nothing else ends.
    with attacked(attack) as (_, sock, process):
        read_to_end(sock)
        assert not select.select([process], [], [], 0)[0]
        process.channel.sendall(b"x")
        assert process.wait(DEADLINE).code == 4


@pytest.mark.parametrize("attack", CUT)
def test_what_is_no_frame_is_answered_with_a_failure(attack):
    # With a clear error, unless the stream was cut by the owner in the middle of a frame.
    with attacked(attack) as (_, sock, _):
        data = read_to_end(sock)
        assert data[:2] == bytes([VERSION, FAILED]), data


@pytest.mark.parametrize("attack", CUT)
def test_what_is_no_frame_ends_the_template_after_its_processes(attack):
    # Somebody must reap them; then it goes.
    with attacked(attack) as (pid, sock, process):
        read_to_end(sock)
        pidfd = os.pidfd_open(pid)
        try:
            process.channel.close()
            assert select.select([pidfd], [], [], DEADLINE)[0]
        finally:
            os.close(pidfd)


@pytest.mark.parametrize("attack", sorted(KEPT))
def test_a_step_that_cannot_be_decoded_is_the_templates_failure(attack):
    # The frame is whole, so the stream goes on, and the next question is answered with the failure.
    data, _ = ATTACKS[attack]
    template = Template().ready()
    sock = template.detach()
    send_raw(sock, data + header(PING))
    sock.settimeout(DEADLINE)
    assert sock.recv(2) == bytes([VERSION, FAILED])
    sock.close()


@pytest.mark.parametrize("attack", ["fewer descriptors than announced", "descriptors that were not announced"])
def test_descriptors_of_a_malformed_frame_are_closed(attack):
    # The other end of a pipe sees it, although the template still waits for its process.
    data, count = ATTACKS[attack]
    template = Template().ready()
    process = template.fork().run(faulty.echo)
    read, write = os.pipe()
    sock = template.detach()
    send_raw(sock, data, [write] * count)
    os.close(write)
    assert select.select([read], [], [], DEADLINE)[0]
    assert os.read(read, 1) == b""
    os.close(read)
    sock.close()
    process.channel.close()
    process.wait(DEADLINE)
    process.close()


def test_a_frame_that_comes_byte_by_byte_is_understood():
    # Every read may bring one byte.
    sock = Template().ready().detach()
    for byte in header(PING) * 3:
        sock.sendall(bytes([byte]))
    sock.settimeout(DEADLINE)
    assert sock.recv(HEADER_SIZE, socket.MSG_WAITALL)[:2] == bytes([VERSION, READY])
    sock.close()


def test_descriptors_come_with_any_byte_of_a_header():
    # They are never lost to a plain read.
    sock = Template().ready().detach()
    with socket.socket() as one:
        data = header(SEND, descriptors=1) + header(PING)
        sock.sendall(data[:5])
        send_raw(sock, data[5:6], [one.fileno()])
        sock.sendall(data[6:])
        sock.settimeout(DEADLINE)
        assert sock.recv(2) == bytes([VERSION, READY])
    sock.close()


def test_a_silent_peer_does_not_stop_other_templates():
    # One that has sent half a frame and says nothing more.
    sock = Template().ready().detach()
    sock.sendall(header(SEND, length=1000) + b"x")
    with Template().run(faulty.end_with, 3) as process:
        pass
    assert process.returncode == 3
    sock.close()


def test_bytes_behind_a_close_are_not_looked_at():
    # After it nothing is accepted, and nothing is harmed.
    template = Template().ready()
    process = template.fork().run(faulty.end_when_told, 4)
    process.channel.recv(1)
    sock = template.detach()
    send_raw(sock, header(CLOSE) + b"\xff" * 100_000)
    read_to_end(sock)
    process.channel.sendall(b"x")
    assert process.wait(DEADLINE).code == 4
    process.close()
    sock.close()


def test_a_received_descriptor_is_not_inherited_by_a_program():
    # Neither by the template's programs nor by those of the process.
    with socket.socket() as one, Template() as template:
        process = template.send(one).run(faulty.list_descriptors_of_a_program)
        seen = process.channel.recv(10_000).decode()
        process.wait(DEADLINE)
        process.close()
    assert "socket:" not in seen


# --- A fake peer: what a template might send to its owner ---

ANSWERS = {
    "text": b"HTTP/1.1 200 OK\r\n\r\n",
    "a wrong version": header(ADOPTED, version=9),
    "an unknown kind": header(77),
    "a body above the limit": header(FAILED, length=MAX_BODY + 1),
    "a truncated header": header(ADOPTED)[:9],
    "a truncated body": header(FAILED, length=100) + b"x",
    "a failure that is none": header(FAILED, length=9) + b"\xff" * 9,
    "an empty failure": header(FAILED),
    "an entrance that was not requested": header(ENTERED),
    "a birth on a control socket": header(BORN),
    "a death on a control socket": header(DIED),
    "a command": header(FORK),
    "a lost fork that is no failure": header(LOST, length=3) + b"xyz",
    "descriptors that were announced and did not come": header(ADOPTED, descriptors=2),
}


@pytest.fixture
def peer():
    """Yield a handle whose template is this test: what it answers is up to us."""
    ours, theirs = socket.socketpair()
    template = Template.from_socket(theirs)
    yield template, ours
    ours.close()
    template.close()


@pytest.fixture
def adopted(peer):
    """Return the handle after the peer has said what a template says at first."""
    template, ours = peer
    ours.sendall(header(ADOPTED, value=NOBODY) + header(READY, value=NOBODY))
    template.ready(DEADLINE)
    return peer


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_peer_that_answers_with_what_is_no_frame_is_an_error(adopted, answer):
    # Seen from the owner.
    template, ours = adopted
    ours.sendall(ANSWERS[answer])
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(anyfork.PeerError):
        template.ready(DEADLINE)


def test_a_peer_that_says_nothing_lets_ready_time_out(peer):
    with pytest.raises(TimeoutError):
        peer[0].ready(0.05)


def test_a_peer_that_sends_half_a_frame_lets_ready_time_out(peer):
    peer[1].sendall(header(ADOPTED)[:9])
    with pytest.raises(TimeoutError):
        peer[0].ready(0.05)


def test_a_peer_that_closes_at_once_has_died(peer):
    peer[1].close()
    with pytest.raises(anyfork.TemplateDiedError):
        peer[0].ready(DEADLINE)


def test_descriptors_that_a_peer_sends_with_garbage_are_closed(adopted):
    template, ours = adopted
    read, write = os.pipe()
    send_raw(ours, header(READY, descriptors=1), [write, write, write])
    os.close(write)
    with pytest.raises(anyfork.PeerError):
        template.ready(DEADLINE)
    template.close()
    del template
    assert select.select([read], [], [], DEADLINE)[0], "the owner keeps descriptors that nobody wants"
    os.close(read)


def test_a_failure_of_an_unknown_kind_is_a_peer_error(adopted):
    # A newer template may fail in ways that this owner does not know.
    template, ours = adopted
    texts = [b"a new kind", b"", b"0", b"it failed", b""]
    body = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    ours.sendall(header(FAILED, length=len(body)) + body)
    with pytest.raises(anyfork.PeerError, match="a new kind"):
        template.ready(DEADLINE)


def test_from_socket_of_a_socket_that_is_no_templates_end_is_an_error_at_the_call():
    # Nothing but a connected Unix stream socket can be one.
    with socket.socket() as tcp, pytest.raises(anyfork.ArgumentError):
        Template.from_socket(tcp)


def test_processes_have_no_socket_that_anybody_could_connect_to():
    # Nothing is bound to a path or an abstract name.
    with Template() as template, template.fork().run(faulty.echo) as process:
        template.ready()
        inodes = set()
        for pid in (template.pid, process.pid, os.getpid()):
            for name in os.listdir(f"/proc/{pid}/fd"):
                try:
                    inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
                except OSError:
                    continue
        with open("/proc/net/unix") as table:
            named = {f"socket:[{line.split()[6]}]" for line in table.readlines()[1:] if len(line.split()) > 7}
        assert not inodes & named
