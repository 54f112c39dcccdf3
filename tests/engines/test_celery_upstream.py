"""Celery's own integration tests of tasks and of commands to a worker, with our task pool in the place of its own."""

from __future__ import annotations

import pytest
from upstream import check_tests, source_of

celery = pytest.importorskip("celery", reason="celery is not installed, or has no wheel for this interpreter")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# The other files test brokers, results and settings, whatever runs the tasks. Those in t/unit/concurrency test what all
# pools inherit, and with mocks the parts of Celery's own pools.
FILES = ("t/integration/test_tasks.py", "t/integration/test_inspect.py")
LEFT_OUT = {
    "test_class_based_task_retried": "its task is only in the app of the worker: processes that billiard spawns lack it too",
    "test_replaced_task_nesting": "two of them set their result after they have sent the task, which may have come by then",
    "test_trace_log_arguments": "expects log records of processes, which Celery collects from its prefork pool alone",
}


def test_the_integration_tests_of_celery_pass(tmp_path):
    source = source_of("celery", celery.__version__, tmp_path)
    redis = {"TEST_BROKER": "redis://", "TEST_BACKEND": "redis://"}
    check_tests(source, FILES, "celery.contrib.pytest", "celery_upstream", left_out=LEFT_OUT, **redis)
