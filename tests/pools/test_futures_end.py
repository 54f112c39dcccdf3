"""Whatever happens, each future ends, and whoever waits for a pool comes back."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from textwrap import dedent

import anyio
import pool_functions as jobs
import pytest
from conftest import eventually, wait_for_end
from deadlines import DEADLINE
from pool_side import until

import anyfork
from anyfork import Executor, aio
from anyfork._executor.future import JobFuture
from anyfork._pools import jobs as jobs_module
from anyfork._pools import map as map_module
from anyfork.aio import _map as aio_map_module

SOON = 20.0  # seconds: a deadline, for what is there at once


@pytest.fixture
def executor(warm):
    with Executor(warm, max_workers=2) as executor:
        executor.submit(abs, 1).result(SOON)
        yield executor


def make_executor(template, **options):
    return Executor(template, max_workers=1, **options)


def make_pool(template, **options):
    return aio.Pool(template if template is None else aio.Template.from_blocking(template), max_workers=1, **options)


FACES = pytest.mark.parametrize("make", [make_executor, make_pool], ids=["Executor", "aio.Pool"])


# --- What cannot be started -------------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("own", [False, True], ids=["default template", "template"])
@pytest.mark.parametrize(
    "options",
    [
        {"initializer": print, "initargs": (threading.Lock(),)},
        {"initializer": threading.Lock().acquire},
        {"initializer": print, "initargs": ([{"deep": sys._getframe()}],)},
    ],
    ids=["argument", "function", "inside"],
)
def test_an_initializer_that_cannot_travel_is_refused_when_the_pool_is_made(make, own, options, warm):
    with pytest.raises(anyfork.ArgumentError, match="initializer of"):
        make(warm.fork() if own else None, **options)


@FACES
def test_a_template_that_was_closed_is_refused_when_the_pool_is_made(make, warm):
    template = warm.fork()
    template.close()
    with pytest.raises(anyfork.HandleError, match="closed"):
        make(template)


PROGRAMS = {
    "a future": "print(type(make().submit(abs, 1).exception(20)).__name__)",
    "a map": """
        try:
            list(make().map(abs, range(10)))
        except anyfork.LaunchError as error:
            print(type(error).__name__)
    """,
    "shutdown": "e = make(); f = e.submit(abs, 1); e.shutdown(); print(type(f.exception(0)).__name__)",
    "the end of the program": "e = make(); e.submit(abs, 1).add_done_callback(lambda f: print(type(f.exception()).__name__))",
    "a dropped one": "f = make().submit(abs, 1); print(type(f.exception(20)).__name__)",
    "an async call": """
        async def main():
            async with anyfork.aio.Pool() as pool:
                try:
                    await pool.call(abs, 1)
                except anyfork.LaunchError as error:
                    print(type(error).__name__)
        asyncio.run(main())
    """,
}


def run(source, **environment):
    head = "import asyncio, gc, os, signal, sys, threading, time, anyfork, anyfork.aio\nmake = anyfork.Executor\n"
    program = subprocess.run(
        [sys.executable, "-c", head + dedent(source)], capture_output=True, text=True, timeout=30, check=False
    )
    return program.returncode, program.stdout.split("\n")[:-1], program.stderr


@pytest.mark.parametrize("what", PROGRAMS)
def test_where_no_interpreter_can_be_started_this_fails_with_the_reason(what, monkeypatch):
    monkeypatch.setenv("ANYFORK_PYTHON", "/no/such/python")
    assert run(PROGRAMS[what]) == (0, ["LaunchError"], "")


def test_an_executor_goes_on_when_what_stood_in_the_way_of_workers_is_gone(monkeypatch):
    source = """
        import os
        os.environ["ANYFORK_PYTHON"] = "/no/such/python"
        with make(max_workers=1) as executor:
            print(type(executor.submit(abs, 1).exception(20)).__name__)
            del os.environ["ANYFORK_PYTHON"]
            print(executor.submit(abs, -1).result(20))
    """
    assert run(source) == (0, ["LaunchError", "1"], "")


@FACES
async def test_a_pool_that_is_closed_while_it_may_have_no_workers_fails_what_waits(make, anyio_backend, warm):
    pool = make(warm.fork())
    pool.resize(max_workers=0)
    if isinstance(pool, Executor):
        future = pool.submit(abs, 1)
        pool.shutdown()
        assert isinstance(future.exception(0), anyfork.CallCancelledError)
        return
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:

            async def call():
                with pytest.raises(anyfork.CallCancelledError, match="no workers"):
                    await pool.call(abs, 1)

            tasks.start_soon(call)
            await until(lambda: pool.stats().queued == 1)
            await pool.aclose()


def test_a_template_without_workers_waits_for_another_limit(warm):
    with Executor({warm: 0}) as executor:
        future = executor.submit(abs, -1)
        assert executor.stats().queued == 1
        executor.resize(limits={warm: 1})
        assert future.result(SOON) == 1


# --- The end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", range(3))
def test_a_thread_may_submit_while_the_program_ends(again):
    source = """
        executor = make(max_workers=1)
        def work():
            try:
                for number in range(100):
                    executor.submit(abs, -number).result(20)
                    list(executor.map(abs, range(3)))
                    list(make(max_workers=1).map(abs, range(3)))
            except RuntimeError:
                pass
            print("through")
        threading.Thread(target=work).start()
    """
    assert run(source) == (0, ["through"], "")


@pytest.mark.parametrize("name", ["terminate_workers", "kill_workers"])
def test_workers_can_be_ended(executor, name):
    running = executor.submit(time.sleep, 60)
    waiting = [executor.submit(time.sleep, 60) for _ in range(5)]
    while not (executor.stats().running == 2 and running.running()):
        time.sleep(0.001)
    getattr(executor, name)()
    assert isinstance(running.exception(SOON), futures.BrokenExecutor)
    assert not futures.wait(waiting, SOON).not_done
    assert sum(future.cancelled() for future in waiting) == 4
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_workers_of_an_executor_that_was_never_used_can_be_ended():
    executor = Executor()
    executor.terminate_workers()
    executor.kill_workers()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_an_executor_lives_as_long_as_one_with_its_options(warm):
    other = Executor(warm, max_workers=1).options(priority=1)
    gc.collect()
    assert other.submit(abs, -1).result(SOON) == 1


# --- Timeouts ---------------------------------------------------------------------------------------------------

LONG = [2.2e6, 1e10, 1e300, 10**400, math.inf]


@pytest.mark.parametrize("timeout", LONG)
def test_a_timeout_may_be_as_long_as_it_likes(timeout, warm):
    of_jobs = timeout if timeout != 10**400 else 10**300
    with Executor(warm, max_workers=1, timeout=of_jobs) as executor:
        future = executor.submit(abs, -1)
        assert future.result(timeout) == 1
        assert future.exception(timeout) is None
        assert executor.options(timeout=of_jobs).submit(abs, -2).result(SOON) == 2
        assert list(executor.map(abs, [-1, -2], timeout=timeout)) == [1, 2]


@pytest.mark.parametrize("timeout", [2.2e6, 1e10, math.inf])
async def test_a_timeout_of_an_async_call_may_be_as_long_as_it_likes(timeout, anyio_backend, warm):
    async with make_pool(warm.fork(), timeout=timeout) as pool:
        assert await pool.call(abs, -1, timeout=timeout) == 1
        assert [value async for value in pool.map(abs, [-1], timeout=timeout)] == [1]


async def test_what_is_no_number_is_no_timeout(executor, anyio_backend, warm):
    pool = make_pool(warm.fork())
    for refused in (
        lambda: executor.options(timeout=math.nan),
        lambda: executor.options(timeout="1"),
        lambda: executor.map(abs, [1], timeout=math.nan),
        lambda: executor.submit(time.sleep, 0.01).result(math.nan),
        lambda: executor.submit(abs, 1).exception("1"),
        lambda: Executor(timeout=math.nan),
        lambda: Executor(timeout=10**400),
        lambda: aio.Pool(idle_timeout=10**400),
        lambda: aio.Pool(timeout=math.nan),
        lambda: pool.map(abs, [1], timeout=math.nan),
    ):
        with pytest.raises(anyfork.ArgumentError, match="timeout"):
            refused()
    with pytest.raises(anyfork.ArgumentError, match="timeout"):
        await pool.call(abs, 1, timeout=math.nan)
    with pytest.raises(anyfork.ArgumentError, match="priority"):
        await pool.call(abs, 1, priority=math.nan)
    assert executor.submit(abs, -1).result(SOON) == 1
    await pool.aclose()


# --- In the middle of something else ----------------------------------------------------------------------------


class Dropped:
    """Part of a cycle, so that the collector finds it, in the middle of anything."""

    def __init__(self, action):
        self.me = self
        self.action = action

    def __del__(self):
        self.action()


@pytest.mark.untraced
def test_futures_may_be_cancelled_by_the_collector(executor):
    before = gc.get_threshold()
    gc.set_threshold(7)
    try:
        for number in range(300):
            Dropped(executor.submit(abs, -1).cancel)
            assert executor.submit(abs, -number).result(SOON) == number
    finally:
        gc.set_threshold(*before)


class Line:
    """Calls something in the middle of a call, when it has come to a certain line of it."""

    def __init__(self, action, at):
        self.action = action
        self.left = at

    def _trace(self, frame, event, _):
        if "anyfork" not in frame.f_code.co_filename:
            return None
        if event == "line" and self.left >= 0:
            self.left -= 1
            if self.left < 0:
                self.action()
        return self._trace

    def run(self, call):
        """Run the call; False when it ended before it came to that line."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return self.left < 0


