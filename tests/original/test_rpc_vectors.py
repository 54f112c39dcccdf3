"""The vectors R1 to R11 that were measured on AnyEvent::Fork::RPC, its own tests, and what its manual promises.

A docstring that begins with ! says where we differ on purpose.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import pytest
import rpc_functions as rpc
from conftest import eventually
from deadlines import DEADLINE
from original_owner import Pipe, Watch, other_owner, read_to_end, stop, title
from owner_side import output_of
from procfs import state_of

import anyfork
from _anyfork_child.values.serializers import Raw
from _anyfork_child.wire.call_messages import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from typing import IO, Any

MEGABYTE = 1 << 20
SYNC: dict[str, Any] = {}
ASYNC: dict[str, Any] = {"concurrency": 4}
TRIO: dict[str, Any] = {"concurrency": 4, "backend": "trio"}
every_kind = pytest.mark.parametrize("options", [SYNC, ASYNC, TRIO], ids=["sync", "asyncio", "trio"])
concurrent_kinds = pytest.mark.parametrize("options", [ASYNC, TRIO], ids=["asyncio", "trio"])


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with Pipe() as pipe:
        yield pipe


@pytest.fixture
def gate() -> Iterator[Pipe]:
    """Yield what a call waits for until the test lets it go on."""
    with Pipe() as pipe:
        yield pipe


@contextlib.contextmanager
def working(template: anyfork.Template | None = None, **options: Any) -> Iterator[anyfork.Worker]:
    """Yield a worker, killed when the test fails, so that no call of another thread waits for ever."""
    with anyfork.Worker(template, **options) as worker:
        try:
            yield worker
        except BaseException:
            worker.kill()
            raise


@pytest.fixture
def begin() -> Iterator[Callable[..., Future[Any]]]:
    """Call something in a thread."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


class Events:
    """What a worker sends, and a way to wait for it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, value: Any) -> None:
        with self._changed:
            self.seen.append(value)
            self._changed.notify_all()

    def wait_for(self, number: int) -> list[Any]:
        """Return the events, as soon as there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= number, DEADLINE), f"only {self.seen}"
            return self.seen


# --- R1: one call after the other -----------------------------------------------------------------------------------


def test_three_calls_bring_event_and_result_by_turns_in_the_order_of_the_calls():
    # R1.
    log: list[Any] = []
    with anyfork.Worker(on_event=lambda number: log.append(f"event {number}")) as worker:
        for number in ("1", "2", "3"):
            result = worker.call(rpc.announce, number)
            log.append(f"result {result}")
    assert log == ["event 1", "result 1", "event 2", "result 2", "event 3", "result 3"]


def test_a_worker_dropped_while_calls_are_queued_answers_them_in_order_and_ends():
    # R1, 01_sync: what was asked for holds it until it has answered.
    events = Events()
    worker = anyfork.Worker(on_event=events).ready()
    with Watch(worker.pid) as process:
        results = worker.map(rpc.announce, [1, 2, 3, 4])
        first = next(results)
        del worker
        assert [first, *results] == [1, 2, 3, 4]
        del results
        gc.collect()
        process.wait()
    assert events.seen == [1, 2, 3, 4]


def test_a_worker_closed_while_calls_are_queued_answers_them_in_order_and_ends_well():
    # R1, 01_sync: on_destroy is the return of close here, and wait says how it ended.
    events = Events()
    worker = anyfork.Worker(on_event=events)
    results = worker.map(rpc.announce, [1, 2, 3, 4])
    first = next(results)
    worker.close()
    assert [first, *results] == [1, 2, 3, 4]
    assert events.seen == [1, 2, 3, 4]


@every_kind
def test_a_worker_that_was_asked_nothing_ends_when_it_is_dropped(options):
    # R1: on_destroy comes to unused ones too.
    worker = anyfork.Worker(**options).ready()
    with Watch(worker.pid) as process:
        del worker
        gc.collect()
        process.wait()


@every_kind
def test_a_worker_whose_owner_wants_nothing_more_runs_its_exit_handlers(options, pipe):
    # 2.6: at the end of what comes the interpreter ends as usual.
    with anyfork.Worker(**options) as worker:
        worker.call(rpc.say_at_exit, pipe.write)
        assert not pipe.readable()
    assert pipe.take() == b"the worker ends"


