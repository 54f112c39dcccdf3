"""RQ's worker with work horses from a template. Each test is a program with a real Redis server and RQ's own worker loop."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from resource import struct_rusage

import pytest
from procfs import parent_of, runs

pytest.importorskip("rq", reason="rq is not installed, or has no wheel for this interpreter")
if shutil.which("redis-server") is None:
    pytest.skip("redis-server is not installed", allow_module_level=True)

import rq_jobs
from broker import Broker
from conftest import descendants, eventually
from in_program import ENGINE_DEADLINE, TEST_DEADLINE, in_program
from rq import Callback, Queue, Retry
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.job import JobStatus

from anyfork import ArgumentError, PreloadError
from anyfork.contrib.rq import Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_DEADLINE)]


@contextlib.contextmanager
def redis():
    """Start a Redis server for one test, and yield a connection to it."""
    with Broker() as broker, broker.connection() as connection:
        yield connection


def done(connection, worker, *jobs, **options):
    """Let a worker do jobs, and return them."""
    queue = Queue(connection=connection)
    enqueued = [queue.enqueue(job, **options) for job in jobs]
    worker = worker if isinstance(worker, Worker) else worker([queue])
    assert worker.work(burst=True)
    for job in enqueued:
        job.refresh()
    return enqueued


def begun(path):
    """Wait until a job has begun. Return its process and the child of that."""
    eventually(Path(path).exists)
    return map(int, Path(path).read_text().split())


@in_program
def test_jobs_run_in_processes_that_the_template_has_prepared():
    os.environ["FOR_JOBS"] = "yes"
    with redis() as connection:
        jobs = rq_jobs.processes, rq_jobs.processes, rq_jobs.environment
        first, second, environment = done(connection, rq_jobs.Preloading, *jobs)
        (horse, template, session, threads, data), other = first.return_value(), second.return_value()
        assert horse == session != template != os.getpid()
        assert (threads, data) == (1, [1, 2, 3])
        assert other[0] != horse
        assert other[1] == template
        assert environment.return_value()[1:] == (environment.id, "yes")


@in_program
def test_jobs_fail_as_with_rq_itself():
    seen = []
    with redis() as connection:
        queue = Queue(connection=connection)
        worker = rq_jobs.Preloading([queue], work_horse_killed_handler=lambda *what: seen.append(what))
        raised, killed, left, fine = done(
            connection, worker, rq_jobs.fail, rq_jobs.die, rq_jobs.leave, rq_jobs.environment
        )
        assert "ArithmeticError: a job's own error" in raised.latest_result().exc_string
        assert "waitpid returned 9 (signal 9)" in killed.latest_result().exc_string
        assert "waitpid returned 1792" in left.latest_result().exc_string
        assert [job.get_status() for job in (raised, killed, left, fine)] == [JobStatus.FAILED] * 3 + [
            JobStatus.FINISHED
        ]
        (_, pid, status, usage), _ = seen
        assert isinstance(usage, struct_rusage)
        assert usage.ru_maxrss > 1000
        assert status == signal.SIGKILL
        (late,) = done(connection, rq_jobs.Preloading, rq_jobs.sleep_long, job_timeout=1)
        assert "JobTimeoutException" in late.latest_result().exc_string


@in_program
def test_handlers_of_errors_and_callbacks_run_in_the_work_horse():
    with redis() as connection:
        queue = Queue(connection=connection)
        worker = Worker([queue], exception_handlers=[rq_jobs.handle, lambda job, *error: True])
        failed, fine = done(connection, worker, rq_jobs.fail, rq_jobs.environment, on_success=Callback(rq_jobs.note))
        assert failed.get_meta() == {"handled": "a job's own error"}
        assert fine.id in connection.get(f"noted {fine.id}").decode()


@in_program
def test_commands_kill_the_work_horse_and_its_children():
    with redis() as connection:
        for number, (send, status) in enumerate(
            [
                (lambda worker, job: send_kill_horse_command(connection, worker.name), JobStatus.FAILED),
                (lambda worker, job: send_stop_job_command(connection, job.id), JobStatus.STOPPED),
            ]
        ):
            path = os.path.abspath(f"begun-{number}")
            queue = Queue(connection=connection)
            worker = rq_jobs.Preloading([queue])
            job = queue.enqueue(rq_jobs.say_and_wait, path)
            sender = threading.Thread(target=lambda p=path, s=send, w=worker, j=job: (begun(p), s(w, j)))
            sender.start()
            worker.work(burst=True)
            sender.join()
            assert job.get_status() == status
            for pid in begun(path):
                eventually(lambda pid=pid: not runs(pid))


@in_program
def test_a_template_that_was_killed_is_replaced():
    with redis() as connection:
        worker = rq_jobs.Killing([Queue(connection=connection)])
        first, second = done(connection, worker, rq_jobs.processes, rq_jobs.processes)
        assert first.return_value()[1] != second.return_value()[1]


@in_program
def test_a_killed_template_that_cannot_be_made_again_fails_the_job_in_hand_or_leaves_it_for_its_retry():
    with redis() as connection:
        queue = Queue(connection=connection)
        first, second = queue.enqueue(rq_jobs.processes), queue.enqueue(rq_jobs.processes, retry=Retry(max=1))
        for job, status, left in [(first, JobStatus.FAILED, [second.id]), (second, JobStatus.QUEUED, [second.id])]:
            rq_jobs.Unrepeatable([queue]).work(burst=True)
            assert (job.get_status(), queue.job_ids) == (status, left)
            assert connection.llen(queue.intermediate_queue_key) == 0
        assert "no_such_module" in first.latest_result().exc_string
        (done_later,) = done(connection, rq_jobs.Preloading, rq_jobs.processes)
        assert [job.get_status() for job in (second, done_later)] == [JobStatus.FINISHED] * 2


@in_program
def test_a_template_that_cannot_be_made_leaves_the_jobs_in_the_queue():
    with redis() as connection:
        queue = Queue(connection=connection)
        queue.enqueue(rq_jobs.processes)
        with pytest.raises(PreloadError, match="no_such_module"):
            rq_jobs.Broken([queue]).work(burst=True)
        assert queue.count == 1
        assert rq_jobs.Broken.all(connection=connection) == []


CHANGING = """
import os

