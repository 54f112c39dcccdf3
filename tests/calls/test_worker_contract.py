"""What holds for workers of both faces, and of both kinds: one text for all of them."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import call_functions
import pytest
from call_makers import MAKERS
from conftest import descendants, eventually, eventually_freed
from deadlines import DEADLINE
from owner_side import output_of, pipe
from procfs import runs

import anyfork
from anyfork._calls import flows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from call_makers import Blocking


pytestmark = pytest.mark.usefixtures("warm_templates")


@pytest.fixture(params=MAKERS)
def new_worker(request: pytest.FixtureRequest) -> Blocking:
    """Return a function that makes a worker, in each face and under each loop."""
    return MAKERS[request.param]


@pytest.fixture(params=["one by one", "asyncio", "trio"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of workers that run one call after the other, and several at once in each kind of loop."""
    return {} if request.param == "one by one" else {"concurrency": 4, "backend": request.param}


@pytest.fixture
def worker(new_worker: Blocking, options: dict[str, Any]) -> Iterator[Any]:
    with new_worker(**options) as worker:
        yield worker


@pytest.fixture
def plain_worker(new_worker: Blocking) -> Iterator[Any]:
    """Provide a worker that runs one call after the other."""
    with new_worker() as worker:
        yield worker


# --- Results --------------------------------------------------------------------------------------------------------


def test_a_call_returns_the_result(worker):
    assert worker.call(operator.add, 2, 3) == 5
    assert worker.call("operator:add", "a", "b") == "ab"
    assert worker.call(call_functions.pid) == worker.pid


def test_values_of_all_kinds_go_and_come(worker):
    values = [None, True, -1 << 70, 1.5, 2j, "text", b"bytes", [1, {"a": (2,)}], {1, 2}, range(3), ValueError("one")]
    for value in values[:-1]:
        assert worker.call(call_functions.echo, value) == value
    assert repr(worker.call(call_functions.echo, values)) == repr(values)


def test_functions_go_by_value_too(worker):
    base = 40
    assert worker.call(lambda x: base + x, 2) == 42


def test_a_closure_is_taken_as_it_is_at_the_call(worker):
    number = 0

    def current():
        return number

    assert worker.call(current) == 0
    number = 1
    assert worker.call(current) == 1


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 17, 3 << 20])
def test_results_and_arguments_of_any_size(worker, size):
    data = os.urandom(size)
    assert worker.call(call_functions.echo, data) == data
    assert worker.call(call_functions.echo, [data, data.hex()]) == [data, data.hex()]


def test_the_worker_is_the_same_process_for_all_calls(worker):
    worker.call(call_functions.sent, 1)
    worker.call(call_functions.sent, 2)
    assert worker.call(call_functions.recall) == [1, 2]


def test_descriptors_travel_in_arguments_and_results_at_any_time(worker):
    for _ in range(3):
        found = worker.call(call_functions.pair)["there"]
        with found:
            assert isinstance(found, socket.socket)
            assert found.recv(100) == b"from the worker"
        here, there = socket.socketpair()
        with here, there:
            here.sendall(b"from the owner")
            assert worker.call(call_functions.read_from, there) == b"from the owner"


# --- What cannot travel ---------------------------------------------------------------------------------------------


def test_an_argument_that_cannot_travel_is_an_error_of_the_call_and_the_worker_goes_on(worker):
    with pytest.raises(anyfork.ArgumentError, match=r"argument 2 of call\(\)"):
        worker.call(call_functions.echo, 1, call_functions.Unpicklable())
    assert worker.call(call_functions.echo, 1) == 1


def test_what_is_no_function_is_an_error_of_the_call(worker):
    with pytest.raises(anyfork.ArgumentError, match="needs a function"):
        worker.call(3)
    with pytest.raises(anyfork.ArgumentError, match="needs a function's name"):
        worker.call("no name")


