"""RQ's own tests of its worker, with ours in its place."""

from __future__ import annotations

import pytest
from upstream import check_tests, source_of

rq = pytest.importorskip("rq", reason="rq is not installed, or has no wheel for this interpreter")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# They patch the worker's process and expect the work horse to have the patch: RQ's SpawnWorker cannot pass them either.
PATCHING = ("test_horse_fails", "test_job_dependency_race_condition")
SLEEPING = (
    "heartbeat_busy",
    "max_idle_time",
    "dequeue_random",
    "dequeue_round",
    "suspend",
    "TestWorkerSubprocess",
)


def test_the_tests_of_rqs_worker_pass(tmp_path):
    source = source_of("rq", rq.VERSION, tmp_path)
    check_tests(source, ["tests/test_worker.py"], "rq_upstream", left_out=PATCHING + SLEEPING)