def which():
    return "old", os.getppid()

def replace(found, by):
    with open(__file__) as file:
        source = file.read()
    with open(__file__, "w") as file:
        file.write(source.replace(found, by))
"""


@in_program
def test_a_stale_template_of_a_warm_is_made_anew_between_jobs_and_no_old_code_runs():
    with redis() as connection:
        queue = Queue(connection=connection)
        for kind in (rq_jobs.Renewing, rq_jobs.RenewingOwn):
            Path("changing_jobs.py").write_text(CHANGING)
            which = "changing_jobs.which"
            first, second = (queue.enqueue(which) for _ in range(2))
            queue.enqueue("changing_jobs.replace", '"old"', '"new"')
            third, fourth = (queue.enqueue(which) for _ in range(2))
            queue.enqueue("changing_jobs.replace", "def which()", "def which(")
            fifth, sixth = (queue.enqueue(which) for _ in range(2))
            kind([queue]).work(burst=True)
            (text, old), (new_text, new) = first.return_value(), third.return_value()
            assert (text, new_text) == ("old", "new")
            assert second.return_value() == ("old", old)
            assert fourth.return_value() == ("new", new)
            assert old != new
            assert "SyntaxError" in fifth.latest_result().exc_string
            assert (fifth.get_status(), sixth.get_status()) == (JobStatus.FAILED, JobStatus.QUEUED)
            assert queue.job_ids == [sixth.id]
            queue.empty()
        with pytest.raises(ArgumentError, match="PreloadingTwice.preload does not reach the Warm"):
            rq_jobs.PreloadingTwice([queue]).work(burst=True)


@in_program
def test_a_killed_template_of_a_warm_is_replaced():
    with redis() as connection:
        Path("changing_jobs.py").write_text(CHANGING)
        worker = rq_jobs.KillingRenewed([Queue(connection=connection)])
        first, second = done(connection, worker, "changing_jobs.which", "changing_jobs.which")
        assert first.return_value()[1] != second.return_value()[1]


def command_line(kind="worker", *options):
    """Start a worker, or a pool of them, by RQ's command line."""
    command = [sys.executable, "-m", "rq.cli", kind, "--url", f"unix://{os.path.abspath('redis.sock')}", *options]
    return subprocess.Popen([*command, "--worker-class", "rq_jobs.Preloading"])


@in_program
def test_each_worker_of_a_pool_of_rq_has_a_template():
    with redis() as connection:
        queue, paths = Queue(connection=connection), [os.path.abspath(f"begun-{n}") for n in range(2)]
        os.mkfifo("fifo")
        jobs = [queue.enqueue(rq_jobs.finish, path, os.path.abspath("fifo")) for path in paths]
        with command_line("worker-pool", "--burst", "--num-workers", "2") as pool:
            eventually(lambda: all(Path(path).exists() for path in paths), deadline=ENGINE_DEADLINE)
            horses = [int(Path(path).read_text()) for path in paths]
            templates = {parent_of(horse) for horse in horses}
            assert len(templates) == 2
            assert templates < {*descendants(pool.pid)}
            with open("fifo", "w"):
                assert pool.wait(ENGINE_DEADLINE) == 0
        assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 2


@in_program
def test_a_job_that_runs_while_redis_is_killed_and_comes_back_is_finished_and_so_are_those_that_wait():
    with Broker() as broker, broker.connection() as connection, command_line() as worker:
        os.mkfifo("fifo")
        queue, path = Queue(connection=connection), os.path.abspath("begun")
        jobs = [queue.enqueue(rq_jobs.finish, path, os.path.abspath("fifo")), queue.enqueue(rq_jobs.processes)]
        eventually(Path(path).exists)
        broker.kill()
        broker.start()
        open("fifo", "w").close()
        eventually(lambda: [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 2)
        assert jobs[1].return_value()[0] not in (worker.pid, int(Path(path).read_text()))
        worker.terminate()
        assert worker.wait(ENGINE_DEADLINE) == 0


@in_program
def test_the_command_line_runs_the_worker_and_its_work_horse_ends_with_it():
    with redis() as connection:
        queue, path = Queue(connection=connection), os.path.abspath("begun")
        fine = queue.enqueue(rq_jobs.processes)
        queue.enqueue(rq_jobs.say_and_wait, path)
        with command_line() as worker:
            horse, child = begun(path)
            assert horse in descendants(worker.pid)
            assert fine.get_status() == JobStatus.FINISHED
            worker.kill()
        eventually(lambda: not runs(horse))
        os.kill(child, signal.SIGKILL)