def test_a_result_that_cannot_travel_fails_its_call_with_the_reason(worker):
    with pytest.raises(anyfork.ResultError, match="does not want to travel") as caught:
        worker.call(call_functions.unpicklable)
    assert "__reduce__" in caught.value.remote_traceback
    assert worker.call(call_functions.echo, 1) == 1


def test_a_result_that_cannot_be_decoded_fails_its_call(worker):
    with pytest.raises(anyfork.ResultError, match="does not want to arrive"):
        worker.call(call_functions.undecodable)
    assert worker.call(call_functions.echo, 1) == 1


def test_an_argument_that_cannot_be_decoded_fails_its_call(worker):
    with pytest.raises(anyfork.ArgumentDecodeError, match="does not want to arrive"):
        worker.call(call_functions.echo, call_functions.Undecodable())
    assert worker.call(call_functions.echo, 1) == 1


def test_a_function_that_is_not_there_fails_its_call(worker):
    for _ in range(2):
        with pytest.raises(anyfork.FunctionNotFoundError, match="no function 'call_functions:absent'"):
            worker.call("call_functions:absent")
    assert worker.call(call_functions.echo, 1) == 1


def test_the_descriptors_of_a_call_without_a_function_are_closed_in_the_worker(worker):
    before = worker.call(call_functions.count_descriptors)
    with pipe() as (read, _):
        for _ in range(5):
            with pytest.raises(anyfork.FunctionNotFoundError):
                worker.call("call_functions:absent", anyfork.Descriptor(read))
    assert worker.call(call_functions.count_descriptors) <= before


def test_a_map_of_a_function_that_is_not_there_fails(worker):
    with pytest.raises(anyfork.FunctionNotFoundError):
        list(worker.map("call_functions:absent", range(100)))
    assert worker.call(call_functions.echo, 1) == 1


# --- Exceptions -----------------------------------------------------------------------------------------------------


def test_the_original_exception_is_raised_with_the_remote_traceback_as_its_cause(worker):
    with pytest.raises(call_functions.PlainError) as caught:
        worker.call(call_functions.fail, "why")
    assert caught.value.args == ("why",)
    assert "in fail" in str(caught.value.__cause__)
    assert "_worker" not in str(caught.value.__cause__)
    assert worker.call(call_functions.echo, 1) == 1


def test_notes_and_attributes_are_kept(worker):
    with pytest.raises(call_functions.PlainError) as caught:
        worker.call(call_functions.fail_with_notes)
    assert caught.value.__notes__ == ["remember this"]
    assert caught.value.extra == [1, 2]
    with pytest.raises(json.JSONDecodeError) as caught:
        worker.call(call_functions.fail_to_parse)
    assert (caught.value.pos, caught.value.__notes__) == (1, ["remember this"])
    with pytest.raises(call_functions.StatementError) as caught:
        worker.call(call_functions.fail_to_execute)
    assert (caught.value.detail, caught.value.__notes__) == (["no table"], ["remember this"])


def test_groups_are_kept(worker):
    with pytest.raises(ExceptionGroup) as caught:
        worker.call(call_functions.fail_in_a_group)
    one, inner = caught.value.exceptions
    assert repr(one) == "ValueError('one')"
    assert isinstance(inner.exceptions[0], call_functions.PlainError)


def test_the_causes_of_an_exception_are_in_the_remote_traceback(worker):
    with pytest.raises(call_functions.PlainError) as caught:
        worker.call(call_functions.fail_with_a_cause)
    assert "KeyError: 'absent'" in str(caught.value.__cause__)


def test_an_exception_whose_constructor_takes_other_arguments_arrives_as_itself(worker):
    with pytest.raises(call_functions.OddError) as caught:
        worker.call(call_functions.fail_oddly)
    error = call_functions.odd_error()
    assert (caught.value.args, vars(caught.value)) == (error.args, vars(error))
    assert "call_functions.py" in str(caught.value.__cause__)


