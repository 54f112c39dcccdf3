"""RQ's own tests of its worker, with ours in its place. They come from the source of the version that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

rq = pytest.importorskip("rq", reason="rq is not installed, or has no wheel for this interpreter")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HERE = Path(__file__).parent
# They patch the worker's process and expect the work horse to have the patch: RQ's SpawnWorker cannot pass them either.
PATCHING = ("test_horse_fails", "test_job_dependency_race_condition")
SLEEPING = (
    "heartbeat_busy",
    "max_idle_time",
    "dequeue_random",
    "dequeue_round",
    "suspend",
    "_command",
    "TestWorkerSubprocess",
)
# They use port 6379, and clear databases there: that is a network namespace of their own.
IN_NAMESPACE = ("unshare", "--net")
RUN = "ip link set lo up && redis-server --save '' --dir . --daemonize yes --pidfile $PWD/pid > log && {tests}; said=$?; kill $(cat pid); exit $said"


@pytest.fixture
def source(tmp_path):
    """Return the source of RQ without the package, so that the tests import what is installed."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-build-isolation", "--no-binary", "rq"]
    if subprocess.run([*command, f"rq=={rq.VERSION}", "-d", tmp_path], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("the source of rq cannot be downloaded")
    with tarfile.open(*tmp_path.glob("rq-*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    (directory,) = (path for path in tmp_path.glob("rq-*") if path.is_dir())
    shutil.rmtree(directory / "rq")
    return directory


def test_the_tests_of_rqs_worker_pass(source):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    if subprocess.run([*IN_NAMESPACE, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("network namespaces are not allowed here")
    left_out = " and ".join(f"not {name}" for name in (*PATCHING, *SLEEPING))
    tests = f"{sys.executable} -m pytest -q -p no:randomly -p no:cacheprovider -p no:timeout -p rq_upstream -k '{left_out}' tests/test_worker.py"
    done = subprocess.run(
        [*IN_NAMESPACE, "sh", "-c", RUN.format(tests=tests)],
        cwd=source,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