def lines_of(call, action, step=1):
    """Yield the call in the middle of which something happens, at each line of it in turn."""
    at = 0
    while True:
        line = Line(action, at)
        yield lambda line=line: line.run(call)
        if line.left >= 0:
            return
        at += step


@pytest.mark.untraced
@pytest.mark.parametrize("outer", ["submit", "map", "cancel", "resize", "stats"])
def test_everything_may_be_called_in_the_middle_of_everything(executor, outer):
    inner = []

    def interrupt():
        inner.append(executor.submit(abs, -1))
        inner.append(executor.submit(time.sleep, 0))
        inner[-1].cancel()
        executor.resize(max_workers=2)
        executor.map(abs, range(3))
        executor.stats(), executor.pids, repr(executor)

    calls = {
        "submit": lambda: inner.append(executor.submit(abs, -2)),
        "map": lambda: list(executor.map(abs, range(3))),
        "cancel": lambda: executor.submit(abs, -2).cancel(),
        "resize": lambda: executor.resize(max_workers=3),
        "stats": executor.stats,
    }
    for run in lines_of(calls[outer], interrupt, step=3):
        run()
    done, not_done = futures.wait(inner, SOON)
    assert not not_done
    assert {future.result() for future in done if not future.cancelled()} <= {None, 1, 2}