@pytest.mark.parametrize("kind", call_functions.ERRORS)
def test_an_exception_arrives_with_all_that_it_has(worker, kind):
    made = call_functions.ERRORS[kind]()
    with pytest.raises(type(made)) as caught:
        worker.call(call_functions.fail_with, kind)
    error = caught.value
    assert (type(error), repr(error), str(error)) == (type(made), repr(made), str(made))
    assert vars(error) == {name: value for name, value in vars(made).items() if name != "lock"}
    for name in ("slot", "filename", "name"):
        assert getattr(error, name, None) == getattr(made, name, None)


def test_an_exception_that_cannot_be_rebuilt_is_told_and_poisons_nothing(worker):
    with pytest.raises(anyfork.RemoteError, match="cannot be rebuilt here") as caught:
        worker.call(call_functions.fail_unpicklably)
    assert caught.value.type_name == "PlainError"
    assert "call_functions.py" in str(caught.value.__cause__)
    assert worker.call(call_functions.echo, 1) == 1


def test_an_exception_without_words_is_told_too(worker):
    with pytest.raises((anyfork.RemoteError, RuntimeError)) as caught:
        worker.call(call_functions.fail_with_a_bad_str)
    assert "fail_with_a_bad_str" in str(caught.value.__cause__)
    assert worker.call(call_functions.echo, 1) == 1


# --- Map ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 64])
def test_map_gives_results_in_order(worker, window):
    assert list(worker.map(operator.neg, range(200), window=window)) == [-number for number in range(200)]


def test_map_takes_items_no_further_ahead_than_its_window(worker):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = worker.map(operator.neg, items(), window=10)
    assert [next(results) for _ in range(5)] == [0, -1, -2, -3, -4]
    assert len(taken) <= 15
    results.close()
    assert len(taken) <= 15


