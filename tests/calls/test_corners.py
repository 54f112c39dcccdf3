"""What goes wrong between two things: calls that meet, handlers that call, deadlines before the start, descriptors of
what nobody wants."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import threading
from pathlib import Path

import anyio
import call_functions
import numpy as np
import pytest
from call_makers import MAKERS
from conftest import descriptors, eventually
from deadlines import DEADLINE
from owner_side import interrupted_at, output_of, pipe, stopped
from test_serializers import SPEAK, message

import anyfork
from _anyfork_child.wire import call_messages as wire
from anyfork import aio
from anyfork._calls import calls, requests

pytestmark = pytest.mark.usefixtures("warm_templates")


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def new_worker(request):
    return MAKERS[request.param]


@pytest.fixture
def worker(new_worker):
    with new_worker() as worker:
        yield worker.ready()


# --- Calls that meet ------------------------------------------------------------------------------------------------


def test_what_another_thread_could_not_send_is_written_on_by_the_one_that_reads(new_worker):
    # The thread that reads waits for its own answer, which comes only after the last of the others' arguments.
    with new_worker(concurrency=30) as worker, pipe() as (read, write):
        worker.ready()
        results = []
        file = anyfork.Descriptor(read)
        threads = [
            threading.Thread(
                target=lambda: results.append(worker.call(call_functions.echo_when_told, bytes(60_000), file))
            )
            for _ in range(20)
        ]
        with stopped(worker.pid):
            for thread in threads:
                thread.start()
            eventually(lambda: worker._channel.calls.outstanding == 20)
            last = threading.Thread(
                target=lambda: results.append(worker.call(call_functions.write_to, anyfork.Descriptor(write)))
            )
            last.start()
            eventually(lambda: worker._channel.calls.outstanding == 21)
            assert worker._channel.calls.out
        for thread in (*threads, last):
            thread.join(DEADLINE)
        assert sorted(map(len, results)) == [1, *[60_000] * 20]


def test_a_worker_may_be_closed_while_its_streams_are_open(new_worker):
    worker = new_worker()
    items = worker.stream(call_functions.count, 1000)
    assert next(items) == 0
    worker.close()
    items.close()


def test_closing_again_and_waiting_and_killing_after_it_are_harmless(new_worker):
    worker = new_worker()
    worker.ready()
    threads = [threading.Thread(target=worker.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert worker.wait().code == 0
    worker.kill()
    worker.close()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_handler_of_an_event_may_call_the_worker_again(backend):
    found = []
    with anyfork.Worker(concurrency=3, backend=backend) as worker:
        worker.call(
            call_functions.say_later,
            3,
            on_event=lambda value: found.append(worker.call(call_functions.echo_later, value, timeout=DEADLINE)),
        )
    assert sorted(found) == [0, 1, 2]


def test_a_handler_may_call_the_worker_for_each_of_many_events():
    """The handlers do not nest: 165 levels were enough for a RecursionError, and the worker was killed."""
    found = []
    with anyfork.Worker() as worker:
        worker.call(call_functions.say, 1000, on_event=lambda value: found.append(worker.call(abs, -value)))
        assert worker.call(abs, -1) == 1
    assert found == list(range(1000))


@pytest.mark.parametrize("of_the_call", [False, True])
def test_events_that_come_during_the_handler_of_an_event_are_handled_after_an_interrupt_but_by_no_call(of_the_call):
    found = []

    def handle(value):
        found.append(value)
        if value == 0:
            worker.call(abs, -1)  # this reads the other events
            raise KeyboardInterrupt

    with anyfork.Worker(on_event=handle, concurrency=2) as worker:
        with pytest.raises(KeyboardInterrupt):
            worker.call(call_functions.say, 3, on_event=handle if of_the_call else None)
        assert worker.call(abs, -1) == 1
    assert found == ([0] if of_the_call else [0, 1, 2])


@pytest.mark.anyio
async def test_an_async_handler_of_an_event_may_call_the_worker_again():
    found = []
    async with aio.Worker(concurrency=3) as worker:

        async def ask(value):
            found.append(await worker.call(call_functions.echo_later, value))

        with anyio.fail_after(DEADLINE):
            await worker.call(call_functions.say_later, 3, on_event=ask)
    assert sorted(found) == [0, 1, 2]


@pytest.mark.anyio
async def test_a_map_may_be_closed_in_the_middle_of_the_failure_of_its_worker():
    """A destructor may do that, in a collection that begins there."""
    async with aio.Worker() as worker:
        with pipe() as (read, _write):
            calls, results = worker._channel.calls, worker.map(abs, range(3))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.call, lambda file: os.read(file.fileno(), 1), anyfork.Descriptor(read))
                while not calls.outstanding:  # the items are to wait behind this call
                    await anyio.lowlevel.checkpoint()
                tasks.start_soon(results.__anext__)
                while len(calls._queue) < 3:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert len(calls._queue) == 3
            assert not calls.failed
            calls.fail(lambda _: results._work.close() or anyfork.WorkerDiedError("killed"))


@pytest.mark.slow
@pytest.mark.anyio
async def test_thousands_of_tasks_may_wait_for_room():
    results = []
    async with aio.Worker() as worker:

        async def call(number):
            results.append(await worker.call(call_functions.echo, number))

        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                for number in range(calls.MAX_CALLS * 3):
                    group.start_soon(call, number)
    assert sorted(results) == list(range(calls.MAX_CALLS * 3))


# --- Deadlines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["call", "close", "map", "wait"])
def test_a_signal_handler_may_close_the_worker_that_is_in_use(handled, use):
    with pipe() as (begun, begin), pipe() as (gate, go):
        where = anyfork.Descriptor(begin), anyfork.Descriptor(gate)

        def block(number):
            if number:
                os.write(where[0].fileno(), b".")
                os.read(where[1].fileno(), 1)
            return number

        def close(*_):
            os.write(go, b".")
            worker.close()

        def strike():
            assert os.read(begun, 1) == b"."
            task = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat")
            eventually(lambda: used and task.read_text().rpartition(")")[2].split()[0] == "S")
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        handled(signal.SIGUSR1, close)
        worker, used = anyfork.Worker(), []
        results = worker.map(block, range(2))
        assert next(results) == 0
        striker = threading.Thread(target=strike)
        striker.start()
        used.append(use)
        if use == "call":
            assert worker.call(block, 0) == 0
        elif use == "map":
            assert next(results) == 1
        else:
            getattr(worker, use)()
        striker.join()
        results.close()
        assert worker.wait().code == 0


@pytest.fixture
def handled():
    """Set a signal handler for one test."""
    before = {}

    def handle(number, handler):
        before[number] = signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_deadline_passes_while_events_keep_coming(new_worker):
    with new_worker() as worker, pytest.raises(anyfork.CallTimeoutError):
        worker.ready()
        worker.call(call_functions.flood, 1 << 30, 10, timeout=0.2, on_event=lambda _: None)


def test_a_deadline_counts_from_the_call_also_before_the_worker_is_there(new_worker):
    with pipe() as (read, write):
        template = new_worker.template().execute("import os; os.read(args[0].fileno(), 1)", anyfork.Descriptor(read))
        worker = new_worker(template)
        with pytest.raises(anyfork.CallTimeoutError, match="nothing of it has run") as caught:
            worker.call(call_functions.echo, 1, timeout=0.1)
        assert not caught.value.may_have_run
        os.write(write, b"x")
        assert worker.call(call_functions.echo, 1) == 1
        worker.close()


def test_the_deadline_of_a_call_of_its_own_counts_while_its_template_is_busy():
    with pipe() as (read, write), anyfork.Template() as template:
        template.execute("import os; os.read(args[0].fileno(), 1)", anyfork.Descriptor(read))
        with pytest.raises(anyfork.CallTimeoutError) as caught:
            anyfork.call(call_functions.echo, 1, template=template, timeout=0.1)
        assert not caught.value.may_have_run
        os.write(write, b"x")


def test_a_function_that_is_not_there_is_an_error_of_a_call_of_its_own_too():
    with pytest.raises(anyfork.FunctionNotFoundError):
        anyfork.call("call_functions:absent")


# --- Interrupts -----------------------------------------------------------------------------------------------------


@pytest.mark.untraced  # a tracer makes each of the 200 turns long
def test_an_interrupt_at_any_moment_leaves_a_worker_that_works_or_has_ended():
    # And never one that hangs.
    program = """