def test_a_worker_can_be_called_before_it_is_there():
    # 2.3: making one does not wait for it.
    template = anyfork.Template().ready()
    with Watch(template.pid):
        stop(template.pid)
        with working(template) as worker:
            before = worker.pid
            os.kill(template.pid, signal.SIGCONT)
            assert worker.call(rpc.pid) == worker.pid
    assert before is None or before == worker.pid


def test_a_worker_takes_its_template_over():
    # 2.1: as run does.
    template = anyfork.Template()
    with anyfork.Worker(template), pytest.raises(anyfork.HandleError):
        template.fork()


def test_a_worker_of_a_template_without_forks_is_that_very_process():
    # 2.1.
    template = anyfork.Template().ready()
    pid = template.pid
    with anyfork.Worker(template) as worker:
        assert worker.call(rpc.pid) == pid


def test_a_result_is_one_value_whatever_it_is():
    # ! 2.3: the original hands a list of values to its callback; a function here returns one.
    with anyfork.Worker() as worker:
        assert worker.call(rpc.several, 1, "two") == (1, "two")
        assert worker.call(rpc.several) == ()


def test_the_title_of_a_worker_begins_with_the_pid_of_its_owner():
    # 2.6.
    with anyfork.Worker() as worker:
        assert title(worker.ready().pid).startswith(f"{os.getpid()} ")


def test_calls_of_many_threads_run_one_after_the_other(begin):
    # 2.6: a slow one blocks those behind it.
    with working() as worker:
        assert {call.result() for call in [begin(worker.call, rpc.overlap) for _ in range(50)]} == {1}


def test_a_worker_that_runs_one_call_at_a_time_loads_no_event_loop_and_nothing_of_the_owners_side():
    # 2.6: it is a small process.
    with anyfork.Worker(anyfork.Template.new_exec()) as worker:
        loaded = worker.call(rpc.modules)
    assert not {"asyncio", "anyio", "trio", "anyfork", "multiprocessing"} & set(loaded)


# --- R2: many at once -----------------------------------------------------------------------------------------------


@concurrent_kinds
def test_calls_that_run_at_once_return_out_of_order_each_after_its_event(options, begin):
    # R2: when the result of one comes the later ones are still running, so no clock is needed to know the order.
    events = Events()
    with working(on_event=events, **options) as worker:
        calls = {number: begin(worker.call, rpc.wait_for_turn, number) for number in (3, 2, 1)}
        assert sorted(events.wait_for(3)) == [1, 2, 3]
        for number in (1, 2, 3):
            assert not any(call.done() for call in calls.values())
            worker.call(rpc.give_turn, number)
            assert calls.pop(number).result(DEADLINE) == number


@concurrent_kinds
def test_events_reach_the_handler_of_the_call_they_belong_to(options, begin):
    # ! 2.8: the original's events belong to the process; here a call may have a handler of its own.
    handlers = {number: Events() for number in (1, 2, 3)}
    with working(on_event=pytest.fail, **options) as worker:
        calls = [
            begin(worker.call, rpc.wait_for_turn, number, on_event=handler) for number, handler in handlers.items()
        ]
        for number, handler in handlers.items():
            assert handler.wait_for(1) == [number]
            worker.call(rpc.give_turn, number)
        assert [call.result() for call in calls] == [1, 2, 3]


@concurrent_kinds
def test_an_event_at_once_and_three_by_timers_come_before_the_result_although_the_worker_is_closed(options, begin):
    # 02_async: it is closed before the call is done.
    events = Events()
    with working(on_event=events, **options) as worker:
        call = begin(worker.call, rpc.announce_in_steps, "counting")
        assert events.wait_for(1)[0] == "counting begins"
        worker.close()
        assert call.result() == "counting is done"
    assert events.seen == ["counting begins", "counting 1", "counting 2", "counting 3"]


@concurrent_kinds
def test_no_more_calls_run_at_once_than_concurrency_says(options, begin):
    # ! 2.7: the original starts all that it has read, and leaves limiting to the user.
    with working(**options) as worker:
        calls = [begin(worker.call, rpc.meet, options["concurrency"]) for _ in range(8)]
        assert max(call.result(DEADLINE) for call in calls) == options["concurrency"]


