"""Signal handlers, destructors and other threads in the middle of what a handle does."""

from __future__ import annotations

import contextlib
import threading
import time

import anyio
import faulty
import pytest
from deadlines import DEADLINE
from programs import run_program

import anyfork
from anyfork import Template, aio
from anyfork._system.locks import Once

# In another program, whose main thread is interrupted again and again: by an exception, or by a call.
INTERRUPTS = """
import random, time

class Enough(BaseException):
    pass

armed = False

def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise Enough

def soon(most=0.002):
    global armed
    armed = True
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, most))

def use_until_interrupted(use, most=0.002):
    # A function of its own: the block of its caller catches what comes at the end of this loop, too.
    soon(most)
    while armed:
        use()

signal.signal(signal.SIGALRM, interrupt)
template = Template().ready()
"""


def test_interrupts_of_forks_end_no_template_and_leave_no_descriptor():
    source = """
template.fork().start("builtins:id").wait()
before, interrupted = len(os.listdir("/proc/self/fd")), 0
while interrupted < 60:
    try:
        use_until_interrupted(lambda: template.fork().start("builtins:id").wait(5))
    except Enough:
        interrupted += 1
    template.fork().ready(5)
more = len(os.listdir("/proc/self/fd")) - before
say([template.ready(5) is template, more <= 3])
"""
    assert run_program(INTERRUPTS + source) == [True, True]


def test_interrupts_of_waits_give_back_the_turn():
    source = """
right = []
process = template.fork().run(faulty.echo)
def wait():
    try:
        process.wait(0.00001)
    except TimeoutError:
        pass
for _ in range(100):
    try:
        use_until_interrupted(wait, 0.0005)
    except Enough:
        pass
process.channel.close()
say([process.wait(5).code, process.poll()])
"""
    assert run_program(INTERRUPTS + source) == [0, 0]


def test_an_interrupt_of_a_call_ends_the_worker_or_leaves_it_usable():
    source = """
wrong = []
for _ in range(25):
    worker = anyfork.Worker(template.fork())
    try:
        use_until_interrupted(lambda: worker.call(abs, -2), 0.004)
    except Enough:
        pass
    try:
        if worker.call(abs, -3, timeout=5) != 3:
            wrong.append("result")
    except anyfork.WorkerDiedError:
        pass
    worker.close()
say(wrong)
"""
    assert run_program(INTERRUPTS + source) == []


def test_a_call_that_failed_leaves_nothing_to_the_collector_whose_destructors_swallow_interrupts():
    source = """
import gc, weakref
gc.disable()

def interrupted_call():
    worker = anyfork.Worker(template.fork()).ready()
    try:
        use_until_interrupted(lambda: worker.call(abs, -2))
    except Enough:
        pass
    return worker

def failed_call():
    worker = anyfork.Worker(template.fork()).ready()
    worker.kill()
    try:
        worker.call(os.getpid, timeout=20)
    except anyfork.WorkerDiedError:
        pass
    return worker

def late_call():
    worker = anyfork.Worker(template.fork()).ready()
    try:
        worker.call(time.sleep, 60, timeout=0.01)
    except anyfork.CallTimeoutError:
        pass
    return worker

kept = []
for use in [*10 * [interrupted_call], failed_call, late_call]:
    worker = use()
    worker.close()
    there = weakref.ref(worker._channel)
    del worker
    kept += [use.__name__] * (there() is not None)
say(kept)
"""
    assert run_program(INTERRUPTS + source) == []


def test_calls_in_signal_handlers_and_destructors_harm_neither_the_call_nor_the_worker():
    source = """
import gc
worker = anyfork.Worker()
first = worker.call(os.getpid)

def use():
    try:
        assert worker.call(abs, -7) == 7
    except anyfork.HandleError as error:
        assert "signal handler or a destructor" in str(error)

class Proxy:
    def __init__(self):
        self.me = self

    def __del__(self):
        use()

def handler(*_):
    use()
    if armed:
        signal.setitimer(signal.ITIMER_REAL, 0.02)

armed = True
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
gc.set_threshold(50)
for _ in range(500):
    Proxy()
    assert worker.call(abs, -2) == 2
assert list(worker.map(abs, range(300))) == list(range(300))
assert list(worker.stream(range, 300)) == list(range(300))
armed = False
signal.setitimer(signal.ITIMER_REAL, 0)
gc.collect()
say(worker.call(os.getpid) == first)
worker.close()
"""
    assert run_program(source) is True


def test_calls_in_a_signal_handler_may_use_the_default_template_and_the_same_process():
    source = """
process = Template().run(faulty.echo)
anyfork.call(abs, -1)
done = []

def handler(*_):
    assert anyfork.call(abs, -7) == 7
    assert process.poll() is None
    done.append(1)
    signal.setitimer(signal.ITIMER_REAL, 0.003)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while len(done) < 20:
    assert anyfork.call(abs, -2) == 2
    try:
        process.wait(0.002)
    except TimeoutError:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
process.close()
say(True)
"""
    assert run_program(source) is True