import signal, sys, anyfork
sys.path[:0] = PATH
import call_functions

class Enough(BaseException):
    pass

def interrupt(*_):
    raise Enough

signal.signal(signal.SIGALRM, interrupt)
template = anyfork.Template().preload("call_functions", "_anyfork_child.worker.loop").ready()
worker = anyfork.Worker(template.fork())
worker.call(call_functions.echo, 0)
interrupted = 0
for turn in range(200):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002 + turn * 2e-6)
        while True:
            worker.call(call_functions.echo, turn)
    except Enough:
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        assert worker.call(call_functions.echo, turn, timeout=20) == turn
    except anyfork.WorkerDiedError:
        worker.close()
        worker = anyfork.Worker(template.fork())
        worker.call(call_functions.echo, 0)
worker.close()
print(interrupted)
"""
    import sys

    assert output_of("-c", program.replace("PATH", repr([entry for entry in sys.path if entry]))) == "200\n"


# --- What nobody wants ----------------------------------------------------------------------------------------------


def test_the_descriptors_of_answers_that_nobody_takes_are_closed(worker):
    before = len(descriptors())
    for _ in range(3):
        results = worker.map(lambda _: call_functions.pair(), [[n] for n in range(30)])
        next(results)["there"].close()
        worker.call(call_functions.echo, 1)  # whose answer comes after those of the map
        assert len(descriptors()) > before + 20
        results.close()
        assert len(descriptors()) <= before


@pytest.mark.parametrize(
    "use",
    [
        lambda worker, data: worker.call(len, data),
        lambda worker, data: next(worker.stream(iter, data)),
        lambda worker, data: next(worker.map(len, [data, data])),
    ],
)
@pytest.mark.parametrize("step", ["_free_for", "_define_first"])
def test_what_an_interrupt_kept_from_being_sent_is_closed_although_the_traceback_is_kept(use, step):
    before = descriptors()
    with anyfork.Worker() as worker:
        interrupt = interrupted_at(getattr(calls.Calls, step), lambda: use(worker.ready(), bytes(calls.INLINE + 1)))
        assert [to for fd, to in descriptors().items() if fd not in before and "memfd" in to] == []
    assert interrupt.__traceback__ is not None


def test_the_descriptors_of_a_result_that_cannot_be_decoded_are_closed(worker):
    before = len(descriptors())
    for _ in range(5):
        with pytest.raises(anyfork.ResultError):
            worker.call(call_functions.undecodable_with_a_socket)
    eventually(lambda: gc.collect() is None or len(descriptors()) <= before)


def test_a_map_whose_item_does_not_fit_into_memory_ends_and_the_worker_goes_on(worker, monkeypatch):
    def full(fd, data):
        raise OSError(28, "No space left on device")

    items = [1, np.ones(1 << 20), 3]
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(OSError, match="No space"):
            list(worker.map(call_functions.echo, items))
    assert worker.call(call_functions.echo, 1) == 1


def test_errors_of_a_dead_worker_are_not_the_same_object_again_and_again(worker):
    worker.kill()
    errors = []
    for _ in range(3):
        with pytest.raises(anyfork.WorkerDiedError) as caught:
            worker.call(call_functions.echo, 1)
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3


def test_names_of_functions_beyond_those_that_have_numbers_are_found_too(worker, monkeypatch):
    monkeypatch.setattr(requests, "MAX_FUNCTIONS", 1)
    assert worker.call(call_functions.echo, 1) == 1
    assert worker.call("operator:neg", 1) == -1
    assert worker.call(call_functions.pid) == worker.pid


def test_a_function_that_raises_what_ends_an_iterator_does_not_end_a_map(worker):
    for name in ("raise_stop_iteration", "raise_stop_async_iteration"):
        with pytest.raises((RuntimeError, StopAsyncIteration)):
            list(worker.map(f"call_functions:{name}", [1, 2]))


def test_a_copy_of_the_owner_does_not_close_the_streams_of_the_original():
    program = """