@pytest.mark.untraced
@pytest.mark.parametrize("end", ["shutdown", "kill", "terminate_workers"])
def test_an_executor_may_be_ended_in_the_middle_of_a_submit(warm, end):
    at, came = 0, True
    while came:
        executor = Executor(warm, max_workers=1)
        executor.submit(abs, 1).result(SOON)
        waits, submitted = [], []

        def stop(executor=executor, waits=waits):
            try:
                getattr(executor, end)()
            except anyfork.HandleError as error:  # shutdown: it cannot wait
                waits.append(str(error))

        def submit(executor=executor, submitted=submitted):
            submitted.append(executor.submit(abs, -1))

        try:
            came = Line(stop, at).run(submit)
        except RuntimeError as error:
            assert "after shutdown" in str(error)  # noqa: PT017  # it may be refused, or done
        executor.shutdown()
        assert all(future.done() for future in submitted)
        assert all("wait=False" in text for text in waits)
        at += 6


@pytest.mark.untraced
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, RuntimeError, anyfork.HandleError])
def test_a_submit_that_is_torn_out_leaves_an_executor_that_works(executor, error):
    def interrupt():
        raise error("interrupted")

    for run in lines_of(lambda: executor.submit(abs, -1), interrupt, step=4):
        try:
            run()
        except error:
            pass
        assert executor.submit(abs, -2).result(SOON) == 2
    assert list(executor.map(abs, range(10))) == list(range(10))


