"""Tasks of Dask's distributed scheduler in processes of a template. Each test is a program with a real cluster."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="distributed is not installed, or has no wheel for this interpreter")

import dask
import dask_tasks
from conftest import descendants, eventually, wait_for_end
from distributed import Client, KilledWorker, LocalCluster
from in_program import SECONDS, TEST_DEADLINE, in_program

from anyfork import PreloadError, TemplateDiedError, WorkerDiedError
from anyfork.contrib.dask import TemplatePlugin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_DEADLINE)]


@contextlib.contextmanager
def cluster(threads=1, **options):
    """Yield a client of a cluster in this process. All tasks are for processes of a template."""
    made = LocalCluster(n_workers=1, threads_per_worker=threads, processes=False, dashboard_address=None)
    with made, Client(made) as client:
        client.register_plugin(TemplatePlugin("dask_tasks", **options))
        with dask.annotate(executor="anyfork"):
            yield client


def fifo(name):
    os.mkfifo(name)
    return os.path.abspath(name)


def begun(path):
    """Wait until a task has begun. Return its process."""
    eventually(Path(path).exists, deadline=SECONDS)  # Dask may have to start a worker
    return int(Path(path).read_text())


@in_program
def test_tasks_run_in_processes_that_a_template_has_prepared():
    with cluster(make=dask_tasks.template_with_data) as client:
        process, template = client.submit(dask_tasks.pid).result(SECONDS)
        assert process != os.getpid() != template
        assert client.submit(dask_tasks.data).result(SECONDS) == [1, 2, 3]
        assert dask_tasks.DATA == []
        with dask.annotate(executor="default"):
            assert client.submit(dask_tasks.pid, 0).result(SECONDS)[0] == os.getpid()
        tasks = [
            dask.delayed(lambda n: (dask_tasks.pid()[1], n * n))(n) for n in range(20)
        ]  # defined here: goes by value
        assert dask.compute(*tasks, optimize_graph=False) == tuple((template, n * n) for n in range(20))
        with pytest.raises(ZeroDivisionError):
            client.submit(lambda: 1 // 0).result(SECONDS)


@in_program
def test_a_process_that_is_killed_fails_its_own_task_and_retries_run_it_again():
    with cluster(threads=2) as client:
        release = fifo("release")
        other = client.submit(dask_tasks.wait_for, release, "done")
        with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
            client.submit(dask_tasks.die).result(SECONDS)
        assert isinstance(caught.value, BrokenExecutor)
        assert client.submit(dask_tasks.die_once, os.path.abspath("once"), retries=1).result(SECONDS) == "alive"
        open(release, "w").close()
        assert other.result(SECONDS) == "done"


@in_program
def test_a_template_that_is_killed_is_replaced_and_retries_run_the_task_that_met_it():
    with cluster(threads=2, max_calls=1) as client:
        release, path = fifo("release"), os.path.abspath("begun")
        before = client.submit(dask_tasks.say_and_wait, path, release)
        begun(path)
        for retries in (0, 1):
            _, template = client.submit(dask_tasks.pid, ("before", retries)).result(SECONDS)
            os.kill(template, signal.SIGKILL)
            task = client.submit(dask_tasks.pid, retries, retries=retries)
            if retries:
                assert task.result(SECONDS)[1] != template
            else:
                with pytest.raises(TemplateDiedError, match="SIGKILL"):
                    task.result(SECONDS)
        open(release, "w").close()
        assert before.result(SECONDS) is None


@in_program
def test_a_cancelled_task_that_has_begun_goes_on_as_with_threads_and_the_worker_does_too():
    with cluster() as client:
        for executor in ("anyfork", "default"):
            with dask.annotate(executor=executor):
                release, path = fifo(f"release-{executor}"), os.path.abspath(executor)
                task = client.submit(dask_tasks.say_and_wait, path, release)
                begun(path)
                task.cancel()
                assert task.cancelled()
                following = client.submit(pow, 2, 3, pure=False)
                open(release, "w").close()
                assert following.result(SECONDS) == 8
                eventually(Path(f"{path}.done").exists)


@in_program
def test_the_task_with_the_greatest_priority_runs_first():
    with cluster() as client:
        release = fifo("release")
        first = client.submit(dask_tasks.wait_for, release)
        path = os.path.abspath("order")
        tasks = [client.submit(dask_tasks.note, path, n, priority=n) for n in (1, 3)]
        (worker,) = client.cluster.workers.values()
        eventually(lambda: all(getattr(worker.state.tasks.get(task.key), "state", None) == "ready" for task in tasks))
        open(release, "w").close()
        client.gather([first, *tasks])
        assert Path(path).read_text().split() == ["3", "1"]


@in_program
def test_a_task_runs_where_its_data_is():
    made = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with made, Client(made) as client, dask.annotate(executor="anyfork"):
        client.register_plugin(TemplatePlugin("dask_tasks"))
        templates = {
            address: client.submit(dask_tasks.pid, address, workers=[address]).result(SECONDS)[1]
            for address in client.scheduler_info()["workers"]
        }
        assert len({*templates.values()}) == 2
        for address, template in templates.items():
            data = client.scatter(bytes(5_000_000), workers=[address], hash=False)
            assert client.submit(dask_tasks.pid, data).result(SECONDS)[1] == template


@in_program
def test_a_module_that_was_uploaded_is_preloaded_and_its_new_version_runs_after_another_registration():
    with cluster() as client:
        os.mkdir("elsewhere")
        found = []
        for number, registers in ((1, True), (22, False), (333, True)):
            Path("elsewhere/uploaded.py").write_text(f"NUMBER = {number}\n")
            client.upload_file("elsewhere/uploaded.py")
            if registers:
                client.register_plugin(TemplatePlugin("dask_tasks", "uploaded"))
            found.append(client.submit(dask_tasks.number_uploaded, number).result(SECONDS))
        assert found == [(True, 1), (True, 1), (True, 333)]


@in_program
def test_coroutines_and_actors_run_in_the_worker_and_a_process_has_no_dask_worker():
    with cluster() as client:
        assert client.submit(dask_tasks.coroutine).result(SECONDS) == os.getpid()
        actor = client.submit(dask_tasks.Actor, actor=True).result(SECONDS)
        assert actor.pid().result(SECONDS) == os.getpid()
        with pytest.raises(Exception, match="No worker found"):
            client.submit(dask_tasks.worker_of_dask).result(SECONDS)


@in_program
def test_a_task_that_calls_exit_ends_the_dask_worker_as_in_a_thread():
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        made = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with made, Client(made) as client:
        client.register_plugin(TemplatePlugin())
        for executor in ("anyfork", "default"):
            with dask.annotate(executor=executor), pytest.raises(KilledWorker):
                client.submit(sys.exit, 3, pure=False).result(SECONDS)
        with dask.annotate(executor="anyfork"):
            assert client.submit(pow, 2, 3).result(SECONDS) == 8


@in_program
def test_a_second_plug_in_replaces_the_first_and_tasks_of_the_first_end_well():
    with cluster() as client:
        release, path = fifo("release"), os.path.abspath("begun")
        task = client.submit(dask_tasks.say_and_wait, path, release)
        process = begun(path)
        client.register_plugin(TemplatePlugin(make=dask_tasks.template_with_data, max_calls=1))
        open(release, "w").close()
        assert task.result(SECONDS) is None
        wait_for_end(process, SECONDS)
        found = [client.submit(dask_tasks.pid, n).result(SECONDS)[0] for n in range(3)]
        assert len({*found}) == 3  # each task has a process of its own
        client.unregister_worker_plugin("anyfork")
        with pytest.raises(ValueError, match="Invalid executor 'anyfork'"):
            client.submit(pow, 2, 3).result(SECONDS)


@in_program
def test_a_worker_that_is_scaled_away_leaves_its_task_to_others_and_its_processes_end():
    made = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with made, Client(made) as client, dask.annotate(executor="anyfork"):
        client.register_plugin(TemplatePlugin("dask_tasks"))
        release, path = fifo("release"), os.path.abspath("begun")
        task = client.submit(dask_tasks.say_and_wait, path, release)
        process = begun(path)
        ((address, _),) = [(worker, keys) for worker, keys in client.processing().items() if keys]
        Path(path).unlink()
        client.retire_workers([address], close_workers=True)
        wait_for_end(process, SECONDS)
        assert begun(path) != process
        open(release, "w").close()
        assert task.result(SECONDS) is None


@in_program
def test_adaptive_scaling_gives_new_workers_templates_and_retired_ones_leave_nothing():
    made = LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None)
    with made, Client(made) as client, dask.annotate(executor="anyfork"):
        client.register_plugin(TemplatePlugin("dask_tasks"))
        made.adapt(minimum=0, maximum=2, interval="50ms", wait_count=2, target_duration="50ms")
        releases = [fifo(f"release-{n}") for n in range(2)]
        paths = [f"{release}.begun" for release in releases]
        tasks = [client.submit(dask_tasks.say_and_wait, *both) for both in zip(paths, releases, strict=True)]
        processes = {begun(path) for path in paths}
        workers = [*client.run(os.getpid).values()]
        below = [{*descendants(worker)} for worker in workers]
        assert [len(processes & those) for those in below] == [1, 1]
        for release in releases:
            open(release, "w").close()
        assert client.gather(tasks) == [None, None]
        del tasks
        for pid in {*workers}.union(*below):
            wait_for_end(pid, SECONDS)


@in_program
def test_a_plug_in_that_is_replaced_while_it_makes_its_template_replaces_nothing():
    with cluster() as client:
        release, path = fifo("release"), os.path.abspath("begun")
        slow = TemplatePlugin(make=functools.partial(dask_tasks.slow_template, path, release))
        registering = threading.Thread(target=client.register_plugin, args=[slow])
        registering.start()
        begun(path)
        client.register_plugin(TemplatePlugin(make=dask_tasks.template_with_data))
        open(release, "w").close()
        registering.join()
        assert client.submit(dask_tasks.data).result(SECONDS) == [1, 2, 3]
        (template,) = dask_tasks.MADE
        wait_for_end(template, SECONDS)


class Machines:
    """A scheduler and workers as programs that are started by themselves, as on machines of their own."""

    def __init__(self):
        self._programs = contextlib.ExitStack()
        self.file = os.path.abspath("scheduler.json")

    def __enter__(self):
        self.start_scheduler()
        return self

    def __exit__(self, *_):
        self._programs.close()

    def start_scheduler(self):
        """Start a scheduler, in the place of the one before."""
        Path(self.file).unlink(missing_ok=True)
        self.scheduler = self.start("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")

    def start(self, kind, *arguments, **env):
        """Start a program of Dask, and return its process."""
        command = [sys.executable, "-m", "dask", kind, *arguments, "--scheduler-file", self.file]
        program = subprocess.Popen(command, env={**os.environ, **env})
        self._programs.callback(program.wait)
        self._programs.callback(program.terminate)
        return program

    def client(self):
        """Return a client, when the scheduler and a worker are there."""
        eventually(Path(self.file).exists)
        client = Client(scheduler_file=self.file)
        client.wait_for_workers(1)
        return client

    def worker(self, name, *arguments, **env):
        """Start a worker on this machine, without a nanny, and return its process."""
        more = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--name", name)
        return self.start("worker", *more, *arguments, **env)


@in_program
def test_workers_on_several_machines_have_templates_of_their_own_also_those_that_join_later():
    with Machines() as machines:
        machines.worker("good")
        with machines.client() as client, dask.annotate(executor="anyfork"):
            client.register_plugin(TemplatePlugin("dask_tasks", make=dask_tasks.template_of_one_machine))
            strong = machines.worker("strong", "--resources", "strength=1")
            machines.worker("bad", MODULE_OF_THIS_MACHINE="no_such_module")
            release, path = fifo("release"), os.path.abspath("begun")
            task = client.submit(dask_tasks.say_and_wait, path, release, resources={"strength": 1})
            process = begun(path)
            assert process in descendants(strong.pid)
            Path(path).unlink()
            strong.kill()
            wait_for_end(process, SECONDS)
            machines.worker("stronger", "--resources", "strength=1")
            assert begun(path) != process
            open(release, "w").close()
            assert task.result(SECONDS) is None
            with pytest.raises(PreloadError, match="no_such_module"):
                client.submit(pow, 2, 3, workers="bad").result(SECONDS)
            assert client.submit(pow, 2, 5, workers="good").result(SECONDS) == 32
            with pytest.raises(PreloadError, match="no_such_module"):
                client.register_plugin(TemplatePlugin("no_such_module", name="other"))


@in_program
def test_the_processes_of_workers_that_lose_their_scheduler_end_and_a_new_scheduler_has_new_ones():
    with Machines() as machines:
        worker = machines.worker("first")
        with machines.client() as client, dask.annotate(executor="anyfork"):
            client.register_plugin(TemplatePlugin("dask_tasks"))
            path = os.path.abspath("begun")
            task = client.submit(dask_tasks.say_and_wait, path, fifo("release"))
            process = begun(path)
            machines.scheduler.kill()
            assert worker.wait(SECONDS) is not None
            wait_for_end(process, SECONDS)
            assert task.status != "finished"
        machines.start_scheduler()
        machines.worker("second")
        with machines.client() as client, dask.annotate(executor="anyfork"):
            client.register_plugin(TemplatePlugin("dask_tasks"))
            assert client.submit(pow, 2, 3).result(SECONDS) == 8
