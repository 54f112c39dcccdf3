"""Functions and classes of ``__main__`` behave in a process as in the program, in each face."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("program", ["kinds_of_main", "names_of_main"])
def test_definitions_of_main_behave_in_a_process_as_in_the_program(program):
    path = Path(__file__).with_name(f"{program}.py")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=50)
    assert (done.stderr, done.returncode) == ("", 0)
    (line,) = done.stdout.splitlines()
    assert line.startswith("compared")