@pytest.mark.untraced
@pytest.mark.parametrize("call", ["submit", "map", "resize", "cancel"])
def test_an_interrupt_of_a_decision_ends_no_worker_and_loses_no_job_of_others(executor, call):
    calls = {
        "submit": lambda: executor.submit(abs, -1),
        "map": lambda: executor.map(abs, [-1, -2]),
        "resize": lambda: executor.resize(load=2),
        "cancel": lambda: executor.submit(abs, -1).cancel(),
    }

    def interrupt():
        raise KeyboardInterrupt

    executor.submit(abs, -1).result(SOON)
    pids, step = {*executor.pids}, 5 if call == "submit" else 17
    for run in lines_of(calls[call], interrupt, step=step):
        first = executor.submit(time.sleep, 0.001)
        others, mapped = [executor.submit(abs, -number) for number in range(3)], executor.map(abs, [-7, -8])
        try:
            run()
        except KeyboardInterrupt:
            pass
        assert [future.result(SOON) for future in (first, *others)] == [None, 0, 1, 2]
        assert list(mapped) == [7, 8]
        assert pids <= {*executor.pids}


# --- Locks that somebody keeps, and callbacks -------------------------------------------------------------------


def test_a_future_whose_lock_is_kept_for_ever_stops_nobody_else(executor):
    kept, told = executor.submit(time.sleep, 0.05), []
    kept.add_done_callback(told.append)
    thread = threading.Thread(target=kept._condition.acquire)  # as an interrupt leaves it
    thread.start()
    thread.join()
    assert executor.submit(abs, -1).result(SOON) == 1
    assert list(executor.map(abs, range(10))) == list(range(10))
    executor.shutdown()
    assert told == [kept]
    assert kept.result(SOON) is None


@pytest.mark.untraced
@pytest.mark.parametrize("asked", [False, True], ids=["new condition", "old condition"])
def test_a_wait_that_begins_while_a_future_ends_hears_of_it_once(asked):
    # What as_completed and wait do first: they read the state and join the waiters, with the condition held.
    class Waiter:
        def __init__(self):
            self.told = 0
            self.needs = 0

        def add_result(self, future):
            self.told += 1

    def look():
        if future._condition.acquire(blocking=False):
            try:
                waiter.needs = future._state != "FINISHED"
                future._waiters.append(waiter)
            finally:
                future._condition.release()

    def look_in_a_thread():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    def end():
        nonlocal future, waiter
        future, waiter = JobFuture(), Waiter()
        if asked:
            future.add_done_callback(lambda future: None)
        future.end(None, 1)
        assert waiter.told == waiter.needs

    future = waiter = None
    for run in lines_of(end, lambda: future is None or look_in_a_thread()):
        run()
        future._condition  # noqa: B018  # what asks for it sees the end
        assert future._state == "FINISHED"


@pytest.mark.untraced
@pytest.mark.parametrize("asked", [False, True], ids=["new condition", "old condition"])
def test_who_asks_for_the_result_of_a_future_while_it_is_cancelled_hears_of_it(asked):
    def ask():
        if future is None:
            return
        threads.append(threading.Thread(target=look, args=(future,)))
        threads[-1].start()
        if future._final is not None and not (asked and future._condition._is_owned()):
            threads[-1].join(SOON)  # it does not wait any more, whoever else is to be told

    def look(future):
        with pytest.raises(futures.CancelledError):
            future.result(SOON)

    def cancel():
        nonlocal future
        future = JobFuture()
        if asked:
            future.add_done_callback(lambda future: None)
        future.end_cancelled()

    future, threads = None, []
    for run in lines_of(cancel, ask):
        run()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()


@pytest.mark.untraced
def test_an_interrupt_of_result_comes_out_as_it_is(executor):
    class InterruptError(Exception):
        pass

    def interrupt():
        raise InterruptError

    job = executor.submit(time.sleep, 0.2)
    for run in lines_of(lambda: job.result(SOON), interrupt):
        try:
            run()
        except InterruptError:
            pass
    assert job.result(SOON) is None
    assert executor.submit(abs, -1).result(SOON) == 1


def test_futures_may_be_waited_for_in_a_signal_handler_that_interrupts_such_a_wait(executor):
    def handle(*_):
        done.append(futures.wait(jobs, SOON).not_done)

    done, jobs = [], [executor.submit(abs, -number) for number in range(20)]
    before = signal.signal(signal.SIGUSR2, handle)
    try:
        with futures._base._AcquireFutures(jobs):  # as wait and as_completed do
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert done == [set()]
    assert not futures.wait(jobs, SOON).not_done
    assert sorted(job.result() for job in futures.as_completed(jobs, SOON)) == [*range(20)]


