"""CPython's own tests of process pools, as the interpreter that runs this ships them, against anyfork.Executor.

The classes are upstream's: each is mixed with what makes the executor here, instead of a ProcessPoolExecutor of one of
the start methods. Tests that assert how ProcessPoolExecutor works inside are in a table, each with its reason.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("test.support", reason="this interpreter comes without the tests of CPython")
upstream = pytest.importorskip(
    "test.test_concurrent_futures", reason="this interpreter comes without CPython's tests of concurrent.futures"
)

from drop_in import DropIn  # noqa: E402  # after it is known that there is anything to run

import anyfork  # noqa: E402  # as below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import BaseContext
    from threading import Event
    from types import ModuleType

pytestmark = [pytest.mark.slow, pytest.mark.cpython]

HERE = os.path.dirname(os.path.abspath(__file__))
BREAKS_ALL = "it asserts that one bad job breaks the whole pool: here only its own future fails, see test_executor*.py"
FORCED = "it replaces or asks an inner method of ProcessPoolExecutor: tests/pools has our own tests of these methods"
GOES_ON = "here the jobs of an Executor that nobody has any more run to their end, in new workers where they are needed"
EXCEPTIONS = {
    "test_killed_child": BREAKS_ALL,
    "test_error_at_task_unpickle": BREAKS_ALL,
    "test_error_during_result_unpickle_in_result_handler": BREAKS_ALL,
    "test_exit_during_result_unpickle_in_result_handler": BREAKS_ALL,
    "test_traceback": "it asserts the private class of the cause: ours has the text of the remote traceback too",
    "test_max_tasks_per_child_defaults_to_spawn_context": "it asserts which start method multiprocessing is asked for",
    "test_python_finalization_error": "it forbids the second thread of a ProcessPoolExecutor; there is only one here",
    "test_saturation": "it counts workers for jobs that cannot be pickled: here no worker is started for those",
    "test_processes_terminate": "it counts workers for jobs that cannot be pickled: here no worker is started for those",
}
EXCEPTIONS |= {
    "test_force_shutdown_workers": FORCED,
    "test_force_shutdown_workers_invalid_op": FORCED,
    "test_force_shutdown_during_max_tasks_worker_exit": FORCED,
    "test_terminate_workers": FORCED,
    "test_kill_workers": FORCED,
    "test_gc_during_max_tasks_worker_exit_gh152967": GOES_ON,
    "test_shutdown_no_wait_max_tasks_gh119592": GOES_ON,
    "test_failed_worker_replacement_breaks_pool": "it breaks an inner method that starts the processes of a pool",
    "test_broken_process_pool_traceback": BREAKS_ALL,
    "test_traceback_when_child_process_terminates_abruptly": "it asserts the private class of the cause, and there is none",
}
# Which versions of Python certainly have those that came later.
SINCE = {
    "test_python_finalization_error": (3, 13),
    "test_force_shutdown_workers": (3, 14),
    "test_force_shutdown_workers_invalid_op": (3, 14),
    "test_terminate_workers": (3, 14),
    "test_kill_workers": (3, 14),
    "test_force_shutdown_during_max_tasks_worker_exit": (3, 15),
    "test_gc_during_max_tasks_worker_exit_gh152967": (3, 15),
    "test_shutdown_no_wait_max_tasks_gh119592": (3, 15),
    "test_failed_worker_replacement_breaks_pool": (3, 15),
    "test_broken_process_pool_traceback": (3, 15),
    "test_traceback_when_child_process_terminates_abruptly": (3, 15),
}
# Which class of upstream is in which of its modules. (In 3.11 all are in one.)
CLASSES = {
    "test_process_pool": ("ProcessPoolExecutorTest",),
    "test_shutdown": ("ProcessPoolShutdownTest",),
    "test_wait": ("WaitTests",),
    "test_as_completed": ("AsCompletedTests",),
    "test_init": ("InitializerMixin", "FailingInitializerMixin"),
    "test_deadlock": ("ExecutorDeadlockTest",),
}
INSTALL = f"""if 1:
    import sys, concurrent.futures
    sys.path.insert(0, {HERE!r})
    from drop_in import DropIn
    concurrent.futures.DropIn = DropIn
    sys.path.remove({HERE!r})
"""


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{upstream.__name__}.{name}") if hasattr(upstream, "__path__") else upstream


def in_a_program_with_drop_in(run: Any) -> Any:
    """Give programs of the tests the executor that they import from concurrent.futures by the name of its class."""

    def run_program(*args: str) -> Any:
        return run(*args[:-1], INSTALL + args[-1])

    return run_program


class DropInMixin:
    """In the place of ProcessPoolForkMixin and its like."""

    executor_type = DropIn

    def get_context(self) -> BaseContext:
        return multiprocessing.get_context("spawn")

    def create_event(self) -> Event:
        manager = anyfork.get_context().Manager()
        self.addCleanup(manager.shutdown)  # type: ignore[attr-defined]  # it is mixed into test cases
        return manager.Event()


def test_case(name: str, module_name: str) -> type:
    # A class of upstream with our executor in it.
    tests = module(module_name)
    util = module("util")
    mixin = getattr(tests, name)
    made = type(name.removesuffix("Mixin"), (mixin, DropInMixin, util.ExecutorMixin, util.BaseTestCase), {})
    for test, why in EXCEPTIONS.items():
        if hasattr(made, test):
            setattr(made, test, pytest.mark.skip(reason=why)(getattr(made, test)))
    return made


test_case.__test__ = False  # type: ignore[attr-defined]  # it makes them

for _module, _names in CLASSES.items():
    for _name in _names:
        globals()[f"Test{_name}"] = test_case(_name, _module)


@pytest.fixture(scope="module", autouse=True)
def _programs(monkeypatch_module: pytest.MonkeyPatch) -> None:
    shutdown = module("test_shutdown")
    monkeypatch_module.setattr(shutdown, "assert_python_ok", in_a_program_with_drop_in(shutdown.assert_python_ok))


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def _resource_tracker() -> None:
    """Start a process of multiprocessing's that semaphores need, and that would count as left behind by a test.

    It ends with this program: templates have its pipe, so nothing may wait for its end before.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def test_every_exception_is_a_test_of_this_version() -> None:
    # The table holds nothing that has gone meanwhile.
    there = {test for names in CLASSES for name in CLASSES[names] for test in dir(getattr(module(names), name))}
    newer = {test for test, version in SINCE.items() if sys.version_info < version}
    assert set(EXCEPTIONS) - there <= newer
