"""The parts of an Executor that do nothing but decide, each by itself."""

from __future__ import annotations

import operator
import os
import types
from collections import deque
from enum import IntEnum
from math import inf

import pytest

from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import FUNCTION, HELD, ITEMS, RESULT, SMALL_CALL, Inbox
from anyfork._calls.durations import MOST_JOBS, JobDuration
from anyfork._calls.known_functions import KnownFunction, fingerprint
from anyfork._calls.permits import MOST_PERMITS, Permits
from anyfork._pools.encoder import JobEncoder, simple
from anyfork._pools.jobs import BatchJob, EncodedJob, deliver
from anyfork._pools.pool_options import Limits
from anyfork._pools.records import Job, JobState, TemplateRecord
from anyfork._pools.scheduler import Scheduler
from anyfork._pools.steps import FailureReason
from anyfork._pools.worker_queue import JobCalls
from anyfork._system.import_path import ORDINARY

# --- The scheduler: jobs that are taken back --------------------------------------------------------------------


def scheduler_with(jobs, **limits):
    """Return a scheduler whose only worker has these jobs, and the worker."""
    scheduler = Scheduler(Limits(max_workers=1, start_after=0, **limits), [TemplateRecord("template", inf)])
    for job in jobs:
        scheduler.submit(job)
    (worker,) = scheduler.decide(0).start
    scheduler.ready(worker, 0)
    assert [job for _, job in scheduler.decide(0).assign] == jobs
    return scheduler, worker


def test_a_job_that_is_taken_back_waits_before_all_others():
    first, second, third, late = Job(), Job(), Job(), Job()
    scheduler, worker = scheduler_with([first, second, third], load=3)
    scheduler.submit(late)
    scheduler.taken_back([second, third], 1)
    assert [second.state, third.state] == [JobState.QUEUED] * 2
    assert list(worker.jobs) == [first]
    assert [job for _, job in scheduler.decide(1).assign] == [second, third]
    assert scheduler.stats().moved == 2


def test_a_job_that_was_believed_to_run_has_not_when_it_is_taken_back():
    first, second = Job(idempotent=True), Job(timeout=1)
    scheduler, worker = scheduler_with([first, second], load=2)
    assert (first.runs, first.state) == (1, JobState.RUNNING)
    scheduler.taken_back([first], 5)
    assert (first.runs, first.state) == (0, JobState.QUEUED)
    assert second.state is JobState.RUNNING
    assert scheduler.wake_at == 6  # its time begins now
    scheduler.died(worker, 5.5)
    assert [(job, why) for job, why, _ in scheduler.decide(5.5).fail] == [(second, FailureReason.DIED)]


def test_the_deadline_of_a_job_that_runs_stays_when_those_behind_it_are_taken_back():
    first, second = Job(timeout=1), Job(timeout=1)
    scheduler, _ = scheduler_with([first, second], load=2)
    scheduler.taken_back([second], 0.5)
    assert first.deadline == 1


def test_a_worker_of_which_all_is_taken_back_is_idle():
    job = Job()
    scheduler, worker = scheduler_with([job], load=2, max_calls=1)
    scheduler.taken_back([job], 1)
    assert scheduler.decide(1).stop == [worker]  # it was given all it may have
    scheduler, worker = scheduler_with([job := Job()], load=2)
    scheduler.taken_back([job], 1)
    assert list(scheduler.workers.idle) == [worker]


def test_a_scheduler_anew_knows_the_numbers_and_nothing_else():
    scheduler, worker = scheduler_with([Job()], load=2)
    scheduler.close()
    other = scheduler.anew()
    assert (other.limits, other.sources, other.closing) == (scheduler.limits, scheduler.sources, True)
    assert (other.workers.count, other.queue.length, worker.source.count) == (0, 0, 0)
    assert other.stats().submitted == 1


# --- Permits ----------------------------------------------------------------------------------------------------


