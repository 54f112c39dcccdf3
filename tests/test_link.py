"""The blocking end of one process: its queue, what waits in it, and interrupts."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import pickle
import select
import socket
import threading
import time
from types import SimpleNamespace

import child_side
import pytest
from conftest import eventually
from deadlines import DEADLINE
from link_functions import say_at_once
from owner_side import ask, ended, interrupt_in, output_of, pipe, read_all, result_of, stopped

import anyfork
from _anyfork_child.wire.frames import BORN, DEATH, DIED, HEADER, VERSION, ProtocolError
from anyfork._processes import undelivered
from anyfork._processes.endpoints import LAST_FRAME
from anyfork._processes.incoming import Incoming
from anyfork._processes.link import Link
from anyfork._system.polling import is_ready

INHERITED = {int(fd) for fd in os.listdir("/proc/self/fd")}  # what the tests were started with
BACKLOG = 800  # times 60 kB: more than any socket takes


@pytest.fixture
def template():
    with anyfork.Template().ready() as template:
        yield template


def fill(template):
    """Queue more than the socket takes; only the number of the last argument is of interest."""
    for number in range(BACKLOG):
        template.send(number.to_bytes(4, "little") * 15_000)
    assert queued(template) > 0


def queued(handle):
    return len(handle._link.outbox)


# --- Queueing -------------------------------------------------------------------------------------------------------


def test_nothing_is_queued_that_the_socket_takes(template):
    template.send(1).execute("pass").preload("json")
    assert queued(template) == 0


def test_asking_for_things_never_blocks_however_stopped_the_template_is(template):
    with stopped(template.pid):
        fill(template)
        template.execute("done = True").preload("json").prepare(child_side.add_one).fork().close()
    assert template.ready(DEADLINE) is template


def test_what_was_queued_arrives_whole_and_in_order(template):
    with stopped(template.pid):
        fill(template)
    expression = "[int.from_bytes(x[:4], 'little') for x in v] == list(range(len(v))) and len(v)"
    assert ask(template, expression) == BACKLOG


def test_a_start_may_be_queued_too(template):
    with stopped(template.pid):
        fill(template)
        process = template.start(child_side.answer, "len(v)")
    assert result_of(process) == BACKLOG


def test_descriptors_that_wait_in_the_queue_may_be_closed_meanwhile(template):
    with pipe() as (read, write):
        with stopped(template.pid):
            fill(template)
            template.send(anyfork.Descriptor(write))
            os.close(write)
        assert ask(template.fork(), "os.write(v[-1].fileno(), b'kept')") == 4
        assert os.read(read, 10) == b"kept"


def test_many_descriptors_may_wait_in_the_queue(template):
    with pipe() as (read, write):
        with stopped(template.pid):
            fill(template)
            template.send([anyfork.Descriptor(write) for _ in range(300)])
            os.close(write)
        assert ask(template, "sum(os.write(x.fileno(), b'.') for x in v[-1])") == 300
        assert len(os.read(read, 1000)) == 300


def test_a_large_argument_waits_in_a_file_and_not_in_the_queue(template):
    with stopped(template.pid):
        template.send(b"x" * (8 << 20))
        assert queued(template) == 0
    assert ask(template, "len(v[0])") == 8 << 20


def test_a_queue_whose_template_dies_is_given_up_with_its_descriptors(template):
    with pipe() as (read, write):
        with stopped(template.pid):
            fill(template)
            template.send(anyfork.Descriptor(write))
            os.close(write)
            os.kill(template.pid, 9)
        with pytest.raises(anyfork.TemplateDiedError):
            template.ready(DEADLINE)
        assert queued(template) == 0
        assert os.read(read, 1) == b""


def test_a_timeout_of_ready_leaves_the_queue_to_be_delivered_later(template):
    with stopped(template.pid):
        fill(template)
        with pytest.raises(TimeoutError):
            template.ready(0.05)
    assert ask(template, "len(v)") == BACKLOG


def test_the_queue_is_written_on_by_any_other_use_of_the_library(template):
    with stopped(template.pid):
        fill(template)
    with anyfork.Template() as other:
        deadline = time.monotonic() + DEADLINE
        while queued(template):
            other.send(1)
            assert time.monotonic() < deadline
    assert ask(template, "len(v)") == BACKLOG


def test_the_queue_is_written_on_while_a_process_is_waited_for(template):
    with anyfork.Template().run(child_side.until_closed) as process:
        with stopped(template.pid):
            fill(template)
        deadline = time.monotonic() + DEADLINE
        while queued(template):
            with pytest.raises(TimeoutError):
                process.wait(0.01)
            assert time.monotonic() < deadline
    assert ask(template, "len(v)") == BACKLOG


def test_nothing_is_left_to_deliver_in_the_end(template):
    with stopped(template.pid):
        fill(template)
    template.ready(DEADLINE)
    assert template._link not in undelivered.undelivered


def test_queues_that_come_and_go_leave_nothing_for_the_end_of_the_program(template):
    before = atexit._ncallbacks()
    for _ in range(3):
        with stopped(template.pid):
            fill(template)
        template.ready(DEADLINE)
    assert atexit._ncallbacks() == before


def test_what_waits_in_a_queue_at_the_end_of_the_program_is_delivered_if_it_can_be(tmp_path):
    program = f"""
