"""What ``stats()`` says of workers: their memory, and the time that their starts took."""

from __future__ import annotations

import os
from math import inf
from time import monotonic, sleep

import observed_faces
import pytest
from observed_faces import opened
from observed_functions import keep_memory

import anyfork
from anyfork import WorkerDiedError
from anyfork._pools.pool_options import Limits
from anyfork._pools.records import Job, TemplateRecord
from anyfork._pools.scheduler import Scheduler

MIB = 1 << 20


@pytest.mark.parametrize("kind", observed_faces.POOLS)
def test_stats_have_the_memory_of_each_worker(kind):
    with opened(kind) as face:
        pid = face.call(os.getpid)
        before = face.stats()
        face.call(keep_memory, 30 * MIB)
        after = face.stats()
        assert before.pids == after.pids == (pid,)
        small, large = before.memory[pid], after.memory[pid]
        assert large.private >= 30 * MIB, "both are measured now"
        assert small.pss >= small.private
    assert after.memory == {}, "the worker has ended"


@pytest.mark.parametrize("kind", observed_faces.POOLS)
def test_stats_count_what_was_submitted_however_it_is_sent(kind):
    with opened(kind) as face:
        assert face.map(abs, range(-1000, 0)) == [*range(1000, 0, -1)]
        done = face.stats()
        with pytest.raises(WorkerDiedError):
            face.map(end_at, range(200))
        face.call(abs, -1)  # what the map had sent ahead has ended, too
        after = face.stats()
    assert (done.submitted, done.answered) == (1000, 1000)
    assert after.submitted > 1100
    assert after.submitted == after.answered + after.failed + after.withdrawn
    assert after.answered > 1100, "the items before it, in its job"


def test_stats_count_items_that_were_answered_before_all_others_of_their_job_were_taken_back():
    scheduler = Scheduler(Limits(max_workers=1), [TemplateRecord(None, inf)])
    scheduler.submit(job := Several(10))
    [worker] = scheduler.decide(0.0).start
    scheduler.ready(worker, 0.0)
    scheduler.decide(0.0)
    job.left = 6
    scheduler.taken_back([job], 1.0)
    assert (scheduler.stats().answered, scheduler.stats().moved, worker.calls) == (4, 6, 4)
    scheduler.decide(1.0)
    job.left = 0
    scheduler.answered(job, 2.0)
    assert scheduler.stats().answered == scheduler.stats().submitted == 10


class Several(Job):
    """A job of several calls, of which ``left`` have no answer yet."""

    def __init__(self, size):
        super().__init__(size=size)
        self.left = size

    @property
    def answers(self):
        return self.size - self.left


@pytest.mark.parametrize("cancel", [lambda one: one.shutdown(cancel_futures=True), anyfork.Executor.terminate_workers])
def test_stats_count_what_an_executor_cancels_at_its_end(cancel):
    with anyfork.Executor(max_workers=1) as executor:
        executor.submit(abs, -1).result()
        for _ in range(20):
            executor.submit(sleep, 0.05)
        cancel(executor)
    stats = executor.stats()
    assert stats.withdrawn >= 18
    assert stats.submitted == stats.answered + stats.failed + stats.withdrawn == 21


def end_at(number):
    """End this worker at an item in the middle of others."""
    if number == 150:
        os._exit(3)
    return number


@pytest.mark.parametrize("kind", observed_faces.POOLS)
def test_stats_have_the_time_that_starts_took(kind):
    began = monotonic()
    with opened(kind) as face:
        assert face.stats().starting_seconds == 0
        face.call(abs, -1)
        stats = face.stats()
    assert stats.started == 1
    assert 0 < stats.starting_seconds < monotonic() - began