# --- R3: the worker dies while calls are outstanding ------------------------------------------------------------------


def test_each_outstanding_call_of_a_worker_that_dies_raises_and_says_whether_it_may_have_run(begin, gate):
    # ! R3: the original calls on_error once, and the callbacks never.
    events = Events()
    with working(on_event=events) as worker:
        running = begin(worker.call, rpc.wait_and_die, gate.read, 3)
        events.wait_for(1)
        queued = begin(worker.call, rpc.echo, 1)
        gate.write.write(b"!")
        errors = [call.exception(DEADLINE) for call in (running, queued)]
    assert [type(error) for error in errors] == [anyfork.WorkerDiedError] * 2
    assert [error.may_have_run for error in errors] == [True, False]
    assert [(error.pid, error.status.code) for error in errors] == [(worker.pid, 3)] * 2


@concurrent_kinds
def test_all_running_calls_of_a_worker_that_dies_raise(options, begin):
    # ! R3.
    events = Events()
    with working(on_event=events, **options) as worker:
        calls = [begin(worker.call, rpc.wait_for_turn, number) for number in (1, 2)]
        events.wait_for(2)
        calls.append(begin(worker.call, rpc.die, 3))
        errors = [call.exception(DEADLINE) for call in calls]
    assert [type(error) for error in errors] == [anyfork.WorkerDiedError] * 3
    assert [(error.may_have_run, error.status.code) for error in errors] == [(True, 3)] * 3


def test_calls_after_the_death_of_a_worker_raise_the_same_and_have_not_run():
    # ! R3: on_error("Broken pipe") in the original, each time.
    with anyfork.Worker() as worker:
        with pytest.raises(anyfork.WorkerDiedError):
            worker.call(rpc.last_words_and_exit, 3)
        for _ in range(2):
            with pytest.raises(anyfork.WorkerDiedError) as caught:
                worker.call(rpc.echo, 1)
            assert (caught.value.status.code, caught.value.may_have_run) == (3, False)


@every_kind
def test_an_exception_of_a_function_is_raised_by_its_call_and_the_worker_goes_on(options):
    # ! R3, 2.6, 2.7, 2.10: the original transports none: its worker dies, or the call never ends.
    function = rpc.fail_later if options else rpc.fail
    with anyfork.Worker(**options) as worker:
        pid = worker.ready().pid
        with pytest.raises(KeyError, match="lost") as caught:
            worker.call(function, "lost")
        assert f"in {function.__name__}" in str(caught.value.__cause__)
        assert worker.call(rpc.pid) == pid


@concurrent_kinds
def test_an_exception_of_one_of_several_calls_leaves_the_others_alone(options, begin):
    # ! 2.7.
    events = Events()
    with working(on_event=events, **options) as worker:
        other = begin(worker.call, rpc.wait_for_turn, 1)
        events.wait_for(1)
        with pytest.raises(KeyError):
            worker.call(rpc.fail_later, "lost")
        worker.call(rpc.give_turn, 1)
        assert other.result(DEADLINE) == 1


def test_a_call_that_takes_too_long_raises_and_ends_its_worker(gate):
    # ! 2.3: the original has no timeouts.
    with anyfork.Worker(on_event=lambda _: None) as worker:
        worker.ready()
        with pytest.raises(anyfork.CallTimeoutError) as caught:
            worker.call(rpc.say_and_wait, gate.read, timeout=0.05)
        assert caught.value.may_have_run
        assert worker.wait(DEADLINE).signal == signal.SIGKILL


# --- R4: an idle worker dies ----------------------------------------------------------------------------------------


@every_kind
def test_wait_tells_how_an_idle_worker_has_ended(options):
    # ! R4: on_destroy in the original, as if it had been dropped.
    with anyfork.Worker(**options) as worker:
        os.kill(worker.ready().pid, signal.SIGKILL)
        assert worker.wait(DEADLINE).signal == signal.SIGKILL