def test_map_raises_what_a_call_raises_and_ends(worker):
    results = worker.map("operator:index", [1, 2, "three", 4])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(TypeError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert worker.call(call_functions.echo, 1) == 1


def test_map_of_nothing_is_empty(worker):
    assert list(worker.map(operator.neg, [])) == []


def test_calls_may_be_made_while_a_map_is_read(worker):
    found = [worker.call(operator.add, result, 1) for result in worker.map(operator.neg, range(100), window=8)]
    assert found == [1 - number for number in range(100)]


def test_large_items_of_a_map_do_not_lock_both_sides(worker):
    # Neither side may wait for the other to read while the other waits for it.
    data = os.urandom(60_000)
    for result in worker.map(call_functions.echo, [data] * 200):
        assert result == data


@pytest.mark.parametrize("further", [0, 1])
def test_results_that_came_before_a_worker_was_closed_are_taken_before_it_refuses_further_items(new_worker, further):
    with new_worker() as worker:
        results = worker.map(operator.neg, range(4 + further), window=4)
        assert next(results) == 0
    assert [next(results) for _ in range(3)] == [-1, -2, -3]
    with pytest.raises(anyfork.WorkerDiedError if further else StopIteration):
        next(results)


def test_what_a_map_that_was_closed_had_ahead_does_not_run(plain_worker, tmp_path, gate):
    plain_worker.ready()
    results = plain_worker.map(
        lambda n: call_functions.wait_for(gate) if n == 0 else call_functions.mark(f"{tmp_path}/{n}"), range(30)
    )
    if hasattr(results, "_loop"):
        channel = results._items._channel
        results._loop.wait(channel.connect)
        results._loop.wait(channel.follow, flows.fill(results._items._work))
    else:
        begin(results, plain_worker)
    results.close()
    os.write(gate.fileno(), b"go")
    assert plain_worker.call(call_functions.echo, 1) == 1
    assert list(tmp_path.iterdir()) == []


def begin(results, worker):
    """Have a map ask for its first items, without waiting for the first of them."""
    with contextlib.suppress(TimeoutError):
        wait, worker._channel.wait = worker._channel.wait, lambda done, deadline=None: wait(done, 0)
        try:
            next(results)
        finally:
            worker._channel.wait = wait


# --- Streams --------------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_items_of_a_generator(worker):
    assert list(worker.stream(call_functions.count, 100)) == list(range(100))
    assert list(worker.stream(call_functions.count, 0)) == []


def test_the_worker_is_no_further_ahead_than_some_items(worker, gate):
    with worker.stream(call_functions.count_and_tell, 1000, gate) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        worker.call(call_functions.echo, 1)
        assert len(os.read(gate.fileno(), 1000)) <= 30


def test_closing_a_stream_closes_the_generator(worker, tmp_path):
    with worker.stream(call_functions.count_and_mark, 1000, str(tmp_path / "closed")) as items:
        assert next(items) == 0
        assert not (tmp_path / "closed").exists()
    eventually((tmp_path / "closed").exists)
    assert worker.call(call_functions.echo, 1) == 1


def test_a_stream_raises_what_its_generator_raises_after_its_items(worker):
    items = worker.stream(call_functions.count_and_fail, 20)
    for number in range(20):
        assert next(items) == number
    with pytest.raises(call_functions.PlainError, match="enough"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_an_item_that_cannot_travel_ends_its_stream(worker):
    items = worker.stream(call_functions.yield_unpicklable)
    assert next(items) == 1
    with pytest.raises(anyfork.ResultError, match="does not want to travel"):
        next(items)
    assert worker.call(call_functions.echo, 1) == 1


def test_streams_and_calls_may_be_mixed(worker):
    one, other = worker.stream(call_functions.count, 100), worker.stream(call_functions.count, 100)
    for number in range(100):
        assert (next(one), worker.call(operator.neg, number), next(other)) == (number, -number, number)


# --- Events ---------------------------------------------------------------------------------------------------------


def test_events_reach_the_handler_of_their_call_in_order(worker):
    said = []
    assert worker.call(call_functions.say, 100, on_event=said.append) == "said"
    assert said == list(range(100))


def test_other_events_reach_the_handler_of_the_worker(new_worker, options):
    said = []
    with new_worker(on_event=said.append, **options) as worker:
        worker.call(call_functions.say, 3)
        assert said == [0, 1, 2]


def test_events_outside_of_calls_reach_the_handler_of_the_worker(new_worker, options):
    said = []
    with new_worker(on_event=said.append, initializer=call_functions.say, initargs=(3,), **options) as worker:
        worker.ready()
        assert said == [0, 1, 2]


def test_events_of_threads_arrive(plain_worker):
    said = []
    plain_worker.call(call_functions.say_from_a_thread, 10, on_event=said.append)
    assert said == list(range(10))


def test_events_and_results_keep_their_order(new_worker):
    said = []
    with new_worker(on_event=said.append) as worker:
        for _ in range(20):
            said += [worker.call(call_functions.say, 2)]
        assert said == [0, 1, "said"] * 20


def test_last_words_arrive(worker):
    said = []
    with pytest.raises(anyfork.WorkerDiedError):
        worker.call(call_functions.last_words, "farewell", on_event=said.append)
    assert said == ["farewell"]


def test_an_event_without_a_handler_is_logged_and_the_call_goes_on(worker, caplog):
    assert worker.call(call_functions.say, 2) == "said"
    assert [(record.name, record.funcName) for record in caplog.records] == [("anyfork", "handle")] * 2


def test_log_records_may_be_forwarded(new_worker, caplog):
    import logging

    with new_worker(
        initializer="call_functions:forward_logs", on_event=lambda record: logging.getLogger(record.name).handle(record)
    ) as worker:
        worker.call(call_functions.log, "from the worker")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("worker", "from the worker")]


def test_emit_elsewhere_says_so():
    with pytest.raises(RuntimeError, match="only in a worker"):
        anyfork.emit(1)


# --- Timeouts -------------------------------------------------------------------------------------------------------


def test_a_call_behind_a_running_one_is_withdrawn_and_surely_does_not_run(plain_worker, tmp_path, gate):
    plain_worker.ready()
    with running(plain_worker, call_functions.wait_for, gate) as first:
        with pytest.raises(anyfork.CallTimeoutError, match="nothing of it has run") as caught:
            plain_worker.call(call_functions.mark, str(tmp_path / "mark"), timeout=0.05)
        assert not caught.value.may_have_run
        os.write(gate.fileno(), b"done")
    assert first == [b"done"]
    assert plain_worker.call(call_functions.echo, 1) == 1
    assert not (tmp_path / "mark").exists()


@contextlib.contextmanager
def running(worker, function, *args):
    """Run a call in a thread meanwhile; what it returned or raised is in the list afterwards."""
    results = []

    def call():
        try:
            results.append(worker.call(function, *args))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        eventually(lambda: worker._channel.calls._sent)
        yield results
    finally:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_a_timeout_ends_the_worker_of_a_running_call(plain_worker, gate):
    plain_worker.ready()
    with pytest.raises(anyfork.CallTimeoutError, match="it may have run") as caught:
        plain_worker.call(call_functions.wait_for, gate, timeout=0.05)
    assert caught.value.may_have_run
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(anyfork.WorkerDiedError):
        plain_worker.call(call_functions.echo, 1)
    assert plain_worker.wait(DEADLINE).signal == signal.SIGKILL


def test_a_running_call_may_be_waited_for_nevertheless(new_worker, gate):
    with new_worker(on_cancel="wait") as worker:
        worker.ready()
        timer = threading.Timer(0.2, os.write, (gate.fileno(), b"late"))
        timer.start()
        assert worker.call(call_functions.wait_for, gate, timeout=0.05) == b"late"
        timer.join()
        assert worker.call(call_functions.echo, 1) == 1


@pytest.mark.untraced  # the function must have begun when its time is over
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_timeout_cancels_one_of_several_calls_and_the_worker_goes_on(new_worker, backend, tmp_path):
    with new_worker(concurrency=2, backend=backend) as worker:
        worker.ready()
        started, cancelled = tmp_path / "started", tmp_path / "cancelled"
        with running(worker, call_functions.sleep_and_mark, str(tmp_path / "a"), str(tmp_path / "b")) as other:
            with pytest.raises(anyfork.CallTimeoutError):
                worker.call(call_functions.sleep_and_mark, str(started), str(cancelled), timeout=0.5)
            eventually(cancelled.exists)
            assert worker.call(call_functions.echo_later, 1) == 1
            assert other == []
            worker.kill()
        assert isinstance(other[0], anyfork.WorkerDiedError)


def test_a_timeout_that_is_not_reached_changes_nothing(worker):
    for number in range(10):
        assert worker.call(call_functions.echo, number, timeout=DEADLINE) == number


# --- Concurrency ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_functions_run_at_the_same_time_under_the_backend(new_worker, backend, gate):
    with new_worker(concurrency=3, backend=backend) as worker:
        assert worker.call(call_functions.loop_kind) == backend
        with contextlib.ExitStack() as stack:
            waiting = [
                stack.enter_context(running(worker, call_functions.echo_when_told, number, gate)) for number in range(2)
            ]
            assert worker.call(call_functions.echo_later, "meanwhile") == "meanwhile"
            assert waiting == [[], []]
            os.write(gate.fileno(), b"x")
        assert waiting == [[0], [1]]


def test_no_more_calls_run_than_allowed(new_worker, gate):
    with new_worker(concurrency=1) as worker:
        with running(worker, call_functions.echo_when_told, 1, gate):
            with pytest.raises(anyfork.CallTimeoutError) as caught:
                worker.call(call_functions.echo_later, 2, timeout=0.05)
            assert not caught.value.may_have_run
            os.write(gate.fileno(), b"x")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_generators_are_streamed(new_worker, backend):
    with new_worker(concurrency=2, backend=backend) as worker:
        assert list(worker.stream(call_functions.count_later, 100)) == list(range(100))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_events_of_concurrent_calls_reach_their_own_handlers(new_worker, backend):
    with new_worker(concurrency=2, backend=backend) as worker, pipe() as (one, first), pipe() as (two, second):
        said = {"one": [], "two": []}
        threads = [
            threading.Thread(
                target=lambda name=name, file=file: worker.call(
                    call_functions.say_when_told, name, anyfork.Descriptor(file), on_event=said[name].append
                )
            )
            for name, file in (("one", one), ("two", two))
        ]
        for thread in threads:
            thread.start()
        for _ in range(3):
            os.write(second, b"x")
            os.write(first, b"x")
        for thread in threads:
            thread.join(DEADLINE)
        assert said == {name: [(name, number) for number in range(3)] for name in said}


def test_async_functions_need_concurrency(plain_worker):
    with pytest.raises(anyfork.ResultError, match="coroutine"):
        plain_worker.call(call_functions.echo_later, 1)


# --- Death ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "code", "number"),
    [
        (call_functions.vanish, (7,), 7, None),
        (call_functions.leave, (5,), 5, None),
        (call_functions.crash, (), None, signal.SIGSEGV),
    ],
)
def test_a_worker_that_dies_fails_its_call_with_its_status(worker, function, args, code, number):
    worker.ready()
    pid = worker.pid
    with pytest.raises(anyfork.WorkerDiedError) as caught:
        worker.call(function, *args)
    assert (caught.value.pid, caught.value.status.code, caught.value.status.signal) == (pid, code, number)
    assert caught.value.may_have_run
    with pytest.raises(anyfork.WorkerDiedError) as caught:
        worker.call(call_functions.echo, 1)
    assert not caught.value.may_have_run


