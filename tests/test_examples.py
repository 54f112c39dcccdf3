"""The programs in examples/: each runs by itself, says what it should, and leaves nothing."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from conftest import eventually, owned
from deadlines import PROGRAM_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"

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


SERVICES = ("asgi_workers", "fastapi_reports", "django_reports")  # tests/engines/test_web.py serves the last two
PROGRAMS = sorted(program for program in EXAMPLES.glob("*.py") if program.stem not in SERVICES)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_an_example_does_what_it_shows_and_leaves_nothing(program: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        output, errors = process.communicate(timeout=PROGRAM_DEADLINE)
    assert (process.returncode, errors) == (0, "")
    assert re.fullmatch(SAYS[program.stem], output), output
    eventually(lambda: not owned(process.pid), lambda: f"the example left processes: {owned(process.pid)}")


@pytest.fixture
def server() -> Iterator[int]:
    """Yield the port of the server of asgi_workers, started as its head says."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-W", "error", EXAMPLES / "asgi_workers.py", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        eventually(lambda: listens(port) or process.poll() is not None, "the server does not listen")
        yield port
        process.terminate()
        output, _ = process.communicate(timeout=PROGRAM_DEADLINE)
    assert (output, process.returncode) == ("", -signal.SIGTERM)
    eventually(lambda: not owned(process.pid), lambda: f"the server left processes: {owned(process.pid)}")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_asgi_application_answers_many_clients_with_workers_from_a_template(server: int) -> None:
    expected = {10: 4, 1000: 168, 100_000: 9592}

    def ask(limit: int) -> int:
        return int(httpx.get(f"http://127.0.0.1:{server}/primes/{limit}", timeout=PROGRAM_DEADLINE).json()["primes"])

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, list(expected) * 10)) == list(expected.values()) * 10