@every_kind
def test_a_call_to_a_worker_that_was_killed_while_it_was_idle_raises_with_pid_and_status(options):
    # ! R4: on_error("Broken pipe") in the original.
    with anyfork.Worker(**options) as worker, Watch(worker.ready().pid) as process:
        process.kill()
        process.wait()
        with pytest.raises(anyfork.WorkerDiedError) as caught:
            worker.call(rpc.echo, 1)
        assert (caught.value.pid, caught.value.status.signal) == (process.pid, signal.SIGKILL)


def test_a_call_after_the_end_of_a_worker_was_waited_for_has_not_run():
    # ! R4.
    with anyfork.Worker() as worker:
        os.kill(worker.ready().pid, signal.SIGKILL)
        worker.wait(DEADLINE)
        with pytest.raises(anyfork.WorkerDiedError) as caught:
            worker.call(rpc.echo, 1)
    assert not caught.value.may_have_run


# --- R5 and R6: who hears of it -------------------------------------------------------------------------------------


def test_errors_are_raised_and_are_no_events():
    # ! R5: without on_error the original gives errors to on_event, or to the log.
    events = Events()
    with anyfork.Worker(on_event=events) as worker:
        with pytest.raises(anyfork.WorkerDiedError):
            worker.call(rpc.last_words_and_exit, 2)
    assert events.seen == ["last words"]


def test_errors_are_raised_and_not_logged(caplog):
    # ! R5.
    with anyfork.Worker() as worker:
        os.kill(worker.ready().pid, signal.SIGKILL)
        with pytest.raises(anyfork.WorkerDiedError):
            worker.call(rpc.echo, 1)
    assert caplog.records == []


@every_kind
def test_an_event_that_nobody_asked_for_is_logged_and_the_result_still_comes(options, caplog):
    # ! R6: the original gives it to on_error.
    with anyfork.Worker(**options) as worker:
        assert worker.call(rpc.announce, 7) == 7
    assert [(record.name, record.levelno) for record in caplog.records] == [("anyfork", logging.WARNING)]
    assert "no on_event" in caplog.text


def test_an_exception_of_a_handler_of_a_worker_is_logged_and_its_calls_go_on(caplog):
    # ! 2.5: the original's event loop prints and ignores those of its callbacks.
    def handle(value: int) -> None:
        raise ZeroDivisionError(f"cannot take {value}")

    with working(on_event=handle) as worker:
        worker.call(rpc.announce, 7)
    assert "cannot take 7" in caplog.text


def test_an_exception_of_a_handler_of_a_call_is_raised_by_that_call():
    # ! 2.5: the worker lives on.
    def handle(value: int) -> None:
        raise ZeroDivisionError(f"cannot take {value}")

    with working() as worker:
        with pytest.raises(ZeroDivisionError, match="cannot take 7"):
            worker.call(rpc.announce, 7, on_event=handle)
        worker.call(rpc.announce, 7, on_event=print)


@concurrent_kinds
def test_an_exception_of_the_handler_of_one_call_leaves_other_calls_alone(options, begin):
    # ! 2.5: whichever thread reads it.
    def handle(value: int) -> None:
        raise ZeroDivisionError(f"cannot take {value}")

    events = Events()
    with working(**options) as worker:
        other = begin(worker.call, rpc.wait_for_turn, 1, on_event=events)
        events.wait_for(1)
        with pytest.raises(ZeroDivisionError, match="cannot take 7"):
            worker.call(rpc.announce, 7, on_event=handle)
        worker.call(rpc.give_turn, 1)
        assert other.result(DEADLINE) == 1


# --- R7: what comes before the calls --------------------------------------------------------------------------------


@every_kind
def test_the_initializer_gets_all_that_was_sent_and_then_its_own_arguments(options, pipe):
    # R7: without the channel; its own arguments are ours.
    template = anyfork.Template().send("a1", "a2").send(pipe.write)
    with anyfork.Worker(template, initializer=rpc.keep, initargs=("a3",), **options) as worker:
        assert worker.call(rpc.tell_kept) == ["a1", "a2", os.fstat(pipe.write.fileno()).st_ino, "a3"]


