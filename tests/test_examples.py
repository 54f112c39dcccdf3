"""The programs in examples/: each runs by itself, says what it should, and leaves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import eventually, owned

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE = 50  # seconds for one program

# What each says, as a regular expression for its whole output. A program without a line here fails its test.
SAYS = {
    "detached_template": r"the owner is process (\d+), the manager is process (?!\1\n)\d+\n"
    + "".join(rf"worker {number} knows 'what the first owner sent'\n" for number in range(3)),
    "nested_templates": "table worker 1 found csv, json\ntable worker 2 found csv, json\n"
    "code worker 1 found json, symtable\ncode worker 2 found json, symtable\nthe log has 4 lines\n",
    "redirected_program": r"on standard error: ls: .*/no/such/directory.*\nin the file: /\n"
    r"the program ended with exit code [12]\n",
    "single_worker": "Hello, Ada!\nHello, Grace!\nthe worker ended with exit code 0\n",
    "ten_servers": r"(process \d+ answered +\d+ requests\n){10}500 of 500 requests were answered\n",
}


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda program: program.stem)
def test_an_example_does_what_it_shows_and_leaves_nothing(program: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, errors) == (0, "")
    assert re.fullmatch(SAYS[program.stem], output), output
    eventually(lambda: not owned(process.pid), f"the example left processes: {owned(process.pid)}")
