"""Tests that run in a program of their own, because what they use leaves threads behind."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from conftest import eventually, owned

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
# Seconds. An engine starts several programs that import a lot, and machines of CI do other things beside.
SECONDS = 60  # for an answer, or a worker
ENGINE_DEADLINE = 110.0
TEST_DEADLINE = 120.0


def in_program(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test in a new program, whose current directory is its own and temporary."""

    @functools.wraps(test)
    def run() -> None:
        module = Path(test.__code__.co_filename).stem
        code = f"import {module}\nif __name__ == '__main__':\n    {module}.{test.__name__}.__wrapped__()"
        paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        with TemporaryDirectory() as directory:
            with subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=directory,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            ) as program:
                try:
                    said, _ = program.communicate(timeout=ENGINE_DEADLINE)
                except subprocess.TimeoutExpired:
                    os.killpg(program.pid, signal.SIGKILL)  # brokers and workers as well
                    said, _ = program.communicate()
        assert program.returncode == 0, said
        eventually(lambda: not owned(program.pid), lambda: f"the program left processes: {owned(program.pid)}")

    return run