@every_kind
def test_an_initializer_may_emit(options):
    # ! R7: an exception in the original, which has no events yet.
    events = Events()
    with anyfork.Worker(on_event=events, initializer=rpc.several, initargs=("early", 1), **options) as worker:
        worker.ready()
        assert events.seen == ["early", 1]


@every_kind
def test_an_initializer_may_define_the_functions_that_are_called(options):
    # R7: it runs before their names are looked up.
    with anyfork.Worker(initializer=rpc.define, initargs=("defined_late",), **options) as worker:
        assert worker.call("defined_late") == "defined_late is there"


@every_kind
def test_an_initializer_that_raises_is_an_error_of_each_call_of_which_none_has_run(options):
    # ! R7: in the original it ends the process.
    with anyfork.Worker(initializer=rpc.fail, initargs=("no model",), **options) as worker:
        for ask in (worker.ready, lambda: worker.call(rpc.echo, 1)):
            with pytest.raises(anyfork.InitializerError, match="no model") as caught:
                ask()
            assert not caught.value.may_have_run


def test_functions_get_nothing_of_what_was_sent_to_the_template(pipe):
    # 2.1: the original cuts it off, too.
    with anyfork.Worker(anyfork.Template().send("a1", pipe.write)) as worker:
        assert worker.call(rpc.several) == ()


def test_a_function_that_does_not_exist_fails_its_call_and_no_other():
    # ! 2.2: the original's worker dies.
    with anyfork.Worker() as worker:
        with pytest.raises(anyfork.FunctionNotFoundError, match="nothing_of_that_name"):
            worker.call("rpc_functions:nothing_of_that_name")
        assert worker.call("rpc_functions:echo", 1) == 1


# --- 03_connfail ----------------------------------------------------------------------------------------------------


def test_a_worker_whose_template_failed_raises_why_at_every_use():
    # The on_error("connection failed") in the original.
    with anyfork.Worker(anyfork.Template().execute("1 / 0"), on_event=pytest.fail) as worker:
        for ask in (worker.ready, lambda: worker.call(rpc.echo, 1), worker.wait):
            with pytest.raises(anyfork.ExecuteError, match="ZeroDivisionError"):
                ask()


def test_a_worker_whose_template_failed_can_be_dropped_at_once():
    # The object is gone before it is known.
    worker = anyfork.Worker(anyfork.Template().execute("1 / 0"))
    del worker


def test_a_worker_whose_process_died_before_it_was_one_raises_how():
    template = anyfork.Template().ready()
    with Watch(template.pid) as process:
        process.kill()
        process.wait()
        with anyfork.Worker(template) as worker, pytest.raises((anyfork.TemplateDiedError, anyfork.StartError)):
            worker.call(rpc.echo, 1)


# --- 04_flush -------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("function", [rpc.last_words_and_exit, rpc.last_words_and_leave], ids=["_exit", "SystemExit"])
def test_an_event_sent_just_before_the_end_arrives_and_then_the_error_with_the_exit_code(options, function):
    # 04_flush, without a flush: emit returns when the event is on the wire.
    events = Events()
    with anyfork.Worker(on_event=events, **options) as worker:
        with pytest.raises(anyfork.WorkerDiedError) as caught:
            worker.call(function, 2)
    assert (events.seen, caught.value.status.code) == (["last words"], 2)


def test_emit_outside_a_worker_is_an_error():
    # 2.8: the original does not even declare it there.
    with pytest.raises(RuntimeError, match="only in a worker"):
        anyfork.emit(1)


def test_emit_in_a_process_that_is_no_worker_is_an_error():
    # 2.8.
    process = anyfork.Template().execute("import anyfork\ndef run(channel):\n    anyfork.emit(1)").run("run")
    with process:
        assert "RuntimeError: emit() works only in a worker" in process.wait(DEADLINE).error


# --- R8: what does not belong there ---------------------------------------------------------------------------------


@every_kind
def test_a_second_result_for_one_call_is_no_protocol_and_the_worker_is_killed(options):
    # R8: on_error("unexpected data from child") in the original, which lets the process live.
    with anyfork.Worker(**options) as worker:
        assert worker.call(rpc.answer_twice) == "first"
        with pytest.raises(anyfork.PeerError, match="does not expect it"):
            worker.call(rpc.echo, 1)
        assert worker.wait(DEADLINE).signal == signal.SIGKILL


