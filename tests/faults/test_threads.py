"""Many threads use one template, worker or executor at once, in all the ways at the same time.

A thread switch comes as often as the interpreter can make one; without the GIL, the threads run side by side.
"""

from __future__ import annotations

import operator
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from queue import SimpleQueue

import anyio
import pytest
from conftest import eventually
from deadlines import DEADLINE

import anyfork
from anyfork import Executor, Template, Worker, aio
from anyfork._blocking.multiprocessing.main_lookup import MainLookup
from anyfork._calls.calls import Calls
from anyfork._executor.dispatcher import Dispatcher
from anyfork._system.threads import start_thread
from anyfork._system.timeouts import call_until
from tests.faults import faulty

THREADS = 8
BINARY = [
    getattr(operator, name)
    for name in [
        "add",
        "and_",
        "eq",
        "floordiv",
        "ge",
        "gt",
        "le",
        "lshift",
        "lt",
        "mod",
        "mul",
        "ne",
        "or_",
        "pow",
        "rshift",
        "sub",
        "truediv",
        "xor",
        "is_",
        "is_not",
    ]
]


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(action, count=THREADS):
    """Call ``action(number)``, with numbers from 1, in as many threads, all at once; return the results."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(DEADLINE)
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(DEADLINE) for future in [pool.submit(run, number) for number in range(1, count + 1)]]


def shuffled(items, seed):
    items = list(items)
    random.Random(seed).shuffle(items)
    return items


# --- Workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["worker", "executor"])
def test_functions_that_threads_name_first_at_the_same_time_are_told_apart(face):
    for turn in range(5):
        with Worker() if face == "worker" else Executor(max_workers=1) as user:

            def use(number, user=user, turn=turn):
                call = user.call if face == "worker" else lambda *job: user.submit(*job).result(DEADLINE)
                functions = shuffled(BINARY, f"{turn} {number}")
                return [function for function in functions if call(function, 7, number) != function(7, number)]

            assert together(use) == [[]] * THREADS


def test_functions_by_value_that_threads_map_first_at_the_same_time_have_different_numbers():
    workers = [Calls() for _ in range(200)]

    def use(number):
        return [calls.take_function("map", lambda: number).number for calls in workers]

    for numbers in zip(*together(use), strict=True):
        assert len({*numbers}) == THREADS


def test_a_worker_serves_calls_maps_streams_and_functions_by_value_of_many_threads_at_once():
    with Worker() as worker:

        def use(number):
            for turn in range(6):
                base = 1000 * number + turn
                assert worker.call(operator.add, base, 1) == base + 1
                assert list(worker.map(lambda item, base=base: base + item, range(10))) == [base + i for i in range(10)]
                with worker.stream(range, base, base + 5) as items:
                    assert list(items) == [*range(base, base + 5)]
                assert worker.call(lambda base=base: [base] * 3) == [base] * 3
                assert list(worker.map(operator.neg, range(base, base + 20))) == [-i for i in range(base, base + 20)]

        together(use)


def test_calls_that_threads_give_up_do_not_harm_those_of_others():
    with Worker(concurrency=4) as worker:

        def use(number):
            for turn in range(10):
                if number % 2:
                    with pytest.raises(anyfork.CallTimeoutError):
                        worker.call("asyncio:sleep", 1000, timeout=0.001)
                else:
                    assert worker.call(operator.mul, number, turn) == number * turn

        together(use)


# --- Executors ----------------------------------------------------------------------------------------------------------


def test_an_executor_serves_jobs_maps_and_cancellations_of_many_threads_at_once():
    with Executor(max_workers=2) as executor:

        def use(number):
            for turn in range(4):
                base = 1000 * number + turn
                futures = {executor.submit(function, 9, 2): function(9, 2) for function in shuffled(BINARY, base)}
                done = SimpleQueue()
                for future in futures:
                    future.add_done_callback(done.put)
                wanted = [future for future in futures if not (base % 3 == 0 and future.cancel())]
                assert list(executor.map(operator.neg, range(base, base + 30))) == [-i for i in range(base, base + 30)]
                assert {future: future.result() for future in as_completed(wanted, DEADLINE)} == {
                    future: futures[future] for future in wanted
                }
                assert {done.get(timeout=DEADLINE) for _ in futures} == futures.keys()

        together(use)


def test_large_functions_by_value_of_many_threads_are_told_apart():
    # They have numbers of their own, which are given in the threads that submit.
    with Executor(max_workers=2) as executor:

        def use(number):
            for turn in range(3):
                data = bytes([number, turn]) * 40_000
                assert executor.submit(lambda data=data: (data[0], data[1])).result(DEADLINE) == (number, turn)
                shared = bytes(80_000)
                assert (
                    executor.submit(lambda item, shared=shared: item + len(shared), number).result() == number + 80_000
                )

        together(use)


def test_a_bounded_queue_admits_each_of_many_threads():
    with Executor(max_workers=2, max_queued=2) as executor:
        assert sum(together(lambda number: sum(executor.submit(abs, -1).result() for _ in range(20)))) == 20 * THREADS


def test_threads_may_wait_for_one_future_while_it_ends():
    with Executor(max_workers=2) as executor:
        for turn in range(20):
            future = executor.submit(operator.add, turn, 1)
            assert together(lambda _, future=future: future.result(DEADLINE)) == [turn + 1] * THREADS


def test_an_executor_that_a_thread_shuts_down_ends_or_refuses_the_jobs_of_others():
    for _ in range(5):
        executor = Executor(
            max_workers=2, max_queued=50
        )  # without a bound, the queue would grow while the first one waits

        def use(number, executor=executor):
            if number == 1:
                executor.submit(abs, -1).result(DEADLINE)
                executor.shutdown(cancel_futures=True)
                return 0
            futures = []
            try:
                while True:
                    futures.append(executor.submit(abs, -1))
            except RuntimeError:
                wait(futures, DEADLINE)
                return sum(not future.cancelled() and future.result() != 1 for future in futures)

        assert together(use) == [0] * THREADS


# --- Templates --------------------------------------------------------------------------------------------------------


def test_each_of_many_threads_gets_its_own_processes_of_one_template():
    with Template() as template:

        def use(number):
            for turn in range(5):
                with template.fork().send(number).run(faulty.send_arguments, turn) as process:
                    assert process.channel.makefile().read() == repr((number, turn))
                    assert process.wait(DEADLINE).code == 0
                template.fork().close()
                template.fork()

        together(use)


def test_a_template_that_is_run_while_another_thread_forks_it_reports_how_the_fork_ends():
    for _ in range(20):
        template = Template().ready()

        def use(number, template=template):
            try:
                return template.start(faulty.echo) if number == 1 else template.fork().start(faulty.end_with, 7)
            except anyfork.HandleError:  # it was taken over before
                return None

        run, *forks = together(use, 3)
        run.channel.close()
        for process in filter(None, forks):
            assert process.wait(DEADLINE).code == 7
            process.close()
        assert run.wait(DEADLINE).code == 0
        run.close()


def test_one_thread_wins_a_template_that_has_processes():
    template = Template()
    template.fork().ready().close()

    def use(_):
        try:
            return template.start(faulty.echo)
        except anyfork.HandleError:
            return None

    (process,) = filter(None, together(use))
    process.channel.close()
    assert process.wait(DEADLINE).code == 0
    process.close()


# --- Event loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_of_many_threads_may_run_an_event_loop_of_its_own(backend):
    # Their pools and processes come from one default template.
    async def use(number):
        async with aio.Pool(max_workers=2) as pool, aio.Worker(aio.Template()) as worker:
            for turn in range(5):
                base = 1000 * number + turn
                assert await pool.call(operator.add, base, 1) == base + 1
                assert await worker.call(operator.sub, base, 1) == base - 1
                async with pool.map(operator.neg, range(base, base + 20)) as results:
                    assert [result async for result in results] == [-n for n in range(base, base + 20)]
                async with await aio.Template().run(faulty.end_with, number) as process:
                    assert (await process.wait()).code == number

    together(lambda number: anyio.run(use, number, backend=backend), 4)


# --- The start of a thread ------------------------------------------------------------------------------------------

STARTS = {
    function.__code__
    for function in (
        threading.Thread.start,
        threading.Event.wait,
        call_until,
        start_thread,
        Dispatcher._start,
    )
}


def interrupt_start(action, at):
    """Interrupt an action before one of the bytecode instructions that start a thread. Return whether it had so many."""
    left = at

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code not in STARTS:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                raise TimeoutError
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # before settrace, for Python 3.12
    sys.settrace(trace)
    try:
        action()
    except TimeoutError:
        pass
    finally:
        sys.settrace(before)
    return left < 0


def submit_first(template):
    with Executor(template, 1) as executor:
        executor.submit(abs, -1)


def answer_for_main(_):
    lookup = MainLookup()
    try:
        lookup.open().close()
    finally:
        sys.settrace(None)
        lookup.open().close()  # an interrupted call leaves to the next one what it has not done


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("start", "name"), [(submit_first, "anyfork Executor"), (answer_for_main, "anyfork definitions")]
)
def test_an_interrupt_of_the_start_of_a_thread_leaves_no_thread(start, name):
    # CPython lists some such threads for ever, and ends others before they call their function.
    with Template() as template:
        at = 0
        while interrupt_start(lambda: start(template), at):
            at += 1
    assert at > 20
    eventually(lambda: name not in {thread.name for thread in threading.enumerate()})