def test_a_callback_that_would_wait_for_a_later_job_gets_an_error(executor, gate):
    # Callbacks run in the thread that would have to bring the result. A look at the result is no wait.
    told = queue.SimpleQueue()

    def callback(_):
        later = executor.submit(os.getpid)
        waits = [partial(later.result, timeout) for timeout in (None, math.inf, 0.001, 0)]
        waits += [partial(next, executor.map(abs, [-1], timeout=timeout)) for timeout in (None, 0.001)]
        for wait in waits:
            try:
                wait()
            except Exception as error:
                told.put(type(error))
        told.put(later)

    executor.submit(jobs.wait, gate.file).add_done_callback(callback)
    gate.open()  # only now: the callback of a job that is done runs at once, in this thread
    refused, late = anyfork.HandleError, TimeoutError
    assert [told.get(timeout=DEADLINE) for _ in range(6)] == [refused, refused, refused, late, refused, refused]
    assert told.get(timeout=DEADLINE).result(DEADLINE) > 0


def test_kill_ends_a_worker_that_has_done_its_last_job_and_does_not_end(warm):
    executor = Executor(warm, max_workers=1)
    worker = executor.submit(jobs.leave_a_thread).result(SOON)
    executor.shutdown(wait=False)
    eventually(lambda: not executor.stats().workers)
    executor.kill()
    executor.shutdown()
    wait_for_end(worker)


async def test_a_cancelled_end_of_a_pool_kills_a_worker_that_does_not_end(anyio_backend):
    with anyio.CancelScope() as scope:
        async with aio.Pool(max_workers=1) as pool, anyio.create_task_group() as tasks:
            worker = await pool.call(jobs.leave_a_thread)
            tasks.start_soon(pool.aclose)
            await until(lambda: not pool.stats().workers)
            scope.cancel()
    wait_for_end(worker)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_callback_may_raise_anything(executor, raised, caplog):
    def callback(future):
        raise raised

    future = executor.submit(time.sleep, 0.05)
    told = threading.Event()
    future.add_done_callback(callback)
    future.add_done_callback(lambda future: told.set())
    assert told.wait(SOON)
    assert executor.submit(abs, -1).result(SOON) == 1
    assert "exception calling callback" in caplog.text


class RaisingHandler(logging.Handler):
    """A log handler that raises, as one whose queue is full or whose server is gone."""

    def __init__(self, raised):
        super().__init__(logging.DEBUG)
        self.raised = raised

    def emit(self, record):
        raise self.raised("no room for a record")


@contextmanager
def raising_log(raised):
    logger = logging.getLogger("anyfork")
    handler, before, reported = RaisingHandler(raised), logger.level, []
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "excepthook", lambda given: reported.append(given.exc_type))
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert set(reported) == {raised}


def vanish():
    os._exit(3)


def emit_and_return(value):
    anyfork.emit(value)
    return value


def test_a_log_handler_may_exit_and_the_executor_goes_on(warm):
    with raising_log(SystemExit), Executor(warm, max_workers=1) as executor:
        assert isinstance(executor.submit(vanish).exception(SOON), anyfork.WorkerDiedError)
        assert executor.submit(emit_and_return, 1).result(SOON) == 1, "an event without a handler is logged"
        assert list(executor.map(abs, [-1, -2], progress=lambda *_: int("no"), timeout=SOON)) == [1, 2]


async def test_a_log_handler_may_raise_and_the_pool_goes_on(anyio_backend):
    async with aio.Pool(max_workers=1) as pool:
        with raising_log(ValueError), pytest.raises(anyfork.WorkerDiedError):
            await pool.call(vanish)
        with raising_log(ValueError):
            assert await pool.call(emit_and_return, 1) == 1


def test_a_log_handler_may_use_the_executor_whose_initializer_fails(warm):
    class Handler(logging.Handler):
        def emit(self, record):
            said.append((record.getMessage(), executor.stats()))

    said = []
    handler = Handler()
    logging.getLogger("concurrent.futures").addHandler(handler)
    try:
        with Executor(warm, max_workers=1, initializer=jobs.no_luck) as executor:
            assert isinstance(executor.submit(abs, 1).exception(SOON), anyfork.InitializerError)
    finally:
        logging.getLogger("concurrent.futures").removeHandler(handler)
    assert said