def test_a_worker_of_another_version_is_told_apart_at_once():
    # 2.1: by `use Backend 2` in the original.
    template = anyfork.Template().prepare(rpc.replace_loop, "speak_version_99")
    with anyfork.Worker(template) as worker, pytest.raises(anyfork.PeerError, match="version 99"):
        worker.call(rpc.echo, 1)


# --- R9 and R10: much -----------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("serializer", ["pickle", "raw"])
def test_32_megabytes_are_echoed_intact(options, serializer):
    # R9.
    sent = os.urandom(MEGABYTE) * 32
    with anyfork.Worker(serializer=serializer, **options) as worker:
        assert worker.call(rpc.echo, sent) == sent


SIZES = pytest.mark.parametrize(("count", "size"), [(50, 50_000), (200, MEGABYTE)], ids=["50 x 50 kB", "200 x 1 MB"])


def made_at_rest(worker: anyfork.Worker, meter: IO[bytes]) -> int:
    """Return how many values a worker has made when it stops."""
    # It sleeps only when it cannot send, or has nothing more to do.
    eventually(lambda: state_of(worker.pid) == "S", "it does not stop")
    return int.from_bytes(os.pread(meter.fileno(), 4, 0), "little")


@SIZES
@pytest.mark.parametrize("options", [SYNC, {"concurrency": 200}], ids=["sync", "asyncio"])
def test_a_worker_stops_while_its_owner_takes_no_results(options, count, size):
    # ! R10: the original's async worker goes on, and queues all in its memory; its sync one stops after 4 of 100 kB.
    with tempfile.TemporaryFile(buffering=0) as meter:
        with working(initializer=rpc.keep, initargs=(meter,), **options) as worker:
            results = worker.map(rpc.reply, [size] * count, window=count)
            first = next(results)
            made = made_at_rest(worker, meter)
            assert {len(result) for result in (first, *results)} == {size}
    assert made < count


@SIZES
@every_kind
def test_a_worker_stops_while_its_owner_takes_no_events(options, count, size):
    # ! R10: for those of a single call.
    made: list[int] = []
    seen: list[int] = []

    def handle(value: bytes) -> None:
        if not seen:
            made.append(made_at_rest(worker, meter))
        seen.append(len(value))

    with tempfile.TemporaryFile(buffering=0) as meter:
        with working(on_event=handle, initializer=rpc.keep, initargs=(meter,), **options) as worker:
            worker.call(rpc.flood, count, size)
    assert seen == [size] * count
    assert made[0] < count


def test_a_map_takes_no_more_of_an_endless_source_than_its_window():
    # ! 2.5: the original takes any number of requests into its memory.
    numbers = count()
    with working() as worker:
        results = worker.map(rpc.echo, numbers, window=8)
        assert [next(results) for _ in range(20)] == list(range(20))
        results.close()
    assert next(numbers) <= 20 + 8


# --- R11: frames ----------------------------------------------------------------------------------------------------

# Length, number of the call, detail, kind, flags, count of descriptors.
READY_FRAME = f"00000000 00000000 {VERSION:02x}000000 20 00 0000"
DEFINE_ECHO = "12000000 01000000 00000000 03 00 0000" + b"rpc_functions:echo".hex()
DEFINE_SEVERAL = "15000000 02000000 00000000 03 00 0000" + b"rpc_functions:several".hex()
DEFINE_ANNOUNCE = "16000000 03000000 00000000 03 00 0000" + b"rpc_functions:announce".hex()
# Requests, and what a worker answers; the length of a value comes before each value of the raw serializer.
FRAMES = {
    "echo(b'bc')": (
        "06000000 01000000 01000000 01 00 0000  02000000 6263",
        "06000000 01000000 00000000 21 00 0000  02000000 6263",
    ),
    "echo(b'')": (
        "04000000 ffffffff 01000000 01 00 0000  00000000",
        "04000000 ffffffff 00000000 21 00 0000  00000000",
    ),
    "announce(b'ev')": (
        "06000000 07000000 03000000 01 00 0000  02000000 6576",
        "06000000 07000000 00000000 23 00 0000  02000000 6576 06000000 07000000 00000000 21 00 0000  02000000 6576",
    ),
    "two calls at once": (
        "05000000 01000000 01000000 01 00 0000  01000000 61 05000000 02000000 01000000 01 00 0000  01000000 62",
        "05000000 01000000 00000000 21 00 0000  01000000 61 05000000 02000000 00000000 21 00 0000  01000000 62",
    ),
    "a stream of three": (
        "0f000000 05000000 02000000 02 00 0000  01000000 61 01000000 62 01000000 63",
        " ".join(
            [
                *(f"05000000 05000000 00000000 23 00 0000  01000000 {letter}" for letter in ("61", "62", "63")),
                *(f"05000000 05000000 00000000 24 00 0000  01000000 {letter}" for letter in ("61", "62", "63")),
                "00000000 05000000 00000000 25 00 0000",
            ]
        ),
    ),
}


