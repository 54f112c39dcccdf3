"""What leads to other machines, or behaves as if, for the tests of remote templates."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from owner_side import HERE

import anyfork

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(HERE).parent
sys.path.append(str(ROOT))  # where the benchmarks are, whatever directory the tests are started from

from bench import sshd  # noqa: E402

MODULES = f"PYTHONPATH={HERE}:{HERE}/remote"
PYTHON = ["env", MODULES, sys.executable]  # a Python here, for which this program is on another machine
needs_ssh = pytest.mark.skipif(bool(sshd.missing()), reason=f"not installed: {sshd.missing()}")


def other_python(minor: str) -> str:
    """Return an interpreter of this version. Skips the test where there is none."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in [*sorted(root.glob(f"{minor}.*/bin/python"), reverse=True), f"python{minor}"]:
        with contextlib.suppress(OSError):
            said = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
            if said.returncode == 0 and f"Python {minor}." in said.stdout + said.stderr:
                return str(candidate)
    pytest.skip(f"no Python {minor} here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    """Yield a real OpenSSH server on loopback."""
    if sshd.missing():
        pytest.skip(f"not installed: {sshd.missing()}")
    with sshd.Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def remote() -> Iterator[anyfork.RemoteTemplate]:
    """Yield a template that knows nothing of this program but the modules of the tests."""
    with anyfork.RemoteTemplate(PYTHON) as template:
        yield template
