"""CPython's own tests of multiprocessing pass with our context as far as they do with forkserver.

What does not pass is run with forkserver too: what passes there, and is not excepted here, is an error. The tests of
type "threads" are left out. They are about multiprocessing.dummy, which has no processes.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cpython,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("test._test_multiprocessing") is None, reason="this Python comes without its tests"),
]
HERE = Path(__file__).parent
PATIENCE = 150.0  # seconds for one test

# Why they pass with forkserver and not with us. Those that wait for minutes for what does not happen are not even run.
UNTRIED = ["WithProcessesTestProcess.test_parent_process"]
EXCEPTIONS = {
    "TestNoForkBomb.test_noforkbomb": (
        "a program that only says set_start_method() has not imported anyfork, so it does not know the name; and the "
        "error that is asked for comes from running __main__ again, which is never done"
    ),
    "TestStartMethod.test_preload_resources": "about forkserver's own server; skips itself",
    "WithProcessesTestProcess.test_forkserver_sigint": "about forkserver's own server; skips itself",
    "WithProcessesTestProcess.test_forkserver_sigkill": "about forkserver's own server; skips itself",
    "WithProcessesTestProcess.test_parent_process": (
        "asks a process whose parent was killed what it sees of that: our processes end with their owner"
    ),
}
if sys.version_info >= (3, 12):  # before, it asks another question
    EXCEPTIONS["TestFlags.test_flags"] = "a program that only says get_context() has not imported anyfork either"
if sys.version_info >= (3, 14):
    EXCEPTIONS |= {
        "TestInternalDecorators.test_only_run_in_forkserver_testsuite": "about the suite itself; skips itself",
        "WithProcessesTestProcess.test_forkserver_auth_is_enabled": "about forkserver's own server; skips itself",
        "WithProcessesTestProcess.test_forkserver_without_auth_fails": "about forkserver's own server; skips itself",
    }
INSTALLED = "installed"  # under the name forkserver, by anyfork.context.install()
EXCEPTIONS_OF = {
    "anyfork": EXCEPTIONS,
    INSTALLED: {
        "TestStartMethod.test_set_get": "asks for the name of the context's class",
        **{name: reason for name, reason in EXCEPTIONS.items() if name in UNTRIED or "without_auth" in name},
    },
}


def _runner(method, *arguments):
    path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "START_METHOD": method, "PYTHONPATH": os.pathsep.join(path)}
    if method == INSTALLED:
        environment |= {"START_METHOD": "forkserver", "INSTALLED": "1"}
    return [sys.executable, "-m", "run_multiprocessing", *arguments], environment


class Run:
    """One run of some tests: ``passed`` and ``others``, by name, with what was said of them."""

    def __init__(self, method, names, without, directory):
        self.passed = set()
        self.others = {}
        self.running = ""  # the last test, if it has not come to an end
        command, environment = _runner(method, *names, *(f"-{name}" for name in without))
        with (
            open(directory / f"{method}.log", "ab") as log,
            subprocess.Popen(
                command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            ) as process,
        ):
            try:
                self._read(process.stdout)
            finally:
                process.kill()

    def _read(self, output):
        buffer = b""
        while True:
            ready, _, _ = select.select([output], [], [], PATIENCE)
            data = os.read(output.fileno(), 65536) if ready else b""
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._take(*json.loads(line))
        if self.running:
            self.others[self.running] = f"it did not end within {PATIENCE} seconds, or ended the interpreter"

    def _take(self, name, outcome, text):
        self.running = name if outcome == "started" else ""
        if outcome == "passed" and name not in self.others:
            self.passed.add(name)
        elif outcome in ("failed", "skipped"):
            self.passed.discard(name)
            self.others[name] = f"{outcome}: {text}"


def run(method, names, directory, without=()):
    """Run tests, and go on behind each that does not come to an end."""
    passed, others = set(), {}
    while True:
        done = Run(method, names, [*without, *passed, *others], directory)
        passed |= done.passed
        others |= done.others
        if not done.running:
            return passed, others


@pytest.mark.parametrize("part", ["processes", "others"])
@pytest.mark.parametrize("method", EXCEPTIONS_OF)
def test_what_passes_with_forkserver_passes_with_the_context(method, part, tmp_path):
    command, environment = _runner(method)
    listed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True, timeout=PATIENCE)
    names = [name for name in json.loads(listed.stdout) if not name.startswith("WithThreads")]
    names = [name for name in names if name.startswith("WithProcesses") == (part == "processes")]
    passed, others = run(method, names, tmp_path, UNTRIED)
    if others:  # alone, what has failed among the others; many of these tests measure time
        passed |= run(method, sorted(others), tmp_path)[0]
        print("passed when alone:", sorted(others.keys() & passed))
    suspects = sorted(others.keys() - passed - EXCEPTIONS_OF[method].keys())
    expected = run("forkserver", suspects, tmp_path)[0] if suspects else set()
    assert {name: others[name] for name in suspects if name in expected} == {}
    assert sorted(passed & EXCEPTIONS_OF[method].keys()) == []  # which are none any more
    assert len(passed) > 100
