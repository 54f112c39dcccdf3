"""Other owners: programs that use anyfork and may be killed, exhausted or run as somebody else, without harm to us."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from textwrap import dedent

SECONDS = 4.0  # for what must have ended by then; a tenth of a second is what is promised
ANSWER_DEADLINE = 20.0  # seconds; programs import this module too, without the folder above it
PAUSE = threading.Event()
MARK = "ANYFORK_FAULT_TEST"  # the environment variable by which all processes of a program are found
HERE = Path(__file__).parent
PRELUDE = """
import errno, gc, json, os, resource, select, signal, socket, sys, threading
import anyfork, faulty
from programs import open_descriptors, state, stop
from anyfork import Descriptor, Template

def say(value):
    print(json.dumps(value), flush=True)

def hear():
    return sys.stdin.readline().strip()
"""


class Program:
    """A program in a process of its own: ``read`` what it says, ``say`` something to it, ``kill`` it.

    ``everyone`` finds all processes that come from it, whoever their parents are now: they have its environment.
    """

    def __init__(self, source, *args, flags=(), command=(), env=None, **options):
        self._mark = uuid.uuid4().hex
        self._errors = tempfile.TemporaryFile()
        self._buffer = b""
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), MARK: self._mark}
        self.process = subprocess.Popen(
            [*command, sys.executable, *flags, "-c", PRELUDE + dedent(source), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env={**environment, **(env or {})},
            **options,
        )
        self.pid = self.process.pid

    def read(self, deadline=ANSWER_DEADLINE):
        """Return the next value that the program says."""
        end = time.monotonic() + deadline
        while b"\n" not in self._buffer:
            ready = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"the program said nothing more; on stderr:\n{self.errors()}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def say(self, line=""):
        """Give it a line on standard input."""
        self.process.stdin.write(line.encode() + b"\n")

    def errors(self):
        """Return what the program and all its processes have written to standard error."""
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode()

    def kill(self):
        """Kill it by SIGKILL and reap it."""
        self.process.kill()
        self.process.wait(ANSWER_DEADLINE)

    def wait(self):
        """Wait until it ends by itself; return its exit code."""
        return self.process.wait(ANSWER_DEADLINE)

    def everyone(self):
        """Return the living processes that come from the program, without itself: command lines by pid."""
        wanted, found = f"{MARK}={self._mark}".encode(), {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                try:
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
                        found[int(entry.name)] = command.decode(errors="replace")
                except OSError:  # it has ended meanwhile
                    continue
        return found

    def wait_for(self, survivors):
        """Wait until exactly these processes, by pid, are left of it."""
        wanted = set(survivors)
        end = time.monotonic() + SECONDS
        while (left := self.everyone()).keys() != wanted:
            assert time.monotonic() < end, f"wanted {wanted}, but these live: {left}"
            PAUSE.wait(0.002)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for pid in self.everyone():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for file in (self.process.stdin, self.process.stdout, self._errors):
            file.close()


def run_program(source, *args, **options):
    """Run a program to its end, which must be a good one; return what it said last."""
    with Program(source, *args, **options) as program:
        said = program.read()
        assert program.wait() == 0, program.errors()
        return said


def state(pid):
    """Return the state of a process as /proc tells it: S, R, T, Z ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(pid):
    """Stop a process by SIGSTOP, and wait until all of it stands still: the signal takes effect later than the call."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + SECONDS
    while state(pid) != "T":
        assert time.monotonic() < end, f"process {pid} does not stop: {state(pid)}"
        PAUSE.wait(0.001)


def open_descriptors(pid="self"):
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
