"""Programs that only take the name of a start method get our processes, and are not changed: as-forkserver runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import descendants, eventually
from in_program import HERE, TEST_DEADLINE, in_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_DEADLINE)]

SECONDS = 60
AS_FORKSERVER = (sys.executable, "-m", "anyfork", "as-forkserver")


@pytest.mark.skipif(
    find_spec("dramatiq") is None, reason="dramatiq is not installed, or has no version for this Python"
)
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
@in_program
def test_dramatiq_runs_actors_in_processes_of_a_template():
    from broker import Broker

    with Broker() as broker:
        os.environ["TEST_BROKER"] = f"unix://{broker.path}"
        command = [*AS_FORKSERVER, "-m", "dramatiq", "dramatiq_tasks", "--processes", "1", "--threads", "1"]
        with subprocess.Popen(command) as program:
            try:
                import dramatiq_tasks

                dramatiq_tasks.tell.send(os.path.abspath("told"))
                eventually(Path("told").exists, deadline=SECONDS)
                context, process, parent = json.loads(Path("told").read_text())
                assert (context, parent != program.pid) == ("AnyforkContext", True)
                assert process in descendants(program.pid)
                program.terminate()
                assert program.wait(SECONDS) == 0
            finally:
                program.kill()


@pytest.mark.skipif(find_spec("dagster") is None, reason="dagster is not installed, or has no version for this Python")
def test_dagster_runs_steps_in_processes_of_a_template(tmp_path):
    command = [*AS_FORKSERVER, "-m", "dagster", "job", "execute", "-f", str(HERE / "dagster_job.py")]
    env = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as program:
        _, said = program.communicate(timeout=SECONDS)
    assert program.returncode == 0, said
    first, second = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    assert first[0] == second[0] == "AnyforkContext"
    assert first[1] != second[1]
    assert first[2] == second[2] != str(program.pid)
