"""Celery's own integration tests of tasks, of commands to a worker and of canvases, with our task pool in its place."""

from __future__ import annotations

import pytest
from upstream import check_tests, source_of

celery = pytest.importorskip("celery", reason="celery is not installed, or has no wheel for this interpreter")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The other files test brokers, results and settings, whatever runs the tasks. Those in t/unit/concurrency test what all
# pools inherit, and with mocks the parts of Celery's own pools.
CANVAS = "t/integration/test_canvas.py"
RACING = "looks at 42 results when the first one is there, and expects all of them; it fails with Celery's pool, too"
SLEEPING = "waits for minutes for what does not happen"
LEFT_OUT = {
    "t/integration/test_tasks.py": {
        "test_class_based_task_retried": "its task is only in the app of the worker: processes that billiard spawns lack it too",
        "test_replaced_task_nesting": "two of them set their result after they have sent the task, which may have come by then",
        "test_trace_log_arguments": "expects log records of processes, which Celery collects from its prefork pool alone",
    },
    "t/integration/test_inspect.py": {},
    f"{CANVAS}::test_chain": {},
    f"{CANVAS}::test_group": {},
    f"{CANVAS}::test_chord": {
        "test_mutable_errback_called_by_chord_from_group_fail_multiple_on_body_failure": RACING,
        "test_disabling_flag_allow_error_cb_on_chord_header": SLEEPING,
        "test_enabling_flag_allow_error_cb_on_chord_header": SLEEPING,
        "test_flag_allow_error_cb_on_chord_header_on_upgraded_chord": SLEEPING,
        "test_error_propagates_from_chord": SLEEPING,
        "test_nested_chord_header_link_error": SLEEPING,
        "large_header": "wants a thousand tasks within a minute, which a busy machine does not do",
    },
    f"{CANVAS}::test_stamping_mechanism": {},
}


@pytest.mark.parametrize("tests", LEFT_OUT)
def test_the_integration_tests_of_celery_pass(tests, tmp_path):
    source = source_of("celery", celery.__version__, tmp_path)
    redis = {"TEST_BROKER": "redis://", "TEST_BACKEND": "redis://"}
    check_tests(source, [tests], "celery.contrib.pytest", "celery_upstream", left_out=LEFT_OUT[tests], **redis)