import os, anyfork
with anyfork.Worker() as worker:
    items = worker.stream("builtins:range", 100)
    assert next(items) == 0
    pid = os.fork()
    if pid == 0:
        del items
        os._exit(0)
    os.waitpid(pid, 0)
    print(sum(items))
"""
    assert output_of("-c", program) == "4950\n"


# --- Workers that do not keep to it ---------------------------------------------------------------------------------

READY = message(wire.READY, detail=wire.VERSION, number=0)


@pytest.mark.parametrize(
    "said",
    [
        [(READY, (b"",))],
        [(READY, ()), (message(wire.EVENT), (b"",))],
        [(READY, ()), (message(wire.ITEM, b"N.") * 40, ())],  # at once: the owner must not take them one by one
        [(READY, ()), (message(wire.FAILED, b"", number=0), ())],
    ],
)
def test_what_a_worker_says_beyond_what_was_asked_gets_it_killed(new_worker, said):
    template = new_worker.template().preload("_anyfork_child.worker.loop").execute(SPEAK, said)
    worker = new_worker(template)
    before = len(descriptors())
    with pytest.raises((anyfork.PeerError, anyfork.WorkerDiedError)):
        if said[-1][0].startswith(message(wire.ITEM, b"N.")):
            list(worker.stream(call_functions.count, 10))
        else:
            worker.call(call_functions.echo, 1)
    worker.close()
    assert len(descriptors()) <= before + 4


def test_a_call_that_was_sent_may_have_run_whatever_comes_back(new_worker):
    # The second call of a function takes the short way, and its answer is noise.
    noise = """