@pytest.mark.parametrize("action", ["kill", "resize", "replace"])
async def test_a_signal_handler_may_change_a_pool_in_the_middle_of_anything(action, anyio_backend, warm):
    template = aio.Template.from_blocking(warm.fork())
    pool = aio.Pool(template, max_workers=2)
    changes = {
        "kill": pool.kill,
        "resize": lambda: pool.resize(max_workers=2),
        "replace": lambda: pool.replace_template(template),
    }
    before = signal.signal(signal.SIGALRM, lambda *_: changes[action]())
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.002 if action == "resize" else 0)
    try:
        with anyio.fail_after(SOON):
            for number in range(200 if action == "resize" else 20):
                assert await pool.call(abs, -number) == number
            if action == "kill":
                with pytest.raises(anyfork.AnyforkError):
                    while True:
                        await pool.call(abs, 1)
    except anyfork.AnyforkError:
        assert action == "kill"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        await pool.aclose()
        await template.aclose()


def test_a_job_that_is_out_of_time_gives_its_handler_no_further_event(warm):
    found = []
    with Executor(warm, max_workers=1, concurrency=2) as executor:
        job = executor.options(timeout=0.1, on_event=found.append).submit(jobs.say_before_and_after)
        with pytest.raises(anyfork.CallTimeoutError):
            job.result(SOON)
        assert executor.submit(abs, -1).result(SOON) == 1
    assert found in ([], ["before"])


def test_an_executor_that_is_dropped_in_the_middle_is_collected(warm):
    executor = Executor(warm, max_workers=1)
    future = executor.submit(abs, -1)
    seen = weakref.ref(executor)
    del executor
    assert future.result(SOON) == 1
    gc.collect()
    assert seen() is None


@pytest.mark.untraced
def test_a_result_that_would_never_come_is_an_error_in_the_middle_of_a_submit(executor):
    refused = []

    def interrupt():
        try:
            executor.submit(abs, -1).result()
        except anyfork.HandleError as error:
            refused.append(str(error))

    for run in lines_of(lambda: executor.submit(abs, -2).result(SOON), interrupt, step=3):
        run()
    assert any("has interrupted another call" in text for text in refused)


@pytest.mark.untraced
@pytest.mark.parametrize("options", [{}, {"load": 300}], ids=["waiting", "sent ahead"])
def test_a_cancellation_that_is_torn_out_leaves_no_future_that_never_ends(options, warm):
    def interrupt():
        raise KeyboardInterrupt

    with Executor(warm, max_workers=1, **options) as executor:
        executor.submit(time.sleep, 0.2)
        jobs = [executor.submit(abs, -1) for _ in range(150 if options else 40)]
        for at, job in enumerate(jobs):
            try:
                Line(interrupt, at).run(job.cancel)
            except KeyboardInterrupt:
                pass
        assert not futures.wait(jobs, SOON).not_done


class Torn(BaseException):
    """An exception of a signal handler."""


FILES_OF_MAPS = {module.__file__ for module in (jobs_module, map_module, aio_map_module)}


class LineOfMap(Line):
    """Raises an exception at a certain line of what a pool does for an answer to an item of a map."""

    def __init__(self, at):
        super().__init__(self.interrupt, at)

    def interrupt(self):
        sys.settrace(None)
        raise Torn

    def _trace(self, frame, event, argument):
        code = frame.f_code
        if code.co_filename in FILES_OF_MAPS and code.co_name in (
            "settle",
            "wake",
            "finish",
            "fail",
            "answered",
            "over",
        ):
            super()._trace(frame, event, argument)
        return self._trace


@pytest.mark.untraced
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the loop goes on after such an exception
async def test_an_unordered_map_loses_no_item_by_an_interrupt_of_the_loop(anyio_backend, warm):
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    line, at = LineOfMap(-1), 1
    async with aio.Template.from_blocking(warm.fork()) as template, aio.Pool(template, max_workers=1) as pool:
        while line.left < 0:
            line = LineOfMap(at)
            results = pool.map(jobs.die_at_13, range(11, 15), ordered=False, return_exceptions=True)
            sys.settrace(line._trace)
            try:
                with anyio.fail_after(SOON):
                    found = [result async for result in results]
            finally:
                sys.settrace(None)
            assert len(found) == 4
            at += 7