@pytest.mark.parametrize("concurrency", [None, 4], ids=["sync", "asyncio"])
@pytest.mark.parametrize("what", FRAMES)
def test_the_frames_of_a_worker_are_exactly_these_bytes(what, concurrency):
    # ! R11: little endian, one format for both backends, kinds of messages where the original has ids alone.
    request, answer = FRAMES[what]
    options = (VERSION, Raw(), concurrency, "asyncio", None, (), None, None, None, False)
    with anyfork.Template().run("_anyfork_child.worker.loop:serve", options) as process:
        process.channel.sendall(bytes.fromhex(DEFINE_ECHO + DEFINE_SEVERAL + DEFINE_ANNOUNCE + request))
        process.channel.shutdown(1)
        said = read_to_end(process.channel.makefile("rb", buffering=0))
    assert said.hex(" ") == bytes.fromhex(READY_FRAME + answer).hex(" ")


def test_the_frames_of_an_owner_are_exactly_these_bytes():
    # ! R11: a function is named once, and called by its number from then on.
    template = anyfork.Template().prepare(rpc.replace_loop, "show_requests")
    with anyfork.Worker(template, serializer="raw") as worker:
        worker.call(rpc.echo, b"a", b"bc")
        said = worker.call(rpc.echo)
    expected = DEFINE_ECHO + (
        "0b000000 01000000 01000000 01 00 0000  01000000 61 02000000 6263 00000000 02000000 01000000 01 00 0000"
    )
    assert said.hex(" ") == bytes.fromhex(expected).hex(" ")


# --- Signals --------------------------------------------------------------------------------------------------------


@every_kind
def test_an_idle_worker_survives_a_signal_that_its_code_handles(options, pipe):
    # ! 2.6: any interrupted read ends the original's.
    with anyfork.Worker(**options) as worker:
        worker.call(rpc.handle_signal, signal.SIGUSR1, pipe.write)
        for _ in range(3):
            os.kill(worker.pid, signal.SIGUSR1)
            assert pipe.readable(DEADLINE)
            assert pipe.read.read(1) == b"!"
        assert worker.call(rpc.echo, 1) == 1


def test_a_running_call_goes_on_after_a_signal_that_its_code_handles(pipe, gate, begin):
    # ! 2.6.
    events = Events()
    with working(on_event=events) as worker:
        worker.call(rpc.handle_signal, signal.SIGUSR1, pipe.write)
        call = begin(worker.call, rpc.say_and_wait, gate.read)
        events.wait_for(1)
        os.kill(worker.pid, signal.SIGUSR1)
        assert pipe.readable(DEADLINE)
        gate.write.write(b"!")
        assert call.result(DEADLINE) == "done"


# --- Serializers ----------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        ("raw", bytes(range(256))),
        ("json", {"text": "größer", "list": [1, 2.5, None, True]}),
        ("pickle", {1: {2, 3}, "text": b"\xff", "range": range(3)}),
        ("msgpack", {"text": "größer", "bytes": b"\xff", "list": [1, None]}),
        (rpc.Shouting(), "LOUD"),
    ],
    ids=["raw", "json", "pickle", "msgpack", "one of the user's"],
)
def test_values_travel_by_each_serializer(options, serializer, value):
    # 2.9: STRING, JSON, Storable, CBOR, and one that the user brings.
    if serializer == "msgpack":
        pytest.importorskip("msgspec")
    events = Events()
    with anyfork.Worker(serializer=serializer, on_event=events, **options) as worker:
        assert worker.call(rpc.announce, value) == value
    assert events.seen == [value]