def test_all_calls_fail_when_the_worker_is_killed(new_worker, gate):
    with new_worker() as worker, contextlib.ExitStack() as stack:
        worker.ready()
        results = [stack.enter_context(running(worker, call_functions.wait_for, gate)) for _ in range(5)]
        eventually(lambda: worker._channel.calls.outstanding == 5)
        worker.kill()
        stack.close()
        errors = [error for (error,) in results]
        assert all(isinstance(error, anyfork.WorkerDiedError) for error in errors)
        assert sorted(error.may_have_run for error in errors) == [False] * 4 + [True]


@pytest.mark.parametrize("calls", [0, 1])
def test_an_idle_worker_that_dies_is_noticed_at_the_next_call(worker, calls):
    worker.ready()
    for _ in range(calls):  # after it the next call takes fewer steps
        worker.call(call_functions.echo, 1)
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not runs(worker.pid))
    with pytest.raises(anyfork.WorkerDiedError, match="SIGKILL"):
        worker.call(call_functions.echo, 1)


def test_the_death_is_noticed_where_another_process_holds_the_channel(worker):
    left = worker.call(call_functions.fork_and_hold_the_channel)
    try:
        with pytest.raises(anyfork.WorkerDiedError):
            worker.call(call_functions.vanish, 1)
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_stream_ends_with_the_death_of_its_worker(worker):
    items = worker.stream(call_functions.count, 1000)
    assert next(items) == 0
    worker.kill()
    with pytest.raises(anyfork.WorkerDiedError):
        for _ in items:
            pass


