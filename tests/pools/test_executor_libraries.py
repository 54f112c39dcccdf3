"""Libraries that take an executor, or have backends, work with ours."""

from __future__ import annotations

import operator
import os
import signal

import executor_functions
import numpy
import pytest
from conftest import descendants, eventually, wait_for_end

import anyfork
from anyfork import Executor, Template

joblib = pytest.importorskip("joblib")
import anyfork.joblib  # noqa: E402  # it registers the backend


@pytest.fixture(scope="module")
def ready_for_joblib():
    """Yield a template that has loaded joblib: importing it takes longer than most tests."""
    with Template().preload("joblib.parallel", "anyfork.joblib").ready(60) as template:
        yield template


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    """End the workers that joblib's backend keeps for later blocks."""
    yield
    while anyfork.joblib._kept:
        anyfork.joblib._kept.popitem()[0].shutdown()


@pytest.fixture
def backend(ready_for_joblib):
    with joblib.parallel_config(backend="anyfork", n_jobs=2, template=ready_for_joblib):
        yield


@pytest.mark.usefixtures("backend")
class TestJoblib:
    def test_calls_run_in_workers(self):
        found = joblib.Parallel()(joblib.delayed(operator.neg)(n) for n in range(100))
        assert found == [-n for n in range(100)]
        pids = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(10))
        assert os.getpid() not in pids

    def test_closures_travel(self):
        factor = 3
        assert joblib.Parallel()(joblib.delayed(lambda x: x * factor)(n) for n in range(4)) == [0, 3, 6, 9]

    def test_results_come_as_a_generator(self):
        found = joblib.Parallel(return_as="generator")(joblib.delayed(operator.neg)(n) for n in range(20))
        assert list(found) == [-n for n in range(20)]
        found = joblib.Parallel(return_as="generator_unordered")(joblib.delayed(operator.neg)(n) for n in range(20))
        assert sorted(found) == [-n for n in reversed(range(20))]

    def test_what_a_call_raises_ends_the_whole(self):
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(operator.truediv)(1, n - 3) for n in range(10))
        assert joblib.Parallel()(joblib.delayed(operator.neg)(n) for n in range(3)) == [0, -1, -2]

    def test_what_a_call_raises_leaves_a_block_of_calls_in_use(self):
        with joblib.Parallel() as parallel:
            with pytest.raises(ZeroDivisionError):
                parallel(joblib.delayed(operator.truediv)(1, n - 3) for n in range(10))
            found = parallel(joblib.delayed(operator.neg)(n) for n in range(3))
            # With every backend, joblib 1.6 may give before them what was left of the call that failed.
            assert found[-3:] == [0, -1, -2]

    def test_a_worker_that_dies_is_told(self):
        with pytest.raises(anyfork.WorkerDiedError):
            joblib.Parallel()(joblib.delayed(executor_functions.die_if)(n, 2) for n in range(4))
        assert joblib.Parallel()(joblib.delayed(operator.neg)(n) for n in range(3)) == [0, -1, -2]

    def test_a_deadline_ends_what_runs(self):
        import time
        from multiprocessing import TimeoutError as OfJoblib

        with pytest.raises(OfJoblib):
            joblib.Parallel(timeout=0.1)(joblib.delayed(time.sleep)(60) for _ in range(2))

    def test_one_job_at_a_time_needs_no_worker(self):
        assert joblib.Parallel(n_jobs=1)(joblib.delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2

    def test_it_may_be_nested(self):
        def inner(count):
            return joblib.Parallel(n_jobs=2)(joblib.delayed(operator.neg)(n) for n in range(count))

        assert joblib.Parallel()(joblib.delayed(inner)(n) for n in range(3)) == [[], [0], [0, -1]]

    def test_arrays_travel(self):
        array = numpy.arange(1_000_000.0)
        sums = joblib.Parallel()(joblib.delayed(numpy.sum)(array * n) for n in range(3))
        assert sums == [array.sum() * n for n in range(3)]

    @pytest.mark.slow
    def test_scikit_learn_searches(self):
        sklearn = pytest.importorskip("sklearn")
        from sklearn.datasets import load_iris
        from sklearn.model_selection import GridSearchCV
        from sklearn.tree import DecisionTreeClassifier

        data, target = load_iris(return_X_y=True)
        tree = DecisionTreeClassifier(random_state=0)
        search = GridSearchCV(tree, {"max_depth": [1, 2, 3]}, n_jobs=2, cv=3).fit(data, target)
        alone = GridSearchCV(tree, {"max_depth": [1, 2, 3]}, n_jobs=1, cv=3).fit(data, target)
        assert sklearn is not None
        assert search.cv_results_["mean_test_score"].tolist() == alone.cv_results_["mean_test_score"].tolist()


def test_joblib_keeps_inner_threads_few(ready_for_joblib):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for inner, wanted in ((3, "3"), (None, os.environ.get("OMP_NUM_THREADS", str(max(1, joblib.cpu_count() // 2))))):
        with joblib.parallel_config(backend="anyfork", template=ready_for_joblib, inner_max_num_threads=inner):
            found = joblib.Parallel(n_jobs=2)(joblib.delayed(executor_functions.environment)(name) for name in names)
        assert found == [wanted] * 2


def test_joblib_takes_the_options_of_executor(ready_for_joblib):
    options = {"initializer": executor_functions.initialize, "initargs": (7,), "max_calls": 50}
    with joblib.parallel_config(backend="anyfork", template=ready_for_joblib, **options):
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(executor_functions.what_was_initialized)() for _ in range(2))
    assert found == [[7], [7]]


def executor_of_a_block(*args, **options):
    """Use the backend in a block with these arguments of an initializer; return the Executor that it leaves."""
    options = {"initializer": executor_functions.initialize, "initargs": args, **options}
    with joblib.parallel_config(backend="anyfork", n_jobs=2, **options):
        assert joblib.Parallel()(joblib.delayed(operator.neg)(n) for n in range(3)) == [0, -1, -2]
    return [*anyfork.joblib._kept][-1]


def test_joblib_keeps_workers_between_blocks(ready_for_joblib):
    options = {"template": ready_for_joblib, "inner_max_num_threads": 1}
    first = executor_of_a_block(7, **options)
    pids = first.pids
    assert executor_of_a_block(7, **options) is first
    assert {*pids} <= {*first.pids}, "its workers have stayed"
    assert executor_of_a_block(8, **options) is not first
    assert executor_of_a_block(7, **options) is first, "two sets are kept"
    executor_of_a_block(7, template=ready_for_joblib, inner_max_num_threads=2)
    executor_of_a_block([7], **options)
    assert first not in anyfork.joblib._kept, "not more than two"
    eventually(lambda: not {*pids} & {*descendants()}, "they end")


def test_joblib_keeps_no_workers_in_a_copy_of_the_program_that_was_forked_in_a_block(ready_for_joblib):
    with joblib.parallel_config(backend="anyfork", n_jobs=2, template=ready_for_joblib):
        joblib.Parallel()(joblib.delayed(operator.neg)(n) for n in range(3))
        pid = os.fork()
        if pid == 0:
            kept = -1
            try:
                joblib.parallel.get_active_backend()[0]._leave()  # what the end of the block does
                kept = len(anyfork.joblib._kept)
            finally:
                os._exit(kept)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_copy_of_the_program_that_was_forked_in_a_block_of_joblib_has_its_own_executor(ready_for_joblib, monkeypatch):
    monkeypatch.setattr(anyfork.joblib, "WITH_IT", ())
    with monkeypatch.context() as patched:
        patched.setattr(anyfork.joblib, "Template", ready_for_joblib.fork)
        config = joblib.parallel_config(backend="anyfork", n_jobs=2)
        joblib.Parallel()(joblib.delayed(operator.neg)(n) for n in range(3))
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            backend = joblib.parallel.get_active_backend()[0]
            backend.configure(n_jobs=2)
            code = backend._executor._dispatcher.foreign or backend._template._link.foreign
        finally:
            os._exit(code)
    config.unregister()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_joblib_makes_another_template_if_its_own_has_ended_between_blocks(ready_for_joblib, monkeypatch):
    monkeypatch.setattr(anyfork.joblib, "Template", ready_for_joblib.fork)  # which has loaded what it is to load
    monkeypatch.setattr(anyfork.joblib, "WITH_IT", ())
    first = executor_of_a_block(7, idle_timeout=0.01)
    eventually(lambda: not first.pids, "its workers are idle")
    [source] = first._dispatcher.scheduler.sources
    pid = source.key.ready().pid
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert executor_of_a_block(7, idle_timeout=0.01) is not first
    assert first not in anyfork.joblib._kept


def test_joblib_does_not_keep_workers_of_a_block_that_failed(ready_for_joblib):
    kept = executor_of_a_block(template=ready_for_joblib)
    options = {"initializer": executor_functions.initialize, "template": ready_for_joblib}
    with pytest.raises(ZeroDivisionError), joblib.parallel_config(backend="anyfork", n_jobs=2, **options):
        joblib.Parallel()(joblib.delayed(operator.truediv)(1, n) for n in range(4))
    assert kept not in anyfork.joblib._kept


def test_dask_computes():
    dask = pytest.importorskip("dask")
    bags = pytest.importorskip("dask.bag")
    with Executor(max_workers=2) as executor:
        bag = bags.from_sequence(range(100), npartitions=8).map(lambda x: 2 * x)
        with dask.config.set(scheduler="processes", pool=executor):
            assert bag.sum().compute() == 9900
        assert bag.sum().compute(scheduler=executor) == 9900
        with pytest.raises(ZeroDivisionError):
            bag.map(lambda x: 1 // x).sum().compute(scheduler=executor)
        assert executor.submit(pow, 2, 2).result(20) == 4


def test_proxies_of_managers_travel():
    from multiprocessing import get_context

    with get_context("fork").Manager() as manager, Executor(max_workers=2) as executor:
        shared = manager.dict()
        list(executor.map(executor_functions.put, [shared] * 10, range(10)))
        assert dict(shared) == {n: n for n in range(10)}
    eventually(lambda: not executor.pids)
