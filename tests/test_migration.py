"""What the pages for people who come from other libraries say of these, on this interpreter."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import execnet
import pytest
from conftest import eventually
from deadlines import DEADLINE
from owner_side import output_of

import anyfork

if TYPE_CHECKING:
    from collections.abc import Iterator

LOKY = """
import os, sys, warnings
warnings.simplefilter("ignore")
from concurrent.futures.process import BrokenProcessPool
from joblib.externals.loky import get_reusable_executor

executor = get_reusable_executor(max_workers=1)
print(executor.submit(eval, "'fractions' in __import__('sys').modules").result())
jobs = [executor.submit(os._exit, 7), executor.submit(abs, -1)]
print(*(type(job.exception()).__name__ for job in jobs))
try:
    executor.submit(abs, -1)
except BrokenProcessPool as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
def test_workers_of_loky_are_new_interpreters_and_one_that_dies_breaks_the_executor():
    said = output_of("-c", "import fractions" + LOKY).splitlines()
    assert said == ["False", "TerminatedWorkerError TerminatedWorkerError", "TerminatedWorkerError"]


@pytest.mark.untraced
def test_a_worker_of_ours_that_dies_fails_its_own_job_and_others_have_what_the_template_has_loaded():
    with anyfork.Template().preload("fractions") as template, anyfork.Executor(template, max_workers=1) as executor:
        jobs = [executor.submit(os._exit, 7), executor.submit(abs, -1)]
        assert isinstance(jobs[0].exception(), BrokenProcessPool)
        assert jobs[1].result() == 1
        assert executor.submit(eval, "'fractions' in __import__('sys').modules").result()


@pytest.fixture
def gateway() -> Iterator[execnet.Gateway]:
    """Yield a gateway of execnet to a process of this interpreter."""
    group = execnet.Group()
    yield group.makegateway(f"popen//python={sys.executable}")
    group.terminate(timeout=DEADLINE)


def uses_a_global(channel):
    channel.send(os.getpid())


def with_a_closure(value):
    def send(channel):
        channel.send(value)

    return send


@pytest.mark.slow
def test_execnet_takes_functions_without_globals_and_basic_types_and_tells_failures_as_text(gateway):
    with pytest.raises(ValueError, match="global"):
        gateway.remote_exec(uses_a_global)
    with pytest.raises(ValueError, match="closure"):
        gateway.remote_exec(with_a_closure(3))
    failing = gateway.remote_exec("1 / 0")
    with pytest.raises(failing.RemoteError, match="ZeroDivisionError"):
        failing.receive()
    loaded = gateway.remote_exec("import sys; channel.send('pytest' in sys.modules)")
    assert loaded.receive() is False
    dying = gateway.remote_exec("channel.receive(); import os; os._exit(7)")
    with pytest.raises(execnet.DumpError):
        dying.send(Boxed(1))
    dying.send(1)
    with pytest.raises(EOFError):
        dying.receive()


class Boxed:
    """A class of this module: basic types do not carry it."""

    def __init__(self, value):
        self.value = value


@pytest.mark.untraced
def test_a_worker_takes_globals_closures_and_objects_and_tells_failures_as_they_are():
    local = 3
    with anyfork.Template().preload("fractions") as template, anyfork.Worker(template.fork()) as worker:
        assert worker.call(lambda box: box.value + local, Boxed(4)) == 7
        assert worker.call(lambda: os.getpid()) == worker.pid
        assert worker.call(eval, "'fractions' in __import__('sys').modules")
        with pytest.raises(ZeroDivisionError):
            worker.call(lambda: 1 / 0)
        with pytest.raises(anyfork.WorkerDiedError) as caught:
            worker.call(os._exit, 7)
        assert caught.value.status.code == 7


def test_an_object_with_a_lock_cannot_travel_and_an_initializer_makes_it_where_it_is_needed():
    class Counter:
        def __init__(self):
            self.lock = threading.Lock()

        def add(self, number):
            with self.lock:
                return number + 1

    def make():
        sys.modules["__main__"].counter = Counter()

    with anyfork.Executor(max_workers=1, initializer=make) as executor:
        with pytest.raises(TypeError, match="lock"):
            executor.submit(Counter().add, 1).result()
        assert executor.submit(lambda: sys.modules["__main__"].counter.add(1)).result() == 2


THREADED = """
import threading
poller = threading.Thread(target=threading.Event().wait, name="poller", daemon=True)
poller.start()

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(poller.is_alive()).encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    """A connection to a server at a path."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


@pytest.mark.slow
def test_a_thread_of_a_preloaded_application_is_missing_in_workers_of_gunicorn_and_refused_by_a_template(tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "threaded.py").write_text(THREADED)
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--bind", f"unix:{path}", "threaded:app"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        eventually(path.exists)
        connection = UnixConnection(str(path))
        connection.request("GET", "/", headers={"Host": "here"})
        assert connection.getresponse().read() == b"False"
        connection.close()
        server.terminate()
    template = anyfork.Template().execute(THREADED)
    with pytest.raises(anyfork.UnsafeTemplateError, match="poller"):
        template.fork().ready()