def test_a_permit_is_given_once_the_oldest_first():
    permits = Permits()
    permits.give([1, 2, 3, 4, 5])
    assert os.read(permits.reading, 4) == (1).to_bytes(4, "little")
    assert permits.take_back(2) == [2, 3]
    assert permits.take_back(0) == permits.take_back(100) == [2, 3]  # as after an interrupt
    permits.forget()
    assert permits.take_back(0) == []
    assert permits.take_back(100) == [4, 5]
    permits.forget()
    assert permits.take_back(100) == []
    permits.close()
    permits.close()


# --- What is simple ---------------------------------------------------------------------------------------------


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value", [(), (1, 2.0, None, True, "x", b"y"), ([1, {"a": (2,)}],), (frozenset({1}), bytearray(b"x"))]
)
def test_simple_values_are_pickled(value):
    import pickle

    assert pickle.loads(simple(value)) == value


@pytest.mark.parametrize("value", [(len,), (Number.ONE,), (Text("x"),), ([object()],), (int,), ("x" * 70_000,)])
def test_values_that_are_more_than_simple_are_not(value):
    assert simple(value) is None


# --- Whether a function is the same -----------------------------------------------------------------------------


def define(code, **there):
    """Return a function that lives where nothing is imported from."""
    exec(code, space := {"__name__": "__main__", **there})
    return space["f"], space


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("N = 1\ndef f(x): return x + N", {"N": 2}),
        ("def f(x): return g(x)\ndef g(x): return N\nN = 1", {"N": 2}),
        ("def f(x): return g(x)\ndef g(x): return 1", {"g": lambda x: 2}),
        ("import math as m\ndef f(x): return m.sqrt(x)", {"m": operator}),
        ("def f(x): return [y + N for y in x]\nN = 1", {"N": "2"}),
        ("def f(x): return x * N\nN = 0.0", {"N": -0.0}),
        ("def f(x): return N", {"N": None}),
    ],
)
def test_a_function_is_another_when_what_it_refers_to_is(code, change):
    function, space = define(code)
    before = fingerprint(function, ORDINARY)
    assert before is not None
    assert fingerprint(function, ORDINARY) == before
    space.update(change)
    assert fingerprint(function, ORDINARY) != before


@pytest.mark.parametrize(
    "code",
    [
        "N = []\ndef f(x): return N",
        "class C: pass\ndef f(x): return C()",
        "def f(x, y=[]): return y",
        "import types\nN = types.ModuleType('made')\ndef f(x): return N.value",
    ],
)
def test_nobody_knows_of_a_function_that_refers_to_what_may_change(code):
    assert fingerprint(define(code)[0], ORDINARY) is None
    assert fingerprint(types.SimpleNamespace(), ORDINARY) is None


def test_a_function_may_call_itself():
    assert fingerprint(define("def f(x): return f(x - 1) if x else 0")[0], ORDINARY) is not None


# --- How many at once -------------------------------------------------------------------------------------------


def test_more_jobs_go_together_the_quicker_they_are():
    pace = JobDuration()
    assert (pace.load, pace.items) == (1, 1)
    loads = []
    for took in (1, 100, 1000, 2900, 5000):
        pace = JobDuration()
        pace.saw(10 * took, 10)
        loads.append(pace.load)
    assert loads[0] == MOST_JOBS or loads[0] > 100
    assert loads == sorted(loads, reverse=True)
    assert loads[-2:] == [2, 1]


def test_one_long_job_is_enough_to_be_careful():
    pace = JobDuration()
    pace.saw(1000, 1000)
    pace.saw(10_000)
    assert pace.load == 1
    for _ in range(12):
        pace.saw(100, 100)
    assert pace.load > 50


# --- What is written to a worker --------------------------------------------------------------------------------


FUNCTION_1 = KnownFunction(1, Message(b""))


def calls():
    encoder = JobEncoder("submit", None, ORDINARY)
    return encoder, JobCalls("Pool", None, ORDINARY)


def written(calls):
    """Return the kinds, numbers and details of what was written, and the permits."""
    calls.write()
    data = b"".join(bytes(message.data) for message in calls.out)
    calls.out.clear()
    permits = [*calls.permits]
    calls.permits.clear()
    return [message[:3] for message in Inbox().take(data)], permits