def test_what_a_signal_handler_asks_of_an_executor_does_not_wait_for_a_decision_that_waits_for_the_interrupted():
    with anyfork.Template() as template, anyfork.Executor(template, max_workers=1) as executor:
        assert executor.submit(abs, -1).result(DEADLINE) == 1
        lock, decides, found = template._link.lock, threading.Event(), []

        def decide():
            with executor._dispatcher.lock:
                decides.set()
                found.append(lock.acquire(timeout=DEADLINE))
                if found[0]:
                    lock.release()

        decider = threading.Thread(target=decide)
        with lock:  # as an interrupt in the middle of the template's use
            decider.start()
            decides.wait()
            job = executor.submit(abs, -2)
            executor.replace_template(template)
            assert executor.stats().workers == len(executor.pids) == 1
            assert "workers=1" in repr(executor)
        decider.join()
        assert found == [True]
        assert job.result(DEADLINE) == 2


def test_what_a_signal_handler_raises_while_arguments_are_pickled_is_no_argument_error():
    source = """
import os, signal

class Deadline(Exception):
    pass

class Interrupting:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        return int, ()

def handler(*_):
    raise Deadline

signal.signal(signal.SIGUSR1, handler)
seen = []
with anyfork.Worker() as worker:
    for use in (
        lambda: worker.call(id, Interrupting()),
        lambda: list(worker.map(id, [Interrupting()])),
        lambda: worker.stream(iter, Interrupting()),
        lambda: anyfork.call(id, Interrupting()),
        lambda: Template().send(Interrupting()),
        lambda: Template().start("builtins:id", Interrupting()),
        lambda: Template().prepare(id, Interrupting()),
    ):
        try:
            use()
        except Deadline:
            seen.append(True)
say(seen)
"""
    assert run_program(source) == [True] * 7


def closed_while_it_waits(handle, wait, close):
    """Return what a thread that waits gets when another one closes the handle."""
    raised = []
    waits = threading.Event()

    def run():
        waits.set()
        try:
            wait()
        except anyfork.HandleError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    waits.wait(DEADLINE)
    end = time.monotonic() + DEADLINE
    while not handle._link.waiters and time.monotonic() < end:
        threading.Event().wait(0.001)
    close()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    return raised


def test_closing_a_process_ends_the_waits_for_it_in_other_threads():
    process = Template().run(faulty.echo)
    assert closed_while_it_waits(process, process.wait, process.close)


def test_closing_a_process_ends_the_wait_until_it_is_ready():
    process = Template().execute("import time; time.sleep(0.5)").start(faulty.echo)
    assert closed_while_it_waits(process, process.ready, process.close)


def test_closing_a_template_ends_the_wait_until_it_is_ready():
    template = Template().execute("import time; time.sleep(0.5)")
    assert closed_while_it_waits(template, template.ready, template.close)


def leave(process):
    """Leave the block of a process, as one of several threads."""
    with contextlib.suppress(anyfork.HandleError):
        process.__exit__(None, None, None)


def test_two_threads_may_leave_one_process():
    process = Template().start("builtins:id")
    threads = [threading.Thread(target=leave, args=(process,), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.anyio
async def test_closing_an_async_process_ends_the_waits_of_other_tasks():
    process = await aio.Template().run(faulty.echo)
    seen = []

    async def wait():
        with contextlib.suppress(anyfork.HandleError):  # unless it has ended before, by the end of its channel
            await process.wait()
        seen.append(True)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await process.aclose()
    assert seen == [True] * 3


def test_the_channel_of_a_dropped_process_stays_open_while_somebody_has_it():
    channel = Template().run(faulty.echo).channel
    channel.sendall(b"hello")
    assert channel.recv(5) == b"hello"
    channel.close()


# --- Names that are loaded at their first use ------------------------------------------------------------------------

LATER = """
import sys, threading
from anyfork._system.public_names import MODULES, WHERE

names, path = [*WHERE, *MODULES], [*sys.path]
"""


def test_a_signal_handler_finds_the_name_that_it_has_interrupted_the_loading_of():
    source = """
wanted, found = "", set()
signal.signal(signal.SIGUSR1, lambda *_: found.add((wanted, getattr(anyfork, wanted))))
sys.addaudithook(lambda event, args: signal.raise_signal(signal.SIGUSR1) if wanted and event == "import" else None)
for wanted in names:
    found.add((wanted, getattr(anyfork, wanted)))
wanted = ""
say([len(found) == len(names), sys.path == path])
"""
    assert run_program("import anyfork\n" + LATER + source) == [True, True]


def test_threads_load_all_names_at_once_and_leave_the_path_as_it_is():
    source = """
together, found = threading.Barrier(2 * len(names)), []

def load(name):
    together.wait()
    found.append(getattr(anyfork, name))

threads = [threading.Thread(target=load, args=(name,)) for name in 2 * names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say([len(found) == 2 * len(names), sys.path == path])
"""
    assert run_program("import anyfork\n" + LATER + source) == [True, True]


def test_calls_and_final_steps_are_made_once_by_all_who_interrupt_each_other():
    calls, done = Once(), []
    calls.call(0, map(done.append, "a"))
    calls.call(0, map(done.append, "b"))
    calls.finish(map(done.append, "c"))
    calls.finish(map(done.append, "d"))
    assert (calls, done) == ([None], ["a", "c"])