def test_ctrl_c_is_the_running_calls_and_the_worker_goes_on(plain_worker):
    """Report a Ctrl-C of the worker as an error: raised again here, it would end the event loop of the owner."""
    with pytest.raises(anyfork.RemoteError) as caught:
        plain_worker.call(call_functions.interrupted)
    assert caught.value.type_name == "KeyboardInterrupt"
    os.kill(plain_worker.pid, signal.SIGINT)
    assert plain_worker.call(call_functions.echo, 1) == 1


def test_an_initializer_may_ignore_ctrl_c(new_worker, options):
    with new_worker(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN), **options) as worker:
        pid = worker.call(os.getpid)
        os.kill(pid, signal.SIGINT)
        assert worker.call(signal.getsignal, signal.SIGINT) == signal.SIG_IGN
        assert worker.call(call_functions.interrupted_at_once) == pid


# --- Begin and end --------------------------------------------------------------------------------------------------


def test_the_initializer_gets_what_was_sent_and_its_own_arguments(new_worker, options):
    template = new_worker.template().send("sent", 1)
    with new_worker(template, initializer=call_functions.sent, initargs=(2,), **options) as worker:
        assert worker.call(call_functions.recall) == ["sent", 1, 2]


def test_what_a_worker_said_before_it_ended_is_heard_although_its_end_was_known_first():
    with anyfork.Worker(initializer=call_functions.fail, initargs=("early",)) as worker:
        worker._channel.process.wait()
        with pytest.raises(anyfork.InitializerError, match="early"):
            worker.ready()