import _anyfork_child.worker.loop as worker
def serve(channel, *given):
    said = list(args[0])
    channel.sendall(said.pop(0))
    reader = worker.WorkerServer(channel, None)
    while (messages := reader.read()) is not None:
        for kind, *_ in messages:
            if kind in (worker.CALL, worker.SMALL_CALL):
                channel.sendall(said.pop(0))
worker.serve = serve
"""
    said = [READY, message(wire.RESULT, pickle.dumps(1), number=1), b"noise" * 100]
    template = new_worker.template().preload("_anyfork_child.worker.loop").execute(noise, said)
    worker = new_worker(template).ready()
    assert worker.call(call_functions.echo, 1) == 1
    with pytest.raises(anyfork.PeerError) as caught:
        worker.call(call_functions.echo, 1)
    assert caught.value.may_have_run
    with pytest.raises(anyfork.PeerError) as caught:
        worker.call(call_functions.echo, 1)
    assert not caught.value.may_have_run
    worker.close()


def test_a_message_that_cannot_be_sent_ends_its_worker_and_each_call_says_whether_it_may_have_run(new_worker):
    with new_worker(concurrency=1) as worker, pipe() as (read, write):
        worker.ready()
        results = []

        def call(*args):
            try:
                results.append(worker.call(call_functions.echo_when_told, *args))
            except anyfork.WorkerDiedError as error:
                results.append(error.may_have_run)

        file = anyfork.Descriptor(read)
        threads = [threading.Thread(target=call, args=(np.ones(1 << 17), file)) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: worker._channel.calls.outstanding == 3)
        worker._channel.calls.out.append(broken_message())
        with pytest.raises(anyfork.WorkerDiedError):
            worker.call(call_functions.echo_later, 1)
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(results) == [False, False, True]


def broken_message():
    """Return a message whose descriptor is closed. The library never makes such a message."""
    from _anyfork_child.values.message import Message

    fd = os.dup(0)
    os.close(fd)
    return Message(b"x", [fd])


def test_the_death_of_a_template_leaves_its_workers_and_their_end_unknown(new_worker):
    with new_worker.template() as template, new_worker(template.fork()) as worker:
        worker.ready()
        os.kill(template.ready().pid, signal.SIGKILL)
        assert worker.call(call_functions.echo, 1) == 1
        with pytest.raises(anyfork.WorkerDiedError) as caught:
            worker.call(call_functions.vanish, 1)
        assert not caught.value.status.known


def test_a_file_with_holes_is_no_message(new_worker):
    hole = """
import _anyfork_child.worker.loop as worker, os, socket
def serve(channel, *given):
    channel.recv(1 << 16)
    file = os.memfd_create("x")
    os.truncate(file, 1 << 30)
    channel.sendall(args[0])
    socket.send_fds(channel, [args[1]], [file])
    channel.recv(1 << 16)
worker.serve = serve
"""
    said = message(wire.RESULT, flags=wire.IN_FILE, count=1)
    template = new_worker.template().preload("_anyfork_child.worker.loop").execute(hole, READY, said)
    worker = new_worker(template, serializer="json")
    with pytest.raises(anyfork.ResultError, match="of them written"):
        worker.call(call_functions.echo, 1)
    worker.kill()
    worker.close()


def test_the_death_of_a_worker_is_told_to_whoever_waits(new_worker):
    # At once: the thread that waits is woken by the death, and asks nobody who might be busy.
    with new_worker() as worker, pipe() as (read, _):
        worker.ready()
        killer = threading.Timer(0.1, os.kill, (worker.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(anyfork.WorkerDiedError, match="SIGKILL"):
            worker.call(call_functions.wait_for, anyfork.Descriptor(read))
        killer.join()


def test_sockets_of_a_call_are_closed_here_as_the_caller_wants(worker):
    here, there = socket.socketpair()
    with here:
        with there:
            answer = threading.Thread(target=here.sendall, args=(b"x",))
            answer.start()
            assert worker.call(call_functions.read_from, there) == b"x"
            answer.join()
        assert here.recv(1) == b""
