"""The owner forks by hand, or executes another program: handles refuse in the copy, and go on in the original."""

import asyncio
import os
import signal
from concurrent.futures import as_completed

import faulty
import pytest
from deadlines import DEADLINE
from programs import Program, run_program

import anyfork
from anyfork import Template, aio


def in_copy(function):
    """Call a function in a copy of this process, made by os.fork; return its text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(function()).encode())
        except BaseException as error:  # whatever it is, the test must learn of it
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


TEMPLATE_CALLS = {
    "ready": lambda template: template.ready(),
    "preload": lambda template: template.preload("json"),
    "execute": lambda template: template.execute("x = 1"),
    "prepare": lambda template: template.prepare(len, ""),
    "send": lambda template: template.send(1),
    "fork": lambda template: template.fork(),
    "start": lambda template: template.start(faulty.echo),
    "run": lambda template: template.run(faulty.echo),
    "run_program": lambda template: template.run_program(["true"]),
    "detach": lambda template: template.detach(),
}
PROCESS_CALLS = {
    "ready": lambda process: process.ready(),
    "wait": lambda process: process.wait(),
    "poll": lambda process: process.poll(),
    "kill": lambda process: process.kill(),
    "terminate": lambda process: process.terminate(),
    "send_signal": lambda process: process.send_signal(0),
    "fileno": lambda process: process.fileno(),
}


@pytest.mark.parametrize("call", TEMPLATE_CALLS)
def test_a_template_handle_refuses_in_a_forked_copy_of_its_owner(call):
    with Template() as template:
        template.ready()
        assert in_copy(lambda: TEMPLATE_CALLS[call](template)).startswith("HandleError: ")


@pytest.mark.parametrize("call", PROCESS_CALLS)
def test_a_process_handle_refuses_in_a_forked_copy_of_its_owner(call):
    with Template().run(faulty.echo) as process:
        assert in_copy(lambda: PROCESS_CALLS[call](process)).startswith("HandleError: ")


def test_the_refusal_names_both_processes():
    # It says who is to blame.
    with Template() as template:
        assert str(os.getpid()) in in_copy(template.ready)


def test_handles_work_on_in_the_original_after_a_copy_has_used_dropped_and_closed_them():
    # Closing in the copy does not end anything.
    with Template() as template, template.fork().run(faulty.echo) as process:
        handles = [template, process]
        in_copy(lambda: [handle.close() for handle in handles])
        in_copy(handles.clear)
        process.channel.sendall(b"x")
        assert process.channel.recv(1) == b"x"
        with template.fork().run(faulty.end_with, 3) as other:
            pass
        assert other.returncode == 3


WORKER_CALLS = {
    "call": lambda worker, *_: worker.call(abs, -1),
    "call with a timeout": lambda worker, *_: worker.call(abs, -1, timeout=DEADLINE),
    "map": lambda worker, *_: next(worker.map(abs, [1])),
    "stream": lambda worker, *_: worker.stream(range, 1),
    "ready": lambda worker, *_: worker.ready(DEADLINE),
    "wait": lambda worker, *_: worker.wait(DEADLINE),
    "next of a stream": lambda worker, stream, items: next(stream),
    "next of a map": lambda worker, stream, items: next(items),
}


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_workers_and_their_iterators_refuse_in_a_forked_copy_and_go_on_in_the_original(closed):
    worker = anyfork.Worker()
    stream, items = worker.stream(range, 100), worker.map(abs, range(9))
    handles = worker, stream, items
    assert (next(stream), next(items)) == (0, 0)
    if closed:
        worker.close()
    for call in WORKER_CALLS.values():
        assert in_copy(lambda call=call: call(*handles)).startswith("HandleError: ")
    silent = [items.close, worker.kill, worker.close, stream.close, stream.close, handles[0].close]
    assert in_copy(lambda: [end() for end in silent]) == str([None] * len(silent))
    if not closed:
        assert list(stream) == list(range(1, 100))
        assert list(items) == list(range(1, 9))
        assert worker.call(abs, -1) == 1
    items.close()
    worker.close()


def test_an_executor_its_futures_and_its_maps_refuse_in_a_forked_copy_and_go_on_in_the_original():
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as gate, anyfork.Executor(max_workers=1) as executor:
        running = executor.submit(faulty.wait_at, gate)
        waiting = executor.submit(abs, -1)
        items = executor.map(abs, range(3))
        calls = {
            "submit": lambda: executor.submit(abs, -1),
            "map": lambda: executor.map(abs, [1]),
            "next": lambda: next(items),
            "result": running.result,
            "exception": waiting.exception,
            "as_completed": lambda: next(as_completed([waiting])),
            "resize": lambda: executor.resize(2),
            "stats": executor.stats,
            "pids": lambda: executor.pids,
        }
        for call in calls.values():
            assert in_copy(call).startswith("HandleError: ")
        assert in_copy(lambda: [executor.kill(), executor.shutdown(), items.close()]) == "[None, None, None]"
        os.close(write)
        assert running.result(DEADLINE) is None
        assert waiting.result(DEADLINE) == 1
        assert list(items) == [0, 1, 2]
        assert in_copy(waiting.result) == "1"


def test_async_handles_refuse_in_a_forked_copy_and_go_on_in_the_original():
    async def use(pool, worker):
        stream, items, together = await worker.stream(range, 50), worker.map(abs, range(9)), pool.map(abs, range(9))
        calls = [
            stream.__anext__,
            items.__anext__,
            together.__anext__,
            lambda: worker.call(abs, -1),
            lambda: pool.call(abs, -1),
            worker.ready,
            worker.wait,
        ]
        ends = [stream.aclose, items.aclose, together.aclose, worker.aclose]
        for call in calls:
            await call() if call in calls[:3] else None
        for call in calls:
            assert in_copy(lambda call=call: asyncio.run(finish(call))).startswith("HandleError: ")
        for end in ends:
            assert in_copy(lambda end=end: asyncio.run(finish(end))) == "None"
        for iterator, count in ((stream, 50), (items, 9), (together, 9)):
            assert [item async for item in iterator] == list(range(1, count))
        assert (await worker.call(abs, -1), await pool.call(abs, -1)) == (1, 1)

    async def finish(function):
        return await function()

    async def main():
        async with aio.Pool(aio.Template(), max_workers=1) as pool, aio.Worker() as worker:
            await use(pool, worker)

    asyncio.run(main())


def test_a_copy_that_ends_does_not_end_the_templates_of_the_original():
    # The lifeline is that of the owner.
    with Template() as template:
        template.ready()
        for _ in range(3):
            in_copy(os.getpid)
        assert template.fork().ready(DEADLINE).close() is None


def test_a_copy_that_ends_like_an_interpreter_does_not_end_the_templates_of_the_original():
    """Exit handlers run in it."""
    source = """
