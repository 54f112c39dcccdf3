"""What ``stats()`` says of workers: their memory, and the time that their starts took."""

from __future__ import annotations

import os
from time import monotonic

import observed_faces
import pytest
from observed_faces import opened
from observed_functions import keep_memory

from anyfork import WorkerDiedError

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
