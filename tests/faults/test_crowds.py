"""Many requests at once, from many threads, with slow readers and requests that are taken back."""

import gc
import os
import select
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import faulty
import pytest
from deadlines import DEADLINE
from programs import open_descriptors, run_program

import anyfork
from anyfork import Template

THREADS = 16
REQUESTS = 1000


def run_one(template, code):
    with template.fork().run(faulty.end_with, code) as process:
        pass
    return process.returncode


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_thousand_requests_of_sixteen_threads_each_get_their_own_answer():
    with Template() as template, ThreadPoolExecutor(THREADS) as pool:
        codes = list(pool.map(lambda number: run_one(template, number % 251), range(REQUESTS)))
    assert codes == [number % 251 for number in range(REQUESTS)]


@pytest.mark.timeout(240)
def test_a_thousand_requests_in_flight_are_all_answered():
    # More than the socket takes at once, and none is waited for before the last is asked.
    with Template() as template:
        processes = [template.fork().start(faulty.end_with, number % 251) for number in range(REQUESTS)]
        codes = []
        for process in processes:
            codes.append(process.wait(DEADLINE).code)
            process.close()
    assert codes == [number % 251 for number in range(REQUESTS)]


def test_many_requests_leave_no_descriptor_in_template_and_owner():
    with Template() as template:
        run_one(template, 0)
        gc.collect()
        before = open_descriptors(), open_descriptors(template.ready().pid)
        for _ in range(100):
            run_one(template, 0)
        gc.collect()
        assert (open_descriptors(), open_descriptors(template.ready().pid)) == before


def test_sixteen_threads_may_share_one_template_handle():
    # Configuring it, forking it and asking whether it is ready.
    with Template() as template, ThreadPoolExecutor(THREADS) as pool:

        def use(number):
            template.execute("count = globals().get('count', 0) + 1").send(number)
            fork = template.fork().ready()
            fork.close()
            return template.ready() is template

        assert all(pool.map(use, range(THREADS * 4)))
        with template.fork().run(faulty.send_arguments) as process:
            assert sorted(eval(process.channel.makefile().read())) == list(range(THREADS * 4))


def test_sixteen_threads_may_wait_for_one_process():
    process = Template().run(faulty.end_when_told, 4)
    process.channel.recv(1)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(process.wait, DEADLINE) for _ in range(THREADS)]
        process.channel.sendall(b"x")
        assert {future.result().code for future in waiting} == {4}
    process.close()


def test_sixteen_threads_may_make_the_first_template_at_once():
    # There is one default template, not sixteen.
    source = """
from concurrent.futures import ThreadPoolExecutor
barrier = threading.Barrier(16)

def first(_):
    barrier.wait()
    with Template().run(faulty.send_value, "os.getppid()") as process:
        return process.channel.recv(100).decode()

with ThreadPoolExecutor(16) as pool:
    say(len(set(pool.map(first, range(16)))))
"""
    assert run_program(source) == 1


def test_one_thread_wins_a_template_that_many_start_at_once():
    # It is taken over once.
    template = Template().ready()
    barrier = threading.Barrier(THREADS)

    def take(_):
        barrier.wait()
        try:
            return template.start(faulty.echo)
        except anyfork.HandleError:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        (process,) = filter(None, pool.map(take, range(THREADS)))
    process.channel.close()
    assert process.wait(DEADLINE).code == 0
    process.close()


def test_requests_that_are_taken_back_do_not_harm_those_beside_them():
    # Cancellation mid-request.
    with Template() as template, ThreadPoolExecutor(THREADS) as pool:

        def use(number):
            if number % 2:
                return run_one(template, 3)
            try:
                with template.fork().run(faulty.echo, timeout=0) as process:
                    return 0 if process.channel.close() is None else 1
            except anyfork.NotReadyError:
                return 0

        assert list(pool.map(use, range(200))) == [0, 3] * 100


def test_a_slow_consumer_does_not_hold_up_the_others():
    # Its process waits on its own channel.
    with Template() as template:
        slow = template.fork().run(faulty.send_much, 10_000_000)
        assert [run_one(template, 3) for _ in range(10)] == [3] * 10
        total = 0
        while data := slow.channel.recv(1 << 20):
            total += len(data)
        assert total == 10_000_000
        slow.wait(DEADLINE)
        slow.close()


def test_processes_that_are_killed_in_a_crowd_each_have_their_own_status():
    numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    with Template() as template:
        processes = [template.fork().start(faulty.wait_for_signals) for _ in range(60)]
        for process in processes:
            process.channel.recv(1)
        for index, process in enumerate(processes):
            process.send_signal(numbers[index % 4])
        assert [process.wait(DEADLINE).signal for process in processes] == numbers * 15
        for process in processes:
            process.close()


def test_a_process_may_make_templates_of_its_own():
    # In small: it is an owner as any other, and what it starts ends with it.
    with Template().run(faulty.start_own) as process:
        grandchild = int(process.channel.recv(100))
        pidfd = os.pidfd_open(grandchild)
    try:
        assert select.select([pidfd], [], [], DEADLINE)[0]
    finally:
        os.close(pidfd)