import os, signal, sys, threading
sys.path.insert(0, {os.path.dirname(child_side.__file__)!r})
import anyfork, child_side
template = anyfork.Template().ready()
fork = template.fork(detached=True).ready()
os.kill(fork.pid, signal.SIGSTOP)
for _ in range({BACKLOG}):
    fork.send(b"x" * 60_000)
fork.start(child_side.count_into, {str(tmp_path / "trace")!r}).close()
os.kill(fork.pid, signal.SIGCONT)
"""
    output_of("-c", program)
    eventually(lambda: (tmp_path / "trace").exists() and (tmp_path / "trace").read_text() == str(BACKLOG + 1))


# --- Upstream -------------------------------------------------------------------------------------------------------


def test_a_fork_whose_birth_waits_in_the_queue_of_its_template_is_born(template):
    with stopped(template.pid):
        fill(template)
        fork = template.fork()
    assert ask(fork, "len(v)") == BACKLOG


def test_a_birth_that_waits_is_delivered_although_the_template_was_dropped():
    template = anyfork.Template().ready()
    with stopped(template.pid):
        fill(template)
        process = template.fork().start(child_side.answer, "len(v)")
        del template
        gc.collect()
    assert result_of(process) == BACKLOG


def test_generations_that_wait_for_each_other_are_all_born(template):
    with stopped(template.pid), contextlib.ExitStack() as line:
        fill(template)
        last = template
        for number in range(5):
            last = line.enter_context(last.fork().send(number))
        process = last.start(child_side.answer, "v[-5:]")
        line.pop_all()
    assert result_of(process) == list(range(5))


def test_a_process_whose_birth_waits_can_be_given_up(template):
    with stopped(template.pid):
        fill(template)
        process = template.fork().start(child_side.enter)
        with pytest.raises(anyfork.NotReadyError):
            process.ready(0.05)
    process.wait(DEADLINE)
    process.close()


# --- Interrupts -----------------------------------------------------------------------------------------------------


def test_an_interrupt_while_waiting_for_a_process_leaves_its_handle_usable(template):
    with template.run(child_side.echo) as process:
        with interrupt_in("wait_for_process"), pytest.raises(KeyboardInterrupt):
            process.wait()
        process.channel.sendall(b"alive")
        assert process.channel.recv(10) == b"alive"
        process.kill()
        assert process.wait(DEADLINE).signal == 9


def test_an_interrupt_while_waiting_for_a_template_leaves_its_handle_usable(template):
    with pipe() as (read, write):
        template.prepare(child_side.wait_for_end, anyfork.Descriptor(read))
        with interrupt_in("wait_for_process"), pytest.raises(KeyboardInterrupt):
            template.ready()
        os.close(write)
        assert ask(template, "v", "works") == ["works"]


def test_an_interrupt_while_waiting_for_a_start_leaves_its_handle_usable(template):
    with pipe() as (read, write):
        value = child_side.Decoding(child_side.stay_when_decoded, anyfork.Descriptor(read))
        process = template.start(child_side.leave, value)
        with interrupt_in("wait_for_process"), pytest.raises(KeyboardInterrupt):
            process.ready()
        os.close(write)
        assert process.ready(DEADLINE) is process
        assert ended(process).code == 0


def test_an_interrupt_of_run_leaves_no_process_that_nobody_knows(template):
    with pipe() as (read, write), pipe() as (listen, said), os.fdopen(os.dup(said), "wb", 0) as file:
        os.close(said)
        value = child_side.Decoding(child_side.stay_when_decoded, anyfork.Descriptor(read))
        with interrupt_in("wait_for_process"), pytest.raises(KeyboardInterrupt):
            template.fork().run(child_side.write_to, file, value)
        file.close()
        os.close(write)
        assert os.read(listen, 10) == b""
    assert template.ready(DEADLINE) is template


def test_an_interrupt_while_other_threads_wait_leaves_them_waiting(template):
    with template.run(child_side.until_closed) as process:
        statuses = []
        threads = [threading.Thread(target=lambda: statuses.append(process.wait(DEADLINE))) for _ in range(4)]
        for thread in threads:
            thread.start()
        with interrupt_in("wait_for_process"), pytest.raises(KeyboardInterrupt):
            process.wait()
        process.kill()
        for thread in threads:
            thread.join(DEADLINE)
        assert {status.signal for status in statuses} == {9}
        assert len(statuses) == 4


def test_an_interrupt_while_waiting_behind_another_thread_leaves_both_usable(template):
    with template.run(child_side.until_closed) as process:
        waiting = threading.Thread(target=process.wait, args=(DEADLINE,))
        waiting.start()
        for _ in range(3):
            with interrupt_in("wait_for_process"), pytest.raises(KeyboardInterrupt):
                process.wait()
        process.kill()
        assert process.wait(DEADLINE).signal == 9
        waiting.join(DEADLINE)


def test_a_signal_handler_that_does_not_raise_does_not_disturb_a_wait(template):
    import signal

    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        with template.run(child_side.until_closed) as process:
            signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
            with pytest.raises(TimeoutError):
                process.wait(0.05)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen


def test_a_handle_may_be_used_in_a_signal_handler_during_a_wait(template):
    import signal

    before = signal.signal(signal.SIGALRM, lambda *_: process.kill())
    try:
        with template.run(child_side.until_closed) as process:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert process.wait(DEADLINE).signal == 9
    finally:
        signal.signal(signal.SIGALRM, before)


# --- Descriptors ----------------------------------------------------------------------------------------------------


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_a_process_that_has_ended_keeps_no_descriptor_but_its_channel(template):
    before = open_descriptors()
    process = template.fork().run(child_side.enter)
    channel = process.channel
    process.wait(DEADLINE)
    eventually(lambda: open_descriptors() <= before + 1)
    channel.close()
    process.close()
    eventually(lambda: open_descriptors() <= before)


def test_a_process_whose_end_was_told_before_the_wait_keeps_no_descriptor(template):
    before = open_descriptors()
    with template.fork().run(child_side.enter) as process:
        assert process.channel.recv(1) == b""
        eventually(lambda: is_ready(process._link.status.fd))
        process.wait(DEADLINE)
        assert open_descriptors() == before + 1


def test_a_closed_template_keeps_no_descriptor(template):
    before = open_descriptors()
    with template.fork().ready():
        pass
    eventually(lambda: open_descriptors() <= before)


def test_a_line_of_forks_keeps_no_descriptor_once_its_last_is_closed(template):
    before = open_descriptors()
    last = template.fork().fork().fork()
    ended(last.start(child_side.enter))
    del last
    gc.collect()
    eventually(lambda: open_descriptors() <= before)


def test_the_descriptors_of_a_handle_are_not_inherited(template):
    with template.fork().run(child_side.until_closed) as process:
        ours = [int(fd) for fd in os.listdir("/proc/self/fd")]
        assert not os.get_inheritable(process.fileno())
        assert not os.get_inheritable(process.channel.fileno())
        inherited = [fd for fd in ours if fd not in INHERITED and is_open(fd) and os.get_inheritable(fd)]
        assert inherited == []


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_descriptor_of_the_process_can_be_polled_by_many(template):
    with template.run(child_side.until_closed) as process:
        poller = select.epoll()
        with poller:
            poller.register(process, select.EPOLLIN)
            process.kill()
            ((fd, events),) = poller.poll(DEADLINE)
            assert (fd, events & select.EPOLLIN) == (process.fileno(), select.EPOLLIN)


def test_the_first_poll_has_the_code_where_there_is_no_pidfd():
    (control, far_control), (status, far_status) = socket.socketpair(), socket.socketpair()
    link = Link(control, status, None)
    link.session.host = "elsewhere"  # the report of the end is all that says so there
    process = anyfork.Process._of(link)
    death = DEATH.pack(5 << 8, 0.0, 0.0, *[0] * 14)
    with far_control, far_status:
        far_status.send(HEADER.pack(VERSION, BORN, 0, 0, 71) + HEADER.pack(VERSION, DIED, 0, len(death), 71) + death)
        assert process.poll() == 5
        process.close()


# --- Peers that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 16, b"\xff" * 100], ids=["text", "zeros", "ones"]
)
def test_a_peer_that_is_no_template_is_an_error_and_not_waited_for(noise):
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(noise)
        with (
            anyfork.Template.from_socket(ours) as template,
            pytest.raises(anyfork.PeerError, match="not anyfork's protocol"),
        ):
            template.ready(DEADLINE)


def test_a_peer_that_ends_in_the_middle_of_a_frame_is_an_error():
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"\x01")
        theirs.shutdown(socket.SHUT_WR)
        with anyfork.Template.from_socket(ours) as template, pytest.raises(anyfork.PeerError):
            template.ready(DEADLINE)


def pieces_of_a_death():
    whole = HEADER.pack(VERSION, DIED, 0, DEATH.size + 5, 71) + bytes(DEATH.size) + b"words"
    return [[whole], [whole[:7], whole[7:]], [whole[:16], whole[16:]], [whole[:100], whole[100:-1], whole[-1:]]]


@pytest.mark.parametrize("pieces", pieces_of_a_death())
def test_a_frame_of_a_known_least_size_is_read_at_once_or_in_any_pieces(pieces):
    far, near = socket.socketpair()
    with far, near:
        incoming = Incoming(near)
        for piece in pieces[:-1]:
            far.send(piece)
            with pytest.raises(BlockingIOError):
                incoming.receive(incoming.present, LAST_FRAME)
        far.send(pieces[-1] + b"more")
        frame = incoming.receive(incoming.present, LAST_FRAME)
        assert (frame.kind, frame.value, frame.body) == (DIED, 71, bytes(DEATH.size) + b"words")
        assert near.recv(10) == b"more"


def test_a_frame_whose_socket_is_closed_before_it_is_noted_changes_nothing():
    far, near = socket.socketpair()
    with far, open(os.devnull) as file:
        socket.send_fds(far, [HEADER.pack(VERSION, BORN, 1, 0, 71)], [file.fileno()])
        incoming, session = Incoming(near), SimpleNamespace()
        calls = incoming.present
        (fd,) = incoming.receive(calls).fds
        incoming.close()
        incoming.commit(calls, (session, {"pidfd": fd}))
        assert not vars(session)
        assert not is_open(fd)
        with pytest.raises(BlockingIOError):
            incoming.receive(incoming.present)


def test_a_frame_that_is_shorter_than_it_can_be_is_an_error():
    far, near = socket.socketpair()
    with far, near:
        incoming = Incoming(near)
        far.send(HEADER.pack(VERSION, DIED, 0, 0, 71) + bytes(20))
        with pytest.raises(ProtocolError):
            incoming.receive(incoming.present, LAST_FRAME)


def test_bytes_of_the_function_right_behind_its_start_are_the_channels(template):
    for size in (1, 15, 16, 17, 1000, 70_000):
        with template.fork().run(say_at_once, size) as process:
            assert read_all(process.channel) == b"\x01" * size


def test_a_handle_is_no_value():
    with anyfork.Template() as template, pytest.raises(TypeError):
        pickle.dumps(template)


def test_a_link_whose_making_was_interrupted_is_dropped_in_silence():
    Link.__new__(Link).__del__()
