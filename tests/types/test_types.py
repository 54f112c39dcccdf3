"""mypy and pyright know the parameters and the results of functions, and reject what does not fit them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "typed.py"
ROOT = HERE.parent.parent


def run(*command):
    """Return what a checker says."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False).stdout


def found_by_mypy():
    """Return the lines in which mypy finds errors."""
    said = run(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(PROGRAM))
    return {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}


def found_by_pyright(tmp_path):
    """Return the lines in which pyright, with its own settings, finds errors."""
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        json.dumps({"typeCheckingMode": "standard", "include": [str(PROGRAM)], "pythonVersion": "3.11"})
    )
    command = ("-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(settings))
    said = json.loads(run(sys.executable, *command))
    found = [one for one in said["generalDiagnostics"] if one["severity"] == "error"]
    return {one["range"]["start"]["line"] + 1 for one in found}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_wrong_arguments_are_rejected_and_results_are_known(checker, tmp_path):
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: the tools of the group lint are checked in a step of their own")
    lines = enumerate(PROGRAM.read_text().splitlines(), 1)
    wrong = {number for number, line in lines if line.endswith("# wrong")}
    found = found_by_mypy() if checker == "mypy" else found_by_pyright(tmp_path)
    assert found == wrong