template = Template().ready()
process = template.fork().run(faulty.echo)
if os.fork() == 0:
    sys.exit(0)
os.wait()
process.channel.sendall(b"x")
with template.fork().run(faulty.end_with, 3) as other:
    pass
say([process.channel.recv(1).decode(), other.returncode])
"""
    assert run_program(source) == ["x", 3]


def test_a_copy_makes_templates_of_its_own():
    # Gunicorn and celery fork their workers by hand.
    source = """
Template().ready()
pid = os.fork()
if pid == 0:
    with Template().run(faulty.end_with, 3) as process:
        pass
    os._exit(process.returncode)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_program(source) == 3


def test_what_a_copy_has_started_ends_with_the_copy():
    # It is an owner like any other.
    source = """
template = Template().ready()
from anyfork._processes.default_template import default_template
before = [template.pid, default_template._link.session.pid]
pid = os.fork()
if pid == 0:
    own = Template().run(faulty.stubborn)
    own.channel.recv(1)
    say([os.getpid(), before])
    signal.pause()
os.wait()
signal.pause()
"""
    with Program(source) as program:
        copy, before = program.read()
        assert len(program.everyone()) == len(before) + 3
        os.kill(copy, signal.SIGKILL)
        program.wait_for(before)


def test_a_queue_that_is_not_delivered_yet_is_delivered_by_the_original_only():
    # Two writers on one socket would mix their frames.
    source = """
from programs import PAUSE
template = Template().ready()
pid = template.pid
stop(pid)
for number in range(200):
    template.send(bytes([number]) * 60_000)
child = os.fork()
if child == 0:
    try:
        Template().ready()
    finally:
        os._exit(0)
os.waitpid(child, 0)
process = template.start(faulty.digest_of)
os.kill(pid, signal.SIGCONT)
import hashlib
expected = hashlib.sha256(b"".join(bytes([number]) * 60_000 for number in range(200))).digest()
say(process.channel.recv(100) == expected)
"""
    assert run_program(source) is True


def test_multiprocessing_by_fork_beside_it_works():
    source = """
import multiprocessing
template = Template().ready()
child = multiprocessing.get_context("fork").Process(target=print, args=("",), kwargs={"end": ""})
child.start()
child.join()
with template.fork().run(faulty.end_with, 3) as process:
    pass
say([child.exitcode, process.returncode])
"""
    assert run_program(source) == [0, 3]


def test_descriptors_of_the_library_are_not_inherited_by_a_program_that_the_owner_executes():
    source = """
import subprocess
template = Template().ready()
process = template.fork().run(faulty.echo)
process.channel
seen = subprocess.run(["ls", "-l", "/proc/self/fd"], stdout=subprocess.PIPE, close_fds=False, text=True).stdout
say(["socket:" in seen, "pidfd" in seen])
"""
    assert run_program(source) == [False, False]
