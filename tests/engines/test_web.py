"""Services of web frameworks, with real servers and clients: the examples, and what their servers do with processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from http.client import HTTPResponse
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from conftest import eventually, owned, wait_for_end
from deadlines import PROGRAM_DEADLINE

ENGINES = ("fastapi", "django", "gunicorn")
MISSING = [name for name in ENGINES if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed, or without wheels for this interpreter: {MISSING}"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
DEPLOYMENT = EXAMPLES.with_name("docs") / "deployment.md"
UVICORN = ["uvicorn", "--log-level", "warning", "--fd"]
GUNICORN = ["gunicorn", "--log-level", "warning", "--workers", "2", "--threads", "2", "--bind"]
SERVERS = {
    "FastAPI, uvicorn": [*UVICORN, "{fd}", "fastapi_reports:app"],
    "Django, uvicorn": [*UVICORN, "{fd}", "django_reports:asgi"],
    "FastAPI, uvicorn with workers": [*UVICORN, "{fd}", "--workers", "2", "fastapi_reports:app"],
    "Django, gunicorn": [*GUNICORN, "fd://{fd}", "django_reports:wsgi"],
    "Django, gunicorn with preload": [*GUNICORN, "fd://{fd}", "--preload", "django_reports:wsgi"],
}


@contextlib.contextmanager
def serving(command):
    """Start a server on a socket that it is given. Yield it and a client; prove that it ends and leaves nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [word.format(fd=listener.fileno()) for word in command]
        path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            subprocess.Popen([sys.executable, "-m", *words], pass_fds=[listener.fileno()], env=env) as server,
            httpx.Client(base_url=base, timeout=PROGRAM_DEADLINE) as client,
        ):
            try:
                yield server, client
            finally:
                server.terminate()
                server.wait(PROGRAM_DEADLINE)
    eventually(lambda: not owned(server.pid), lambda: f"the server left processes: {owned(server.pid)}")


@pytest.mark.parametrize("name", SERVERS)
def test_each_service_makes_reports_under_its_servers(name):
    path = "blocking/reports" if "gunicorn" in name else "reports"
    with serving(SERVERS[name]) as (_, client):
        for pages in (1, 3, 9):
            answer = client.get(f"/{path}/{pages}")
            assert (answer.status_code, answer.json()["pages"]) == (200, pages)


def test_progress_comes_as_server_sent_events():
    with serving(SERVERS["FastAPI, uvicorn"]) as (_, client):
        with client.stream("GET", "/reports/3/progress") as answer:
            events = [line for line in answer.iter_lines() if line]
        assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[:6] == [line for page in (1, 2, 3) for line in ("event: page", f"data: {page}")]
    assert events[6] == "event: report"
    assert json.loads(events[7].removeprefix("data: ")) == {"pages": 3, "mean": 14 / 3}


# The same services with reports that wait until somebody opens a FIFO, or die.
HELD = """
import os
from pathlib import Path
import {module} as service
from {module} import *

def make_report(pages):
    if pages == 666:
        os.abort()
    path = os.environ["HELD"]
    Path(f"{{path}}.new").write_text(str(os.getpid()))
    Path(f"{{path}}.new").rename(f"{{path}}.begun")
    with open(path):
        return {{"pages": pages}}

service.make_report = make_report
"""


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Yield a FIFO that reports wait for; there are modules beside it whose services make such reports."""
    os.mkfifo(tmp_path / "held")
    for framework in ("fastapi", "django"):
        (tmp_path / f"held_{framework}.py").write_text(HELD.format(module=f"{framework}_reports"))
    monkeypatch.setenv("HELD", str(tmp_path / "held"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path / "held"


def begun(fifo):
    """Wait until a report has begun. Return its worker."""
    path = fifo.with_name("held.begun")
    eventually(path.exists)
    return int(path.read_text())


def ask(client, path):
    """Send a request, and return its connection."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port), PROGRAM_DEADLINE)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
    return connection


def answer_of(connection):
    """Return the JSON of the answer at a connection."""
    answer = HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200
    return json.load(answer)


@pytest.mark.parametrize(
    ("application", "path"),
    [
        ("held_fastapi:app", "/reports/1"),
        ("held_fastapi:app", "/reports/1/progress"),
        ("held_django:asgi", "/reports/1"),
    ],
)
def test_the_job_of_a_client_that_leaves_ends(held, application, path):
    with serving([*UVICORN, "{fd}", application]) as (_, client), ask(client, path) as connection:
        worker = begun(held)
        connection.close()
        wait_for_end(worker)


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ([*UVICORN, "{fd}", "held_fastapi:app"], "/reports"),
        ([*UVICORN, "{fd}", "held_django:asgi"], "/reports"),
        ([*GUNICORN, "fd://{fd}", "held_django:wsgi"], "/blocking/reports"),
    ],
    ids=["FastAPI", "Django", "Django, gunicorn"],
)
def test_a_worker_that_dies_is_answered_with_500_and_the_other_requests_go_on(held, server, path):
    with serving(server) as (_, client), ask(client, f"{path}/1") as connection:
        begun(held)
        died = client.get(f"{path}/666")
        assert died.status_code == 500
        if "fastapi" in server[-1]:
            assert died.json() == {"error": "WorkerDiedError"}
            with client.stream("GET", f"{path}/666/progress") as answer:
                assert [line for line in answer.iter_lines() if line] == ["event: failed", "data: WorkerDiedError"]
        held.open("w").close()
        assert answer_of(connection) == {"pages": 1}


def test_the_workers_of_a_server_that_is_killed_end(held):
    with serving([*UVICORN, "{fd}", "held_fastapi:app"]) as (server, client), ask(client, "/reports/1"):
        worker = begun(held)
        server.kill()
        wait_for_end(worker)


def test_the_unit_of_systemd_is_one_and_its_command_line_finishes_its_jobs_at_sigterm(held):
    (unit,) = re.findall(r"^```ini\n(.*?)^```$", DEPLOYMENT.read_text(), re.MULTILINE | re.DOTALL)
    unit = unit.replace("/srv/app/venv/bin", str(Path(sys.executable).parent)).replace("--port 8000", "--port 0")
    path = held.with_name("app.service")
    path.write_text(unit)
    if shutil.which("systemd-analyze"):
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", path], stderr=subprocess.PIPE, text=True)
        assert (verified.returncode, verified.stderr) == (0, "")
    held.with_name("app.py").write_text("from held_fastapi import app")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ["PYTHONPATH"]])}
    with subprocess.Popen(shlex.split(command), cwd=held.parent, stderr=subprocess.PIPE, text=True, env=env) as server:
        said = next(line for line in server.stderr if "running on" in line)
        with httpx.Client(base_url=re.search(r"http:\S+", said)[0]) as client, ask(client, "/reports/1") as connection:
            worker = begun(held)
            server.terminate()  # the server alone, as KillMode=mixed
            next(line for line in server.stderr if "Shutting down" in line)
            held.open("w").close()
            assert answer_of(connection) == {"pages": 1}
        assert server.wait(PROGRAM_DEADLINE) in (0, -signal.SIGTERM)
    wait_for_end(worker)