def test_a_job_alone_needs_no_permit_and_those_behind_it_do():
    encoder, sent = calls()
    jobs = [EncodedJob(encoder.encode(operator.neg, (n,), {})) for n in range(3)]
    sent.queue_jobs(jobs)
    messages, permits = written(sent)
    assert messages == [
        (FUNCTION, 1, 0),
        (SMALL_CALL, 1, 1),
        (SMALL_CALL, 2, 1 | HELD),
        (SMALL_CALL, 3, 1 | HELD),
    ]
    assert permits == [2, 3]
    assert sent.taken_back([2]) == ([jobs[1]], [])
    answers = []
    sent.take_answers(_queue((RESULT, 1, 0, 0, b"", ())), answers)
    assert [job for job, _ in answers] == [jobs[0]]
    assert sent.outstanding == 1


def test_the_first_job_after_jobs_that_were_taken_back_needs_a_permit():
    _, sent = calls()
    sent.queue_jobs([EncodedJob((FUNCTION_1, SMALL_CALL, b"x")) for _ in range(2)])
    assert written(sent)[1] == [2]
    sent.taken_back([2])
    sent.take_answers(_queue((RESULT, 1, 0, 0, b"", ())), [])
    for permits in ([3], []):
        sent.queue_jobs([EncodedJob((FUNCTION_1, SMALL_CALL, b"x"))])
        assert written(sent)[1] == permits
        sent.jobs.clear()


def _queue(*messages):
    from collections import deque

    return deque(messages)


def answer(batch, message):
    """Record an answer to an item; return the index of the item."""
    batch.record_answer(message, found := [])
    return found[0][0]


class Work:
    """A map, as far as its jobs know it."""

    function, kind, on_event, options, label = FUNCTION_1, ITEMS, None, {}, "work"

    def __init__(self, count):
        self.items = {n: (n,) for n in range(count)}


def test_a_batch_of_items_can_be_divided():
    _, sent = calls()
    work = Work(5)
    batch = BatchJob(work, list(range(5)))
    sent.queue_jobs([batch])
    assert written(sent) == ([(ITEMS, 1, 1 | HELD)], [1, 2, 3, 4, 5])
    assert answer(batch, (RESULT, 1, 6, 0, b"", ())) == 0
    (_, [part]) = sent.taken_back([3, 4])
    assert (part.open(), batch.open(), batch.left) == ([2, 3], [1, 4], 2)
    batch.begin()
    sent.queue_jobs([batch])
    assert written(sent)[1] == [6, 7]
    assert answer(batch, (RESULT, 7, 2, 0, b"", ())) == 4


def test_no_more_is_written_to_a_worker_than_permits_have_room_for():
    _, sent = calls()
    sent.queue_jobs([EncodedJob((FUNCTION_1, SMALL_CALL, b"x")) for _ in range(2 * MOST_PERMITS)])
    assert len(written(sent)[1]) == MOST_PERMITS - 1
    assert (len(sent.jobs), sent.outstanding) == (MOST_PERMITS, 2 * MOST_PERMITS)
    sent.jobs.clear()
    assert len(written(sent)[1]) == MOST_PERMITS - 1
    assert not sent.unwritten


# --- Delivery ---------------------------------------------------------------------------------------------------


def test_a_delivery_in_the_middle_of_a_delivery_loses_nothing():
    """A signal handler may do that."""
    finished, seen = deque(), []

    class Receiver:
        def fail(self, error):
            seen.append(error)
            if len(seen) == 1:
                deliver(finished)

    finished.extend((Receiver(), number) for number in range(3))
    deliver(finished)
    assert seen == [0, 0, 1, 2]
    assert not finished


def test_an_answer_whose_delivery_fails_keeps_none_behind_it_from_delivery():
    finished, seen = deque(), []

    class Receiver:
        def fail(self, error):
            seen.append(error)
            if error < 2:
                raise ValueError(error)

    finished.extend((Receiver(), number) for number in range(3))
    with pytest.raises(ValueError, match="0"):
        deliver(finished)
    assert seen == [0, 1, 2]
    assert not finished