def test_an_initializer_that_raises_fails_all_calls(new_worker, options):
    with new_worker(initializer=call_functions.fail, initargs=("early",), **options) as worker:
        for ask in (worker.ready, lambda: worker.call(call_functions.echo, 1)):
            with pytest.raises(anyfork.InitializerError, match="early") as caught:
                ask()
            assert "in fail" in str(caught.value.__cause__.__cause__)


def test_a_worker_takes_its_template_over(new_worker):
    template = new_worker.template().preload("json")
    template.execute("def forty_two(): return 42")
    with new_worker(template) as worker:
        assert worker.call("forty_two") == 42


def test_what_stands_in_the_way_of_its_start_is_raised(new_worker):
    with new_worker(new_worker.template().preload("no_such_module")) as worker:
        with pytest.raises(anyfork.PreloadError):
            worker.call(call_functions.echo, 1)


def test_close_lets_running_calls_finish(new_worker, gate):
    worker = new_worker()
    worker.ready()
    with running(worker, call_functions.wait_for, gate) as results:
        closing = threading.Thread(target=worker.close)
        closing.start()
        os.write(gate.fileno(), b"finished")
        closing.join(DEADLINE)
    assert results == [b"finished"]
    with pytest.raises(anyfork.HandleError, match="closed"):
        worker.call(call_functions.echo, 1)
    worker.close()


def test_a_dropped_worker_ends(new_worker):
    worker = new_worker()
    pid = worker.ready().pid
    del worker
    eventually_freed(lambda: pid not in descendants())


def test_a_killed_worker_ends_at_once(new_worker, gate):
    worker = new_worker()
    with running(worker, call_functions.wait_for, gate) as results:
        worker.kill()
    assert isinstance(results[0], anyfork.WorkerDiedError)
    worker.close()


@pytest.mark.parametrize(
    "bad",
    [
        {"colour": "red"},
        {"concurrency": 0},
        {"backend": "curio"},
        {"on_cancel": "hope"},
        {"serializer": "xml"},
        {"initializer": 3},
    ],
)
def test_bad_options_are_errors_of_the_call(new_worker, bad):
    with pytest.raises(anyfork.ArgumentError):
        new_worker(**bad)


def test_a_worker_has_no_use_in_a_forked_copy_of_its_owner():
    program = """
import os, anyfork
with anyfork.Worker() as worker:
    worker.call("builtins:abs", 1)
    pid = os.fork()
    if pid == 0:
        try:
            worker.call("builtins:abs", 2)
        except anyfork.HandleError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(worker.call("builtins:abs", -3))
"""
    refusal = "the handle of a worker does not work in a forked copy of its owner: make a new Worker there"
    assert output_of("-c", program) == f"{refusal}\n3\n"
