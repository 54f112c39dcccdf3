"""Celery's worker with our task pool. Each test is a program with a real broker, and a worker from the command line."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("celery", reason="celery is not installed, or has no wheel for this interpreter")
if shutil.which("redis-server") is None:
    pytest.skip("redis-server is not installed", allow_module_level=True)

from billiard.exceptions import SoftTimeLimitExceeded
from broker import Broker
from celery import Celery
from conftest import descendants, eventually
from in_program import SECONDS, TEST_DEADLINE, in_program
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

import anyfork
from anyfork.contrib.celery import TaskPool, run_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_DEADLINE)]


@contextlib.contextmanager
def working(*arguments):
    """Start a Redis server and a worker of Celery with our pool, and yield the module of the tasks and the worker."""
    with Broker() as broker, working_for(broker, *arguments) as found:
        yield found


@contextlib.contextmanager
def working_for(broker, *arguments):
    """Start a worker of Celery for a Redis server."""
    os.environ["TEST_BROKER"] = f"redis+socket://{broker.path}"
    os.environ["CELERY_CUSTOM_WORKER_POOL"] = "anyfork.contrib.celery:TaskPool"
    command = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--pool", "custom", "-l", "INFO", "-E"]
    with contextlib.ExitStack() as programs:
        worker = programs.enter_context(
            subprocess.Popen([*command, "--without-gossip", "--without-mingle", *arguments])
        )
        programs.callback(worker.kill)
        import celery_tasks

        yield celery_tasks, worker
        worker.terminate()
        assert worker.wait(SECONDS) == 0


def begun(path):
    """Wait until a task has begun. Return its process."""
    eventually(Path(path).exists)
    return int(Path(path).read_text())


def outcome(result):
    """Return the value of a task, or the name of the class of its error."""
    value = result.get(SECONDS, propagate=False)
    return type(value).__name__ if isinstance(value, BaseException) else value


@in_program
def test_tasks_run_in_processes_of_a_template_that_has_loaded_them():
    with working("-c", "2") as (tasks, worker):
        process, loaded_in, parent, initialised = tasks.processes.delay().get(SECONDS)
        assert process in descendants(worker.pid)
        assert parent == loaded_in != worker.pid
        assert initialised
        names = tasks.logged_as.delay().get(SECONDS)
        assert names[0] == names[1]
        assert names[0].startswith("PoolWorker-")
        assert [result.get(SECONDS) for result in [tasks.add.delay(n, n) for n in range(20)]] == [
            2 * n for n in range(20)
        ]
        assert outcome(tasks.fail.delay()) == "ArithmeticError"
        assert outcome(tasks.retried.delay()) == "again"


@in_program
def test_a_process_that_dies_fails_its_own_task_or_runs_it_again():
    with working("-c", "2") as (tasks, worker):
        path = os.path.abspath("begun")
        waiting = tasks.wait.delay(path)
        process = begun(path)
        assert outcome(tasks.die.delay()) == "WorkerLostError"
        assert outcome(tasks.die_once.delay(os.path.abspath("once"))) == "alive"
        assert process in descendants(worker.pid)
        tasks.app.control.revoke(waiting.id, terminate=True, signal="SIGKILL")
        assert outcome(waiting) == "TaskRevokedError"
        eventually(lambda: process not in descendants(worker.pid))
        assert tasks.add.delay(1, 2).get(SECONDS) == 3


@in_program
def test_a_template_that_is_killed_is_replaced_and_no_task_fails():
    with working("-c", "1", "--max-tasks-per-child", "1") as (tasks, _):
        for _ in range(2):
            template = tasks.processes.delay().get(SECONDS)[2]
            os.kill(template, signal.SIGKILL)
            found = [result.get(SECONDS) for result in [tasks.processes.delay() for _ in range(3)]]
            assert found[-1][2] != template
        client = tasks.app.connection().default_channel.client
        assert client.hlen("unacked") == 0


@in_program
def test_a_killed_template_that_cannot_be_made_again_fails_tasks_with_the_reason_and_the_worker_goes_on():
    with working("-c", "1", "--max-tasks-per-child", "1") as (tasks, _):
        template = tasks.processes.delay().get(SECONDS)[2]
        Path("broken").touch()
        os.kill(template, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(Exception, match="this module was broken meanwhile"):
                tasks.add.delay(1, 2).get(SECONDS)
        Path("broken").unlink()
        (answer,) = tasks.app.control.pool_restart(reply=True, timeout=SECONDS, limit=1)
        assert "ok" in str(answer)
        assert tasks.add.delay(1, 2).get(SECONDS) == 3


@in_program
def test_a_warm_shutdown_finishes_and_acknowledges_what_runs():
    with working("-c", "1") as (tasks, worker):
        path = os.path.abspath("begun")
        os.mkfifo("fifo")
        tasks.finish.delay(path, os.path.abspath("fifo"))
        process = begun(path)
        worker.terminate()
        open("fifo", "w").close()
        assert worker.wait(SECONDS) == 0
        assert Path(f"{path}.done").exists()
        assert not Path(f"/proc/{process}").exists()
        client = tasks.app.connection().default_channel.client
        assert (client.hlen("unacked"), client.llen("celery")) == (0, 0)


@in_program
def test_a_broker_that_is_killed_and_comes_back_delivers_again_what_has_not_begun_and_nothing_runs_twice():
    with Broker() as broker, working_for(broker, "-c", "1") as (tasks, worker):
        path, notes = os.path.abspath("begun"), os.path.abspath("notes")
        os.mkfifo("fifo")
        holding = tasks.hold.delay(path, os.path.abspath("fifo"))
        process = begun(path)
        adding = [tasks.add_line.delay(notes, n) for n in range(8)]
        with broker.connection() as connection:  # all are old enough to be delivered again when the worker connects
            old = tasks.app.conf.broker_transport_options["visibility_timeout"] + 0.1
            eventually(lambda: connection.zcount("unacked_index", 0, time.time() - old) == 4)
        broker.kill()
        broker.start()
        open("fifo", "w").close()
        eventually(lambda: all(result.state == "SUCCESS" for result in [holding, *adding]), deadline=SECONDS)
        assert sorted(Path(notes).read_text().split()) == [str(n) for n in range(8)]
        assert process in descendants(worker.pid)


@in_program
def test_a_pool_that_loses_its_broker_forgets_the_tasks_that_have_not_begun():
    os.mkfifo("fifo")
    pool = TaskPool(1, initargs=(Celery("empty"), "host"))
    pool.start()
    accepted, results = [], []
    pool.apply_async(
        Path.read_text, [Path("fifo")], accept_callback=lambda *_: accepted.append(1), callback=results.append
    )
    eventually(lambda: accepted)
    pool.apply_async(Path.touch, [Path("touched")], callback=results.append)
    pool.flush()
    Path("fifo").write_text("read")
    pool.stop()
    assert results == ["read"]
    assert not Path("touched").exists()


@in_program
def test_a_task_that_waits_while_the_pool_restarts_runs_afterwards():
    os.mkfifo("fifo")
    semaphore = LaxBoundedSemaphore(1)
    pool = TaskPool(1, initargs=(Celery("empty"), "host"), semaphore=semaphore)
    pool.start()
    semaphore.acquire(pool.apply_async, Path.read_text, [Path("fifo")])
    semaphore.acquire(pool.apply_async, Path.touch, [Path("touched")])
    restarting = threading.Thread(target=pool.restart)
    restarting.start()
    eventually(lambda: pool._executor is None)
    Path("fifo").write_text("read")
    restarting.join()
    pool.stop()
    assert Path("touched").exists()


@in_program
def test_a_pool_that_grows_and_shrinks_gets_no_more_tasks_than_it_has_processes():
    semaphore = LaxBoundedSemaphore(1)
    pool = TaskPool(1, initargs=(Celery("empty"), "host"), semaphore=semaphore)
    pool.start()
    fifos, accepted = [Path(f"{number}.fifo") for number in range(5)], []
    for fifo in fifos:
        os.mkfifo(fifo)
        callback = functools.partial(lambda name, *_: accepted.append(name), fifo.name)
        semaphore.acquire(pool.apply_async, Path.write_text, [fifo, ""], accept_callback=callback)
    pool.grow(1)
    eventually(lambda: accepted == ["0.fifo", "1.fifo"])
    assert len(pool._jobs) == 2
    pool.shrink(1)
    fifos[0].read_text()
    fifos[1].read_text()
    eventually(lambda: accepted == ["0.fifo", "1.fifo", "2.fifo"])
    assert len(pool._jobs) == 1
    pool.shrink(5)
    fifos[2].read_text()
    eventually(lambda: not pool._jobs and not pool._executor.pids)
    pool.grow(2)
    for fifo in fifos[3:]:
        fifo.read_text()
    eventually(lambda: not pool._jobs)
    pool.stop()
    assert len(accepted) == 5


@in_program
def test_a_task_for_a_pool_that_has_ended_fails():
    pool = TaskPool(1, initargs=(Celery("empty"), "host"))
    pool.start()
    errors = []
    pool._executor.kill()
    pool.apply_async(abs, [-1], error_callback=errors.append)
    (error,) = errors
    assert "RuntimeError: cannot schedule new futures after shutdown" in error.traceback
    assert not pool._jobs
    pool.stop()


@in_program
def test_a_task_that_is_revoked_while_it_waits_for_a_process_does_not_run():
    with working("-c", "1") as (tasks, _):
        path, notes = os.path.abspath("begun"), os.path.abspath("notes")
        os.mkfifo("fifo")
        tasks.finish.delay(path, os.path.abspath("fifo"))
        begun(path)
        revoked, other = [tasks.add_line.delay(notes, word) for word in ("revoked", "other")]
        eventually(lambda: tasks.app.connection().default_channel.client.hlen("unacked") == 3)
        (answer,) = tasks.app.control.revoke(revoked.id, reply=True, timeout=SECONDS, limit=1)
        assert "ok" in str(answer)
        open("fifo", "w").close()
        other.get(SECONDS)
        assert outcome(revoked) == "TaskRevokedError"
        assert Path(notes).read_text() == "other\n"


@in_program
def test_a_task_that_ends_while_the_worker_waits_for_others_at_its_end_is_acknowledged_at_once():
    with working("-c", "2") as (tasks, worker):
        for name in ("one", "two"):
            os.mkfifo(f"{name}.fifo")
            tasks.finish.delay(os.path.abspath(name), os.path.abspath(f"{name}.fifo"))
            begun(os.path.abspath(name))
        client = tasks.app.connection().default_channel.client
        assert client.hlen("unacked") == 2
        worker.terminate()
        open("one.fifo", "w").close()
        eventually(lambda: client.hlen("unacked") == 1)
        open("two.fifo", "w").close()
        assert worker.wait(SECONDS) == 0
        assert client.hlen("unacked") == 0


@in_program
def test_time_limits():
    with working("-c", "1") as (tasks, _):
        assert outcome(tasks.soft.delay()) == "noticed"
        assert outcome(tasks.hard.delay()) == "TimeLimitExceeded"
        assert tasks.add.delay(1, 2).get(SECONDS) == 3


@in_program
def test_the_autoscaler_starts_processes_for_tasks_and_ends_them_when_there_are_none():
    os.environ["AUTOSCALE_KEEPALIVE"] = "0.2"  # seconds until it scales down
    with working("--autoscale", "2,0") as (tasks, _):
        for name in ("one", "two", "three"):
            os.mkfifo(f"{name}.fifo")
            tasks.finish.delay(os.path.abspath(name), os.path.abspath(f"{name}.fifo"))
        processes = {begun(os.path.abspath(name)) for name in ("one", "two")}
        open("one.fifo", "w").close()
        processes.add(begun(os.path.abspath("three")))
        assert len(processes) == 2
        for name in ("two", "three"):
            open(f"{name}.fifo", "w").close()
        eventually(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
        assert tasks.add.delay(1, 2).get(SECONDS) == 3


def soft_limit_reached_in(target, *args):
    """Reach the soft time limit in a function of a process, and return its result."""
    with anyfork.Executor(max_workers=1) as executor:
        result = executor.submit(run_task, target, args, {}, 50.0)
        assert executor.submit(signal.getsignal, signal.SIGALRM).result(SECONDS) is signal.SIG_DFL
        return result.result(SECONDS)


@in_program
def test_a_soft_time_limit_that_is_reached_when_the_task_has_ended_does_not_fail_it():
    assert soft_limit_reached_in(signal.raise_signal, signal.SIGALRM) is None  # in no frame of the task
    with pytest.raises(SoftTimeLimitExceeded):
        soft_limit_reached_in(lambda: signal.raise_signal(signal.SIGALRM))


@in_program
def test_processes_end_after_their_number_of_tasks_and_the_pool_grows_and_shrinks():
    with working("-c", "1", "--max-tasks-per-child", "1") as (tasks, worker):
        found = [tasks.processes.delay().get(SECONDS)[0] for _ in range(3)]
        assert len({*found}) == 3
        eventually(lambda: all(Path(f"ended-{pid}").exists() for pid in found))  # worker_process_shutdown
        (answer,) = tasks.app.control.pool_grow(1, reply=True, timeout=SECONDS, limit=1)
        assert "ok" in str(answer)
        paths = [os.path.abspath(name) for name in ("one", "two")]
        waiting = [tasks.wait.delay(path) for path in paths]
        assert len({begun(path) for path in paths}) == 2
        for result in waiting:
            tasks.app.control.revoke(result.id, terminate=True)
        assert [outcome(result) for result in waiting] == ["TaskRevokedError"] * 2
        (answer,) = tasks.app.control.pool_shrink(1, reply=True, timeout=SECONDS, limit=1)
        assert "ok" in str(answer)
        assert tasks.add.delay(1, 2).get(SECONDS) == 3


@in_program
def test_a_process_that_has_grown_beyond_its_limit_ends_after_its_task():
    with working("-c", "1", "--max-memory-per-child", "50000") as (tasks, _):
        first, second, third = [tasks.keep.delay(size).get(SECONDS) for size in (1000, 100_000_000, 1000)]
        assert first == second != third
