"""What the tests here need as owners of processes: to see the end of any process, and to be several owners."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from select import select
from typing import TYPE_CHECKING

from conftest import eventually
from deadlines import DEADLINE
from original_functions import receive_all
from procfs import state_of

if TYPE_CHECKING:
    from typing import IO, Self

    import anyfork


class Watch:
    """Sees the end of a process, whoever its parent is. Make it while the process lives."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    @property
    def ended(self) -> bool:
        """True when the process has ended."""
        return bool(select([self._pidfd], [], [], 0)[0])

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end."""
        assert select([self._pidfd], [], [], DEADLINE)[0], f"process {self.pid} has not ended"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pidfd)


def read_to_end(file: IO[bytes]) -> bytes:
    """Return what comes before the end, of which nothing has been read ahead; without an end, the test fails."""
    told = b""
    while True:
        assert select([file], [], [], DEADLINE)[0], f"the stream has no end; so far it said {told!r}"
        piece = os.read(file.fileno(), 1 << 16)
        if not piece:
            return told
        told += piece


class Pipe:
    """A pipe as two files; ``take`` reads what is there by the time that every writer has closed it."""

    def __init__(self) -> None:
        read, write = os.pipe()
        self.read = open(read, "rb", buffering=0)
        self.write = open(write, "wb", buffering=0)

    def readable(self, timeout: float = 0) -> bool:
        """Return whether something, or the end, can be read within the timeout in seconds."""
        return bool(select([self.read], [], [], timeout)[0])

    def take(self) -> bytes:
        """Give up our end for writing, and read to the end."""
        self.write.close()
        return read_to_end(self.read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.read.close()
        self.write.close()


def answer_of(process: anyfork.Process) -> object:
    """Return what the function of a process had to say, after its end."""
    with process:
        return json.loads(receive_all(process.channel))


def title(pid: int) -> str:
    """Return the command line of a process as ps shows it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def stop(pid: int) -> None:
    """Stop a process, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state_of(pid) == "T", f"process {pid} does not stop")


def other_owner(program: str, *arguments: str, stdin: IO[bytes] | int | None = None) -> subprocess.Popen[bytes]:
    """Start another program that uses anyfork, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.Popen(command, bufsize=0, stdin=stdin, stdout=subprocess.PIPE, env=environment)