def test_a_value_that_contains_itself_keeps_its_shape():
    # 2.9: with CBOR's sharing in the original.
    with anyfork.Worker() as worker:
        ring = worker.call(rpc.echo, rpc.Ring())
    assert ring.next is ring


@pytest.mark.parametrize("value", ["größer", None, ["a"]], ids=["text", "None", "a list"])
def test_what_the_raw_serializer_cannot_express_is_an_error_at_the_call(value):
    # ! 2.5: wide characters make the original loop for ever, None becomes empty, a reference its printed form.
    with anyfork.Worker(serializer="raw") as worker:
        with pytest.raises(anyfork.ArgumentError, match="raw"):
            worker.call(rpc.echo, value)
        assert worker.call(rpc.echo, b"bytes") == b"bytes"


def test_a_result_that_its_serializer_cannot_express_fails_its_call_and_no_other():
    # ! 2.9.
    with anyfork.Worker(serializer="raw") as worker:
        with pytest.raises(anyfork.ResultError, match="takes bytes, not int"):
            worker.call(rpc.pid)
        assert worker.call(rpc.echo, b"bytes") == b"bytes"


# --- Descriptors ----------------------------------------------------------------------------------------------------


@every_kind
def test_a_descriptor_travels_in_any_call(options, pipe):
    # ! 2.10: the original needs a second socket, made before, and a protocol of the user's for it.
    with anyfork.Worker(**options) as worker:
        assert worker.call(rpc.write_to, pipe.write, b"one ") == 4
        assert worker.call(rpc.write_to, pipe.write, b"two") == 3
    assert pipe.take() == b"one two"


@every_kind
def test_a_descriptor_travels_in_a_result(options):
    # ! 2.10: nothing brings one back in the original.
    with anyfork.Worker(**options) as worker, worker.call(rpc.open_pipe, b"from there") as file:
        assert read_to_end(file) == b"from there"


# --- The owner ends -------------------------------------------------------------------------------------------------

OWNER = """
import json, sys, threading
import anyfork

function, options = json.loads(sys.argv[1])
running = threading.Event()
worker = anyfork.Worker(on_event=lambda _: running.set(), **options).ready()
if function:
    threading.Thread(target=worker.call, args=(function,), daemon=True).start()
    running.wait()
print(worker.pid, flush=True)
sys.stdin.read()
"""
SCENES: dict[str, tuple[str, dict[str, Any]]] = {
    "idle": ("", SYNC),
    "idle, asyncio": ("", ASYNC),
    "idle, trio": ("", TRIO),
    "busy, ignores SIGTERM": ("rpc_functions:stay", SYNC),
    "busy, asyncio": ("rpc_functions:stay_waiting", ASYNC),
    "busy, trio": ("rpc_functions:stay_waiting", TRIO),
    "busy without its loop, asyncio": ("rpc_functions:stay", ASYNC),
    "busy without its loop, trio": ("rpc_functions:stay", TRIO),
}


@pytest.mark.parametrize("scene", SCENES)
def test_a_worker_vanishes_with_an_owner_that_is_killed(scene):
    # The original's busy sync worker finishes its job before.
    read, write = os.pipe()
    try:
        with other_owner(OWNER, json.dumps(SCENES[scene]), stdin=read) as owner:
            os.close(read)
            with Watch(int(owner.stdout.readline())) as worker:
                owner.kill()
                try:
                    worker.wait()
                finally:
                    worker.kill()
    finally:
        os.close(write)


LEAVING = """
import anyfork
worker = anyfork.Worker(**OPTIONS)
print(worker.call(abs, -5))
"""


@every_kind
def test_a_worker_says_nothing_when_its_owner_simply_exits(options):
    # ! 2.7: the original's async one complains that its parent is gone.
    assert output_of("-W", "error", "-c", LEAVING.replace("OPTIONS", repr(options))) == "5\n"
