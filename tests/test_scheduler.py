"""The pool's decisions, without processes and without a clock: tables, and a machine that does anything in any order."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from anyfork._calls.durations import JobDuration
from anyfork._pools.job_queue import JobQueue
from anyfork._pools.pool_options import Limits
from anyfork._pools.records import (
    FIRST_DELAY,
    LAST_DELAY,
    MAX_TRIES,
    Job,
    JobState,
    TemplateRecord,
    WorkerRecord,
    WorkerState,
)
from anyfork._pools.scheduler import MAX_RUNS, Scheduler
from anyfork._pools.steps import FailureReason, Steps
from anyfork._pools.worker_table import STALL


class Play:
    """A scheduler, a clock that is moved by hand, and what the steps have said."""

    def __init__(
        self, limits: Limits | None = None, /, sources: list[TemplateRecord] | None = None, **given: Any
    ) -> None:
        self.now = 0.0
        self.sources = [TemplateRecord("template", 1000)] if sources is None else sources
        self.scheduler = Scheduler(limits or Limits(**given), self.sources)
        self.started: list[WorkerRecord] = []  # all, in their order
        self.stopped: list[WorkerRecord] = []
        self.killed: list[WorkerRecord] = []
        self.assigned: list[tuple[WorkerRecord, Job]] = []
        self.ends: dict[Job, list[object]] = {}  # of each job: every end that it had
        self.at_once = True  # workers that are started are ready
        self.begun = 1  # so many of its jobs a worker has begun when the others are taken back

    def decide(self) -> Steps:
        """Carry out what is decided now."""
        steps = self.scheduler.decide(self.now)
        self.assigned += steps.assign
        self.started += steps.start
        self.stopped += steps.stop
        self.killed += steps.kill
        for job, why, _ in steps.fail:
            self.ends[job].append(why)
        for worker in steps.unblock:
            self.take_back(worker)
        for worker, job in steps.abort:
            self.take_back(worker)
            self.scheduler.abort(job)
        if self.at_once:
            for worker in steps.start:
                self.scheduler.ready(worker, self.now)
        if steps.abort or steps.unblock or (self.at_once and steps.start):
            further = self.decide()
            steps.assign += further.assign
            steps.stop += further.stop
            steps.kill += further.kill
        return steps

    def take_back(self, worker: WorkerRecord | None) -> None:
        """Take jobs back, as a face does before a plain worker is killed because of one job."""
        if worker is not None and not self.scheduler.limits.concurrent:
            self.scheduler.taken_back(list(worker.jobs)[self.begun :], self.now)

    def withdraw(self, job: Job) -> bool:
        """Withdraw a job that nobody waits for any more."""
        if job.state in (JobState.SENT, JobState.RUNNING):
            self.take_back(job.worker)
        return self.scheduler.withdraw(job)

    def submit(self, count: int = 1, **options: Any) -> list[Job]:
        """Submit so many jobs at once."""
        jobs = [Job(**options) for _ in range(count)]
        for job in jobs:
            self.ends[job] = []
            self.scheduler.submit(job)
        self.decide()
        return jobs

    def answer(self, *jobs: Job) -> None:
        """Note that the answers of jobs have come."""
        for job in jobs:
            if job.state is JobState.RUNNING:
                self.ends[job].append("answer")
            self.scheduler.answered(job, self.now)
        self.decide()

    def die(self, worker: WorkerRecord) -> None:
        self.scheduler.died(worker, self.now)
        self.decide()

    def wait(self, seconds: float) -> None:
        """Let time go by, and ask the scheduler whenever it wants to be asked."""
        end = self.now + seconds
        asked = 0
        while (wake := self.scheduler.wake_at) <= end:
            assert wake > self.now or not asked, "it wants to be asked again at once"
            self.now = max(self.now, wake)
            self.decide()
            asked += 1
            assert asked < 1000, "timers storm"
        self.now = end

    def loads(self) -> list[int]:
        return [len(worker.jobs) for worker in self.started]

    def where(self, *jobs: Job) -> list[int]:
        """Return the numbers of the workers that the jobs are with, from 1."""
        return [self.started.index(job.worker) + 1 if job.worker else 0 for job in jobs]


# --- Growing ---


def test_the_first_worker_is_started_at_once_and_one_more_each_start_after_while_all_are_full() -> None:
    play = Play(max_workers=4, load=2, start_after=0.1)
    play.submit(20)
    grown = []
    for _ in range(5):
        grown.append(len(play.started))
        play.wait(0.1)
    assert grown == [1, 2, 3, 4, 4]


def test_a_worker_that_is_being_started_is_room_for_its_load() -> None:
    play = Play(max_workers=4, load=2, start_after=0.1)
    play.at_once = False
    play.submit(2)
    play.wait(60)
    assert len(play.started) == 1
    play.submit(1)
    play.wait(0.1)
    assert len(play.started) == 2


def test_no_worker_is_added_where_one_has_become_free_before() -> None:
    play = Play(max_workers=4, load=1, start_after=0.1)
    first, _ = play.submit(2)
    play.wait(0.05)
    play.answer(first)
    play.wait(10)
    assert len(play.started) == 1


@pytest.mark.parametrize(
    ("limits", "jobs", "started"),
    [
        (Limits(max_workers=4, load=2, start_after=0), 20, 4),
        (Limits(max_workers=4, load=2, start_after=0), 3, 2),
        (Limits(max_workers=4, load=1, start_after=0), 3, 3),
        (Limits(max_workers=0), 5, 0),
        (Limits(load=0), 5, 0),
        (Limits(min_idle=0), 0, 0),
        (Limits(max_workers=4, min_idle=2), 0, 2),
        (Limits(max_workers=2, min_idle=6), 0, 2),
        (Limits(max_workers=4, min_idle=2, load=2), 1, 2),
    ],
)
def test_how_many_workers_are_started_at_once(limits: Limits, jobs: int, started: int) -> None:
    play = Play(limits)
    play.at_once = False
    play.submit(jobs)
    assert len(play.started) == started


def test_idle_ones_are_replaced_as_they_get_work() -> None:
    play = Play(max_workers=4, min_idle=2, load=1, start_after=0.1)
    play.decide()
    play.submit(1)
    assert len(play.started) == 2
    play.wait(0.1)
    assert len(play.started) == 3


def test_templates_are_used_in_their_order_each_up_to_its_limit() -> None:
    play = Play(
        max_workers=5,
        load=1,
        start_after=0,
        sources=[TemplateRecord("near", 2), TemplateRecord("none", 0), TemplateRecord("far", 9)],
    )
    play.submit(9)
    assert [worker.source.key for worker in play.started] == ["near", "near", "far", "far", "far"]


def test_who_waits_for_room_counts_as_work() -> None:
    play = Play(max_workers=3, load=1, start_after=0.1, max_queued=0)
    play.submit(1)
    play.scheduler.waiters = 1
    play.decide()
    play.wait(0.1)
    assert len(play.started) == 2


# --- Giving ---


def test_the_least_loaded_worker_gets_the_next_job() -> None:
    play = Play(max_workers=3, load=4, start_after=0, min_idle=3)
    play.decide()
    jobs = play.submit(7)
    assert sorted(play.loads()) == [2, 2, 3]
    for worker in play.started:
        play.answer(*list(worker.jobs)[: len(worker.jobs) - 1])
    assert play.loads() == [1, 1, 1]
    assert len({id(job.worker) for job in play.submit(3)}) == 3
    assert all(job.worker for job in jobs)


def test_two_workers_with_a_load_of_two_get_jobs_in_turn() -> None:
    play = Play(max_workers=2, min_idle=2, load=2, start_after=0)
    play.decide()
    first, second, third, fourth = play.where(*play.submit(4))
    assert {first, second} == {1, 2} == {third, fourth}


def test_of_idle_workers_the_one_that_worked_last_is_taken() -> None:
    play = Play(max_workers=3, min_idle=3, load=1)
    play.decide()
    jobs = play.submit(3)
    for job in jobs:
        play.answer(job)
    assert play.where(*play.submit(1)) == play.where(jobs[2])


def test_a_greater_priority_goes_first_and_the_first_come_within_one() -> None:
    play = Play(max_workers=1, load=1)
    (running,) = play.submit(1)
    low, other = play.submit(1, priority=-1), play.submit(2)
    high = play.submit(2, priority=7.5)
    order = []
    play.answer(running)
    for _ in range(5):
        job = next(iter(play.started[0].jobs))
        order.append(job)
        play.answer(job)
    assert order == [*high, *other, *low]


def test_of_the_jobs_in_a_worker_the_first_runs_and_the_others_have_not_begun() -> None:
    play = Play(max_workers=1, load=3)
    first, second, third = jobs = play.submit(3)
    assert [job.state for job in jobs] == [JobState.RUNNING, JobState.SENT, JobState.SENT]
    play.answer(first)
    assert [job.state for job in (second, third)] == [JobState.RUNNING, JobState.SENT]


def test_all_that_a_concurrent_worker_has_runs() -> None:
    play = Play(max_workers=1, load=3, concurrent=True)
    jobs = play.submit(3)
    assert {job.state for job in jobs} == {JobState.RUNNING}
    play.answer(jobs[1])
    assert list(play.started[0].jobs) == [jobs[0], jobs[2]]


def quick(play: Play, count: int, depth: int) -> list[Job]:
    """Submit so many jobs that are known to be quick."""
    jobs = [Job() for _ in range(count)]
    for job in jobs:
        job.depth = depth
        play.ends[job] = []
        play.scheduler.submit(job)
    play.decide()
    return jobs


@pytest.mark.parametrize(
    ("boosts_load", "depth", "loads"), [(True, 10, [10]), (True, 99, [64]), (True, 1, [2]), (False, 10, [2])]
)
def test_a_worker_has_as_many_quick_jobs_as_their_depth_says(boosts_load: bool, depth: int, loads: list[int]) -> None:
    play = Play(max_workers=1, load=2, boosts_load=boosts_load)
    quick(play, 100, depth)
    assert play.loads() == loads


def test_quick_jobs_do_not_stand_behind_one_that_is_not_known_to_be_quick() -> None:
    play = Play(max_workers=2, min_idle=2, load=2, boosts_load=True)
    play.decide()
    (slow,) = play.submit(1)
    others = quick(play, 40, 20)
    assert slow.worker is not None
    assert len(slow.worker.jobs) == 2
    play.answer(slow, *others[:1])
    assert max(play.loads()) > 2


def test_a_slow_job_waits_until_a_worker_has_room_by_its_load() -> None:
    play = Play(max_workers=1, load=2, boosts_load=True)
    jobs = quick(play, 10, 10)
    (slow,) = play.submit(1)
    play.answer(*jobs[:8])
    assert slow.state is JobState.QUEUED
    play.answer(jobs[8])
    assert slow.state is JobState.SENT


def test_quick_jobs_above_the_load_make_the_pool_grow() -> None:
    play = Play(max_workers=2, load=2, start_after=0.1, boosts_load=True)
    quick(play, 20, 30)
    play.wait(0.1)
    assert len(play.started) == 2
    quick(play, 20, 30)
    assert play.loads() == [20, 20]


def test_who_says_the_load_means_it() -> None:
    play = Play(max_workers=1, load=2, boosts_load=True)
    play.scheduler.resize(load=3)
    quick(play, 20, 30)
    assert play.loads() == [3]


# --- Jobs behind a long one ---


def test_a_job_behind_a_long_one_goes_to_another_worker() -> None:
    play = Play(max_workers=2, load=2, start_after=0.1, adaptive=True)
    long, behind = play.submit(2)
    assert play.where(long, behind) == [1, 1]
    play.wait(STALL)
    assert behind.state is JobState.QUEUED
    play.wait(0.1)
    assert play.where(long, behind) == [1, 2]
    assert play.scheduler.stats().moved == 1


def test_a_worker_with_a_long_job_gets_the_next_ones_when_it_has_done_it() -> None:
    play = Play(max_workers=1, load=2, adaptive=True, max_queued=1)
    jobs = play.submit(3)
    play.wait(STALL)
    jobs += play.submit(1)
    assert [job.state for job in jobs] == [JobState.RUNNING, *[JobState.QUEUED] * 3]
    assert not play.scheduler.has_room
    assert play.scheduler.wake_at == inf, "nothing is left to look at"
    play.answer(jobs[0])
    assert [job.state for job in jobs[1:]] == [JobState.RUNNING, JobState.SENT, JobState.QUEUED]


def test_a_worker_that_has_begun_all_its_jobs_is_looked_at_once() -> None:
    play = Play(max_workers=1, load=2, adaptive=True)
    play.begun = 2
    play.submit(2)
    play.wait(1.0)
    assert play.loads() == [2]


@pytest.mark.parametrize("adaptive", [True, False])
def test_jobs_that_have_not_begun_go_to_a_worker_that_is_idle_for_long(adaptive: bool) -> None:
    play = Play(max_workers=2, min_idle=2, load=4, adaptive=adaptive)
    play.decide()
    jobs = play.submit(8)
    mine, others = jobs[::2], jobs[1::2]
    play.answer(*others)
    for job in mine[:2]:
        play.wait(0.9 * STALL)
        play.answer(job)
    play.wait(0.2 * STALL)
    assert play.where(*mine[2:]) == [1, 2]


@pytest.mark.parametrize(("adaptive", "resized"), [(False, None), (True, 2)])
def test_where_the_load_is_given_jobs_stay_behind_a_long_one(adaptive: bool, resized: int | None) -> None:
    play = Play(max_workers=1, load=2, adaptive=adaptive)
    play.scheduler.resize(load=resized)
    play.submit(2)
    play.wait(1.0)
    assert play.loads() == [2]


@pytest.mark.parametrize(
    ("took", "depth"), [([], 0), ([0.0], 64), ([10], 64), ([100], 10), ([190], 5), ([300], 0), ([10, 1e6], 0)]
)
def test_how_deep_calls_may_be_by_how_long_they_took(took: list[float], depth: int) -> None:
    duration = JobDuration()
    for microseconds in took:
        duration.saw(microseconds)
    assert duration.depth == depth


# --- Leaving ---


@pytest.mark.parametrize(("min_idle", "left"), [(0, 0), (1, 1), (2, 2), (4, 4)])
def test_idle_ones_above_min_idle_leave_after_idle_timeout(min_idle: int, left: int) -> None:
    play = Play(max_workers=4, load=1, start_after=0, idle_timeout=10, min_idle=min_idle)
    play.answer(*play.submit(4))
    play.wait(9.9)
    assert not play.stopped
    play.wait(0.2)
    assert len(play.scheduler.workers.working) == left
    play.wait(100)
    assert len(play.scheduler.workers.working) == left
    assert len(play.started) == 4


def test_without_idle_timeout_a_worker_leaves_when_it_has_nothing_to_do() -> None:
    play = Play(idle_timeout=0)
    play.answer(*play.submit(1))
    assert play.stopped == play.started
    play.submit(1)
    assert len(play.started) == 2


def test_a_retired_worker_finishes_what_it_has_and_another_takes_its_place_at_once() -> None:
    play = Play(max_workers=1, load=3, start_after=60)
    jobs = play.submit(5)
    play.answer(jobs[0])
    old = play.started[0]
    for _ in range(3):
        play.scheduler.retire(old)
        play.decide()
    assert len(old.jobs) == 3
    assert len(play.started) == 1, "what still works counts"
    play.answer(*jobs[1:4])
    assert play.stopped == [old]
    assert play.where(jobs[4]) == [2]
    play.scheduler.retire(old)
    play.answer(jobs[4])
    assert play.stopped == [old]


@pytest.mark.parametrize(
    ("limits", "each"),
    [
        (Limits(max_workers=1, load=2, max_calls=3), 3),
        (Limits(max_workers=1, load=8, max_calls=3), 3),
        (Limits(max_workers=1, load=2, max_calls=1), 1),
        (Limits(max_workers=1, load=2, max_calls=0), 1),
        (Limits(max_workers=1, load=1, max_age=0), 1),
        (Limits(max_workers=1, load=1, max_age=3.5), 4),
        (Limits(max_workers=1, load=1, max_memory=0), 1),
        (Limits(max_workers=1, load=1, max_memory=250), 3),
    ],
)
def test_how_many_jobs_a_worker_does_before_it_leaves(limits: Limits, each: int) -> None:
    play = Play(limits)
    play.submit(12)
    while any(play.loads()):
        worker = next(worker for worker in play.started if worker.jobs)
        play.now += 1  # each job takes a second, and leaves 100 bytes behind
        play.scheduler.answered(next(iter(worker.jobs)), play.now)
        play.scheduler.measured(worker, 100 * worker.calls)
        play.decide()
    assert Counter(worker for worker, _ in play.assigned).most_common(1)[0][1] == each
    assert len(play.assigned) == 12


def test_a_job_that_stands_for_several_calls_is_not_given_to_one_that_may_do_fewer() -> None:
    play = Play(max_workers=1, load=1, max_calls=10)
    for _ in range(3):
        play.answer(*play.submit(1, size=4))
    assert [worker.calls for worker in play.started] == [8, 4]


# --- Dying ---


def test_what_ran_in_a_dead_worker_fails_and_the_rest_is_moved_to_the_front() -> None:
    play = Play(max_workers=1, load=3)
    jobs = play.submit(5)
    play.die(play.started[0])
    assert [play.ends[job] for job in jobs] == [[FailureReason.DIED], [], [], [], []]
    assert play.where(*jobs[1:]) == [2, 2, 2, 0]
    assert list(play.started[1].jobs) == jobs[1:4]


def test_an_idempotent_job_runs_again_but_not_for_ever() -> None:
    play = Play(max_workers=1, load=1)
    (job,) = play.submit(1, idempotent=True)
    for times in range(1, MAX_RUNS + 1):
        assert play.ends[job] == []
        assert job.runs == times
        play.die(play.started[-1])
        play.wait(LAST_DELAY)
    assert play.ends[job] == [FailureReason.DIED]


def test_what_ran_in_a_concurrent_worker_fails_all_together() -> None:
    play = Play(max_workers=1, load=3, concurrent=True)
    jobs = play.submit(4)
    play.die(play.started[0])
    assert [play.ends[job] for job in jobs] == [[FailureReason.DIED]] * 3 + [[]]


def test_dead_workers_are_replaced_at_once_then_with_growing_delays_until_a_job_is_done() -> None:
    play = Play(max_workers=1, load=1, start_after=60)
    play.submit(20)
    waited = []
    for _ in range(9):
        play.die(play.started[-1])
        count, begin = len(play.started), play.now
        if not play.started[-1].jobs:
            play.wait(play.scheduler.wake_at - play.now)
            assert len(play.started) == count + 1
        waited.append(round(play.now - begin, 6))
    assert waited == [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LAST_DELAY]
    play.answer(next(iter(play.started[-1].jobs)))
    play.die(play.started[-1])
    assert play.started[-1].jobs


def test_a_template_that_gives_no_worker_fails_those_who_wait_after_some_tries() -> None:
    play = Play(max_workers=1, load=1)
    play.at_once = False
    jobs = play.submit(3)
    for tries in range(1, MAX_TRIES + 1):
        assert not any(play.ends[job] for job in jobs)
        assert len(play.started) == tries
        for worker in list(play.scheduler.workers.starting):
            play.scheduler.not_started(worker, play.now, RuntimeError("no"))
        play.decide()
        play.wait(1)
    assert [play.ends[job] for job in jobs] == [[FailureReason.NO_WORKER]] * 3
    count = len(play.started)
    play.wait(1000)
    assert len(play.started) == count
    play.at_once = True
    play.submit(1)
    assert play.assigned, "it is tried again for those who come later"


def test_a_template_that_is_broken_for_good_fails_all_at_once() -> None:
    play = Play()
    play.at_once = False
    (first,) = play.submit(1)
    error = RuntimeError("gone")
    play.scheduler.not_started(play.started[0], 0, error, permanent=True)
    play.decide()
    (later,) = play.submit(1)
    assert play.ends[first] == play.ends[later] == [FailureReason.NO_WORKER]
    assert play.sources[0].error is error
    play.scheduler.renew(play.sources[0])
    play.at_once = True
    (third,) = play.submit(1)
    assert third.state is JobState.RUNNING


def test_jobs_wait_while_a_template_that_has_ended_is_made_again() -> None:
    play = Play(max_workers=2, load=1, start_after=0)
    play.at_once = False
    (first, second) = play.submit(2)
    source, starting = play.sources[0], [*play.started]
    lost = [play.scheduler.template_lost(worker, RuntimeError()) for worker in (*starting, starting[0])]
    assert lost == [True, True, False]
    play.wait(1000)
    assert len(play.started) == 2, "nothing starts before there is a template"
    play.at_once = True
    play.scheduler.renew(source)
    play.decide()
    assert first.state is second.state is JobState.RUNNING


def test_a_template_in_the_place_of_a_lost_one_keeps_the_back_off() -> None:
    play = Play(max_workers=1, start_after=0)
    play.at_once = False
    play.submit(1)
    source, delays = play.sources[0], []
    for _ in range(3):
        play.scheduler.not_started(play.started[-1], play.now, RuntimeError())
        delays.append(max(0, source.not_before - play.now))
        play.decide()
        play.wait(delays[-1])
        play.scheduler.template_lost(play.started[-1], RuntimeError())
        play.scheduler.renew(source)
        play.decide()
    assert delays == pytest.approx([0, FIRST_DELAY, 2 * FIRST_DELAY])
    assert len(play.started) == 7
    play.scheduler.renew(source)  # by another template that the caller has chosen
    assert (source.failures, source.not_before) == (0, 0)


def test_jobs_fail_when_a_template_that_has_ended_cannot_be_made_again() -> None:
    play = Play()
    play.at_once = False
    (job,) = play.submit(1)
    play.scheduler.template_lost(play.started[0], RuntimeError())
    play.decide()
    assert not play.ends[job]
    play.sources[0].not_renewed(RuntimeError())
    play.decide()
    assert play.ends[job] == [FailureReason.NO_WORKER]


def test_jobs_fail_when_the_last_worker_leaves_and_the_template_is_broken() -> None:
    play = Play(max_workers=2, min_idle=2, load=0, start_after=0, idle_timeout=0)
    play.at_once = False
    play.decide()
    play.scheduler.ready(play.started[0], 0)
    play.scheduler.not_started(play.started[1], 0, RuntimeError(), permanent=True)
    (job,) = play.submit(1)
    play.scheduler.resize(min_idle=0)
    play.decide()
    assert play.stopped == [play.started[0]]
    assert play.ends[job] == [FailureReason.NO_WORKER]


def test_jobs_do_not_wait_for_a_worker_that_leaves_when_the_template_is_broken() -> None:
    play = Play(max_workers=2, load=1)
    play.at_once = False
    (running,) = play.submit(1)
    play.scheduler.ready(play.started[0], 0)
    play.decide()
    play.scheduler.retire(play.started[0])
    (waiting,) = play.submit(1)
    play.scheduler.not_started(play.started[1], 0, RuntimeError(), permanent=True)
    play.decide()
    assert play.ends[waiting] == [FailureReason.NO_WORKER]
    assert not play.ends[running]


def test_where_one_template_fails_the_others_are_used() -> None:
    play = Play(max_workers=2, load=1, sources=[TemplateRecord("bad", 1), TemplateRecord("good", 1)])
    play.at_once = False
    play.submit(2)
    play.scheduler.not_started(play.started[0], 0, RuntimeError(), permanent=True)
    play.at_once = True
    play.decide()
    assert [worker.source.key for worker in play.started] == ["bad", "good"]
    assert play.loads() == [0, 1]


# --- Giving up ---


def test_a_job_that_runs_for_too_long_fails_and_the_others_of_its_worker_are_moved() -> None:
    play = Play(max_workers=1, load=2)
    slow, next_one = play.submit(2, timeout=1)
    play.wait(0.9)
    assert not play.killed
    play.wait(0.2)
    assert play.ends[slow] == [FailureReason.TIMED_OUT]
    assert play.killed == [play.started[0]]
    assert next_one.state is JobState.QUEUED
    play.die(play.started[0])
    assert play.where(next_one) == [2]
    assert next_one.deadline == play.now + 1


def test_a_worker_that_has_begun_another_job_is_not_killed_because_of_the_one_before() -> None:
    play = Play(max_workers=1, load=3)
    play.begun = 2
    slow, next_one, last = play.submit(3, timeout=1)
    play.wait(1.1)
    assert play.ends[slow] == [FailureReason.TIMED_OUT]
    assert not play.killed
    assert play.where(next_one, last) == [1, 1]
    play.answer(slow, next_one, last)
    assert play.ends[slow] == [FailureReason.TIMED_OUT]
    assert play.ends[next_one] == play.ends[last] == ["answer"]


def test_the_time_of_a_job_begins_when_the_one_before_it_is_done() -> None:
    play = Play(max_workers=1, load=2)
    first, second = play.submit(2, timeout=1)
    play.wait(0.9)
    play.answer(first)
    play.wait(0.9)
    assert play.ends[second] == []
    play.wait(0.2)
    assert play.ends[second] == [FailureReason.TIMED_OUT]


def test_a_job_of_no_time_does_not_run() -> None:
    play = Play()
    (job,) = play.submit(1, timeout=0)
    assert play.ends[job] == [FailureReason.TIMED_OUT]
    assert not play.assigned
    assert not play.scheduler.withdraw(job)


def test_a_concurrent_worker_outlives_a_job_that_takes_too_long() -> None:
    play = Play(max_workers=1, load=2, concurrent=True)
    slow, other = play.submit(2, timeout=1)
    play.answer(other)
    play.wait(2)
    assert play.ends[slow] == [FailureReason.TIMED_OUT]
    assert not play.killed
    assert slow in play.started[0].jobs
    play.answer(slow)
    assert play.ends[slow] == [FailureReason.TIMED_OUT]
    assert play.loads() == [0]


def test_a_job_that_is_withdrawn_from_the_queue_has_surely_not_run() -> None:
    play = Play(max_workers=1, load=1)
    running, waiting = play.submit(2)
    assert play.scheduler.withdraw(waiting) is False
    play.answer(running)
    assert play.loads() == [0]


def test_a_job_that_is_withdrawn_while_it_runs_costs_its_worker() -> None:
    play = Play(max_workers=1, load=2)
    running, behind = play.submit(2)
    assert play.withdraw(running) is True
    play.decide()
    assert play.killed == [play.started[0]]
    play.die(play.started[0])
    assert play.ends[running] == []
    assert play.where(behind) == [2]


@pytest.mark.parametrize("begun", [1, 2])
def test_a_job_that_is_withdrawn_costs_its_worker_only_if_that_has_begun_it(begun: int) -> None:
    play = Play(max_workers=1, load=2)
    play.begun = begun
    first, behind = play.submit(2)
    assert play.withdraw(behind) is (begun == 2)
    play.decide()
    assert len(play.killed) == begun - 1
    play.answer(first)
    assert play.ends[first] == ["answer"]


# --- Bounds ---


@pytest.mark.parametrize(("max_queued", "taken"), [(None, 100), (0, 2), (1, 3), (5, 7)])
def test_so_many_may_wait(max_queued: int | None, taken: int) -> None:
    play = Play(max_workers=1, load=2, max_queued=max_queued)
    count = 0
    while count < 100 and play.scheduler.has_room:
        play.scheduler.submit(Job())
        count += 1
    assert count == taken
    play.decide()
    assert play.scheduler.has_room is (max_queued is None)


@pytest.mark.parametrize("known", [True, False])
def test_a_job_that_was_refused_makes_the_pool_grow_once(known: bool) -> None:
    play = Play(max_workers=4, load=1, max_queued=0, start_after=0.1)
    play.ends[job := Job()] = []
    play.scheduler.submit(job)
    if known:
        play.decide()
    play.scheduler.refuse()
    play.decide()
    play.wait(10)
    assert len(play.started) == 2


def test_there_is_room_for_what_workers_take() -> None:
    play = Play(max_workers=1, load=2, max_queued=0)
    first, _ = play.submit(2)
    assert not play.scheduler.has_room
    play.answer(first)
    assert play.scheduler.has_room


# --- The pool as a whole ---


def test_a_larger_pool_grows_and_a_smaller_one_lets_go() -> None:
    play = Play(max_workers=1, load=1, start_after=0)
    jobs = play.submit(6)
    play.scheduler.resize(max_workers=4)
    play.decide()
    assert play.loads() == [1, 1, 1, 1]
    play.scheduler.resize(max_workers=1)
    play.decide()
    assert len(play.scheduler.workers.leaving) == 3
    play.answer(*jobs[:4])
    assert play.scheduler.workers.count == 1
    assert len(play.stopped) == 3
    play.scheduler.resize(max_workers=0)
    play.decide()
    play.answer(jobs[4])
    assert play.scheduler.workers.count == 0
    assert play.where(jobs[5]) == [0]
    play.scheduler.resize(max_workers=1)
    play.decide()
    assert jobs[5].state is JobState.RUNNING


def test_idle_and_starting_workers_leave_first_when_the_pool_shrinks() -> None:
    play = Play(max_workers=3, min_idle=2, load=1, start_after=0)
    play.decide()
    (job,) = play.submit(1)
    play.scheduler.resize(max_workers=1, min_idle=0)
    play.decide()
    assert list(play.scheduler.workers.working) == [job.worker]


def test_the_load_changes_while_workers_have_more() -> None:
    play = Play(max_workers=1, load=4)
    jobs = play.submit(8)
    play.scheduler.resize(load=1)
    play.decide()
    play.answer(jobs[0])
    assert play.loads() == [3]
    play.answer(*jobs[1:4])
    assert play.loads() == [1]
    play.scheduler.resize(load=3)
    play.decide()
    assert play.loads() == [3]


def test_old_workers_finish_when_the_template_is_replaced_and_new_ones_take_the_rest() -> None:
    play = Play(max_workers=2, load=2, start_after=0)
    jobs = play.submit(8)
    old = list(play.started)
    play.scheduler.renew(play.sources[0])
    play.decide()
    assert play.loads() == [2, 2]
    play.answer(jobs[0], jobs[2])
    play.answer(*(job for worker in old for job in list(worker.jobs)))
    assert set(play.stopped) == set(old)
    assert play.where(*jobs[4:]) == [3, 3, 4, 4] or set(play.where(*jobs[4:])) == {3, 4}
    assert all(not play.ends[job] for job in jobs[4:])


def test_what_becomes_of_old_workers_is_not_held_against_the_new_template() -> None:
    play = Play(max_workers=1, load=1)
    play.submit(2)
    play.scheduler.renew(play.sources[0])
    play.die(play.started[0])
    assert play.sources[0].failures == 0
    assert play.loads() == [0, 1]


def test_a_worker_that_is_being_started_from_a_replaced_template_is_given_up() -> None:
    play = Play()
    play.at_once = False
    (job,) = play.submit(1)
    play.scheduler.renew(play.sources[0])
    play.decide()
    assert play.stopped == [play.started[0]]
    play.scheduler.not_started(play.started[0], 0, RuntimeError())
    assert not play.sources[0].failures
    play.scheduler.ready(play.started[1], 0)
    play.decide()
    assert play.where(job) == [2]


def test_closing_lets_the_jobs_be_done_and_the_workers_leave() -> None:
    play = Play(max_workers=2, min_idle=2, load=1)
    jobs = play.submit(10)
    play.scheduler.close()
    play.decide()
    while not play.scheduler.finished:
        play.answer(next(job for job in jobs if job.state is JobState.RUNNING))
    assert [play.ends[job] for job in jobs] == [["answer"]] * 10
    assert set(play.stopped) == set(play.started)


@pytest.mark.parametrize("min_idle", [0, 2])
def test_an_unused_pool_closes_at_once(min_idle: int) -> None:
    play = Play(min_idle=min_idle)
    play.at_once = False
    play.decide()
    play.scheduler.close()
    play.decide()
    assert play.scheduler.finished
    assert len(play.stopped) == min_idle


def test_killing_ends_all_jobs_and_all_workers() -> None:
    play = Play(max_workers=1, load=2)
    jobs = play.submit(5)
    play.scheduler.kill()
    play.decide()
    assert [play.ends[job] for job in jobs] == [[FailureReason.KILLED]] * 5
    assert play.killed == play.started
    assert play.scheduler.finished
    play.scheduler.answered(jobs[0], 0)
    play.scheduler.died(play.started[0], 0)
    assert play.scheduler.finished
    play.scheduler.waiters = 1
    assert play.scheduler.has_room
    (late,) = play.submit(1)
    assert play.ends[late] == [FailureReason.KILLED]
    assert len(play.started) == 1


def test_whoever_waits_for_room_when_the_pool_closes_gets_in() -> None:
    play = Play(max_workers=1, load=1, max_queued=0)
    play.scheduler.waiters = 1
    play.scheduler.close()
    play.decide()
    assert not play.scheduler.finished
    assert play.scheduler.has_room
    (job,) = play.submit(1)
    play.scheduler.waiters = 0
    play.answer(job)
    assert play.scheduler.finished


def test_the_figures_say_what_there_is_and_what_has_been() -> None:
    play = Play(max_workers=1, load=2)
    jobs = play.submit(4)
    play.answer(jobs[0])
    stats = play.scheduler.stats()
    assert (stats.workers, stats.idle, stats.starting, stats.leaving) == (1, 0, 0, 0)
    assert (stats.queued, stats.sent, stats.running) == (1, 1, 1)
    assert (stats.submitted, stats.answered, stats.started) == (4, 1, 1)
    with pytest.raises(AttributeError):
        stats.queued = 0  # type: ignore[misc]  # that is the test


def test_a_queue_gives_in_order_and_puts_back_at_the_front() -> None:
    queue = JobQueue()
    a, b, c = Job(), Job(), Job(priority=3)
    for job in (a, b, c):
        queue.add(job)
    assert [queue.take_job(), queue.take_job()] == [c, a]
    queue.put_back([c, a])
    assert queue.clear() == [c, a, b]
    assert queue.length == 0


# --- Anything in any order ---


class Machine(RuleBasedStateMachine):
    """A pool to which everything happens. What a worker does is known here, so what may have run is known too."""

    @initialize(
        limits=st.builds(
            Limits,
            max_workers=st.integers(0, 4),
            min_idle=st.integers(0, 3),
            load=st.integers(0, 3),
            start_after=st.sampled_from([0, 0.1]),
            idle_timeout=st.sampled_from([0, 1.0]),
            max_calls=st.sampled_from([None, None, 0, 3]),
            max_age=st.sampled_from([None, None, 0, 5.0]),
            concurrent=st.booleans(),
            boosts_load=st.booleans(),
            adaptive=st.booleans(),
        ),
        templates=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    )
    def begin(self, limits: Limits, templates: list[int]) -> None:
        self.play = Play(limits, sources=[TemplateRecord(number, limit) for number, limit in enumerate(templates)])
        self.play.at_once = False
        self.jobs: list[Job] = []
        self.withdrawn: set[Job] = set()
        self.dead: set[WorkerRecord] = set()
        self.left: set[WorkerRecord] = set()
        self.at: list[float] = []  # when workers were started
        self.decide()

    def decide(self) -> None:
        play = self.play
        before = play.scheduler.stats()
        steps = play.decide()
        for worker, job in steps.assign:
            assert worker.state in (WorkerState.WORKING, WorkerState.LEAVING)
            assert job.worker is worker
        for worker in steps.kill:
            assert worker not in steps.stop
        self.left.update(steps.stop)
        assert len(self.left) == len(play.stopped), "no worker is stopped twice"
        assert play.scheduler.workers.count <= max(play.scheduler.limits.max_workers, self._before_resize)
        assert before.submitted <= play.scheduler.stats().submitted
        again = play.scheduler.decide(play.now)
        assert not again, "what is decided is decided"
        assert play.scheduler.wake_at > play.now

    _before_resize = 0

    @rule(
        count=st.integers(1, 4),
        priority=st.sampled_from([0, 0, 1, -1]),
        timeout=st.sampled_from([None, None, 0.5, 0]),
        idempotent=st.booleans(),
        depth=st.sampled_from([0, 5, 9]),
    )
    def submit(self, count: int, priority: int, timeout: float | None, idempotent: bool, depth: int) -> None:
        jobs = [Job(priority=priority, timeout=timeout, idempotent=idempotent) for _ in range(count)]
        for job in jobs:
            job.depth = depth
            self.play.ends[job] = []
            self.play.scheduler.submit(job)
        self.jobs += jobs
        self.decide()

    def some(self, number: int, workers: list[WorkerRecord]) -> WorkerRecord | None:
        return workers[number % len(workers)] if workers else None

    @rule(number=st.integers(0, 9), well=st.booleans(), permanent=st.booleans())
    def start(self, number: int, well: bool, permanent: bool) -> None:
        play = self.play
        worker = self.some(number, list(play.scheduler.workers.starting))
        if worker is None:
            return
        if well:
            play.scheduler.ready(worker, play.now)
        else:
            play.scheduler.not_started(worker, play.now, RuntimeError(), permanent)
        self.decide()

    def alive(self) -> list[WorkerRecord]:
        """Return the workers that a process may still belong to."""
        workers = self.play.scheduler.workers
        return [*workers.working, *workers.leaving]

    @rule(number=st.integers(0, 9), which=st.integers(0, 3))
    def answer(self, number: int, which: int) -> None:
        play = self.play
        worker = self.some(number, [worker for worker in self.alive() if worker.jobs])
        if worker is None:
            return
        jobs = list(worker.jobs)
        job = jobs[which % len(jobs)] if play.scheduler.limits.concurrent else jobs[0]
        assert job.state in (JobState.RUNNING, JobState.GIVEN_UP)
        if job.state is JobState.RUNNING:
            play.ends[job].append("answer")
        play.scheduler.answered(job, play.now)
        self.decide()

    @rule(number=st.integers(0, 9))
    def die(self, number: int) -> None:
        worker = self.some(number, self.alive())
        if worker is None:
            return
        self.dead.add(worker)
        sent = [job for job in worker.jobs if job.state is JobState.SENT]
        self.play.scheduler.died(worker, self.play.now)
        assert all(job.state is JobState.QUEUED for job in sent)
        self.decide()

    @rule(number=st.integers(0, 99), begun=st.integers(1, 3))
    def withdraw(self, number: int, begun: int) -> None:
        open_jobs = [job for job in self.jobs if not self.play.ends[job] and job not in self.withdrawn]
        if not open_jobs:
            return
        job = open_jobs[number % len(open_jobs)]
        self.play.begun = begun
        may_have_run = self.play.withdraw(job)
        assert may_have_run or job.state is JobState.DONE
        self.withdrawn.add(job)
        self.decide()

    @rule(number=st.integers(0, 9))
    def retire(self, number: int) -> None:
        worker = self.some(number, self.play.started)
        if worker is not None:
            self.play.scheduler.retire(worker)
            self.decide()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.5, 2.0, 10.0]))
    def wait(self, seconds: float) -> None:
        end = self.play.now + seconds
        asked = 0
        while (wake := self.play.scheduler.wake_at) <= end:
            self.play.now = wake
            self.decide()
            asked += 1
            assert asked <= 20 + len(self.jobs) + 4 * len(self.play.started), "timers storm"
        self.play.now = end

    @rule(max_workers=st.integers(0, 4), min_idle=st.integers(0, 3), load=st.integers(0, 3))
    def resize(self, max_workers: int, min_idle: int, load: int) -> None:
        self._before_resize = max(self._before_resize, self.play.scheduler.workers.count)
        self.play.scheduler.resize(max_workers=max_workers, min_idle=min_idle, load=load)
        self.decide()

    @rule(number=st.integers(0, 9))
    def renew(self, number: int) -> None:
        sources = self.play.sources
        self.play.scheduler.renew(sources[number % len(sources)])
        self.decide()

    @invariant()
    def every_job_ends_at_most_once(self) -> None:
        if hasattr(self, "play"):
            assert all(len(ends) <= 1 for ends in self.play.ends.values())
            for job in self.jobs:
                assert not (job in self.withdrawn and self.play.ends[job])
                assert job.runs <= (MAX_RUNS if job.idempotent else 1)

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "play"):
            return
        scheduler = self.play.scheduler
        workers = scheduler.workers
        assert sum(source.count for source in scheduler.sources) == workers.count
        for load, level in enumerate(workers.by_load):
            assert all(len(worker.jobs) == load for worker in level)
        assert {worker for level in workers.by_load for worker in level} == workers.working.keys() - workers.paused
        assert all(worker.jobs for worker in workers.paused), "each will be resumed"
        if scheduler.queue.length and scheduler.limits.load:
            assert all(len(worker.jobs) >= scheduler.limits.load for level in workers.by_load for worker in level)
        assert workers.beyond_load == sum(max(0, len(worker.jobs) - workers.load) for worker in workers.working)
        for worker in workers.working:
            if scheduler.limits.boosts_load:
                assert worker.slow == sum(not job.depth for job in worker.jobs)
                assert len(worker.jobs) <= max([workers.load, *(job.depth for job in worker.jobs)])
        stats = scheduler.stats()
        assert stats.queued == sum(job.state is JobState.QUEUED for job in self.jobs)

    def teardown(self) -> None:
        """Check that in the end everything that was asked gets its end."""
        if not hasattr(self, "play"):
            return
        play, scheduler = self.play, self.play.scheduler
        limits = scheduler.limits
        scheduler.resize(max_workers=max(1, limits.max_workers), load=max(1, limits.load))
        for source in play.sources:
            scheduler.limit(source, 2)
            scheduler.renew(source)
        self._before_resize = inf  # type: ignore[assignment]  # it may be above what it was
        scheduler.close()
        self.decide()
        for _ in range(10 * len(self.jobs) + 100):
            for worker in list(scheduler.workers.starting):
                scheduler.ready(worker, play.now)
            for worker in self.alive():
                if worker.state is WorkerState.KILLED:
                    scheduler.died(worker, play.now)
                elif worker.jobs:
                    job = next(iter(worker.jobs))
                    if job.state is JobState.RUNNING:
                        play.ends[job].append("answer")
                    scheduler.answered(job, play.now)
            self.decide()
            if scheduler.finished:
                break
            play.now += LAST_DELAY
        assert scheduler.finished
        for job in self.jobs:
            assert job.state is JobState.DONE
            assert len(play.ends[job]) + (job in self.withdrawn) == 1, "each job has one end"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40)
