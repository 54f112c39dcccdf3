"""CPython's own tests of subprocess pass with anyfork.subprocess, and start programs from templates.

What does not pass is run with the standard module too: what passes there, and is not excepted here, is an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cpython,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("test.test_subprocess") is None, reason="this Python comes without its tests"),
]
HERE = Path(__file__).parent
PATIENCE = 600  # seconds for all tests

PRIVATE = "replaces private parts of the standard Popen, which warm starts do not use"
EXCEPTIONS = {
    "FastWaitTestCase.test_pidfd_open_notification_without_immediate_reap": PRIVATE,
    "FastWaitTestCase.test_pidfd_open_race": PRIVATE,
    "FastWaitTestCase.test_wait_pidfd_open_error": PRIVATE,
    "MiscTests.test_call_keyboardinterrupt_no_kill": PRIVATE,
    "MiscTests.test_context_manager_keyboardinterrupt_no_kill": PRIVATE,
    "MiscTests.test_run_keyboardinterrupt_no_kill": PRIVATE,
    "POSIXProcessTestCase.test_preexec_errpipe_does_not_double_close_pipes": PRIVATE,
    "POSIXProcessTestCase.test__use_vfork": PRIVATE,
    "ProcessTestCase.test__use_vfork": PRIVATE,
    "ProcessTestCaseNoPoll.test__use_vfork": PRIVATE,
}


def run(module, directory, *names):
    """Run tests with a module. The interpreter has no options that a template of the default kind would lack."""
    kept = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or not name.startswith("PYTHON")}
    env = {**kept, "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), kept.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "run_subprocess", module, *names]
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, check=True, timeout=PATIENCE)
    return json.loads(done.stdout.splitlines()[-1])


def test_what_passes_with_the_standard_module_passes_with_ours(tmp_path):
    ours = run("anyfork.subprocess", tmp_path)
    suspects = {name: text for name, text in ours["bad"].items() if name not in EXCEPTIONS}
    expected = set(run("subprocess", tmp_path, *suspects)["passed"]) if suspects else set()
    assert {name: text for name, text in suspects.items() if name in expected} == {}
    assert sorted(EXCEPTIONS.keys() & set(ours["passed"])) == []  # which are none any more
    assert len(ours["passed"]) > 200
    assert ours["warm"] > 150
