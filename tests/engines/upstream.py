"""The tests of an engine itself, from the source of the version that is installed.

This is a plug-in of the pytest that runs them, too: it leaves tests out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# These tests use Redis at port 6379, and clear databases there: that is a network namespace of their own.
IN_NAMESPACE = ("unshare", "--net")
RUN = "ip link set lo up && redis-server --save '' --dir . --daemonize yes --pidfile $PWD/pid > log && {tests}; said=$?; kill $(cat pid); exit $said"
LEFT_OUT = "TESTS_LEFT_OUT"  # parts of the names of tests
OPTIONS = "-q -p no:randomly -p no:cacheprovider -p no:timeout"


def source_of(name, version, directory):
    """Return the source of a package without the package itself, so that its tests import what is installed."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-build-isolation", "--no-binary", name]
    if subprocess.run([*command, f"{name}=={version}", "-d", directory], stderr=subprocess.DEVNULL).returncode:
        pytest.skip(f"the source of {name} cannot be downloaded")
    with tarfile.open(*directory.glob(f"{name}-*.tar.gz")) as archive:
        archive.extractall(directory, filter="data")
    (source,) = (path for path in directory.glob(f"{name}-*") if path.is_dir())
    shutil.rmtree(source / name)
    return source


def check_tests(source, files, *plugins, left_out, **env):
    """Run tests with some plug-ins of pytest and a Redis server, without those that are left out."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    if subprocess.run([*IN_NAMESPACE, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("network namespaces are not allowed here")
    loaded = " ".join(f"-p {plugin}" for plugin in ("upstream", *plugins))
    tests = f"{sys.executable} -m pytest {OPTIONS} {loaded} {' '.join(files)}"
    done = subprocess.run(
        [*IN_NAMESPACE, "sh", "-c", RUN.format(tests=tests)],
        cwd=source,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            LEFT_OUT: " ".join(left_out),
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def pytest_collection_modifyitems(config, items):
    """Leave tests out. A name that no test has is an error: this version of the engine has no such test any more."""
    names = os.environ[LEFT_OUT].split()
    if stale := [name for name in names if not any(name in item.nodeid for item in items)]:
        raise pytest.UsageError(f"there are no tests to leave out that are called {', '.join(stale)}")
    out = [item for item in items if any(name in item.nodeid for name in names)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]
