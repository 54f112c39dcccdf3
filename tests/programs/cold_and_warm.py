"""Runs of one command line, cold (a new interpreter) and warm (from a template); what they leave must be equal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING

from deadlines import PROGRAM_DEADLINE

from anyfork import Process, Template
from anyfork._programs.command_line import CommandLine
from anyfork._programs.start import read_report, reason, take_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from _anyfork_child.wire.descriptors import Owned

MUCH = """
    asyncio concurrent.futures csv json.tool logging.handlers multiprocessing.pool
    subprocess tempfile timeit unittest
"""
# The environment of both: interpreters as they start for most people, whatever runs the tests.
PLAIN = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or not name.startswith("PYTHON")}
# What differs between two cold runs, too.
VARYING = [
    (rb"0x[0-9a-f]{6,}", b"<address>"),
    (rb"\b[0-9a-f]{8}-[0-9a-f]{24}\b", b"<key>"),
    (rb"\b\d+(\.\d+)? ?(nsec|usec|msec|sec|s|ms|seconds?)\b", b"<time>"),
    (rb"\d+ loops?", b"<loops>"),
    (rb"\d\d:\d\d:\d\d(\.\d+)?", b"<clock>"),
    (rb"/tmp/(tmp|sphinx-err-)\w+", b"<temporary>"),
    (rb"django-insecure-\S+", b"<secret>"),
    (rb"\bpid[= ]\d+", b"<pid>"),
]

BINARY = (".pyc", ".zip", ".gz", ".tar", ".prof", ".pyz", ".pickle")  # with times inside


def bare(env: Mapping[str, str] = PLAIN) -> Template:
    """Return a template that has loaded nothing."""
    return Template.new_exec(flags=(), env=env)


def preloaded(modules: str = MUCH, env: Mapping[str, str] = PLAIN) -> Template:
    """Return a template that has loaded much of what programs import."""
    return bare(env).preload(*modules.split())


TEMPLATES: dict[str, Callable[[], Template]] = {"bare": bare, "preloaded": preloaded}


@dataclass
class Outcome:
    """What a run has left: its exit status, as subprocess gives it, its output, and the files in its directory."""

    returncode: int | None
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes]


def plain(data: bytes) -> bytes:
    for pattern, instead in VARYING:
        data = re.sub(pattern, instead, data)
    return data


def outcome(returncode: int | None, place: Path) -> Outcome:
    found = {
        str(path.relative_to(place)): b"" if path.suffix in BINARY else plain(path.read_bytes())
        for path in place.rglob("*")
        if path.is_file()
    }
    return Outcome(returncode, found.pop(".stdout"), found.pop(".stderr"), found)


def differences(cold: Outcome, warm: Outcome) -> Iterator[str]:
    if cold.returncode != warm.returncode:
        yield f"exit status {cold.returncode} cold, {warm.returncode} warm"
    for name in sorted({*cold.files, *warm.files}):
        if name not in cold.files or name not in warm.files:
            yield f"{name} is left by only one"
    pairs = [(name, cold.files[name], warm.files[name]) for name in cold.files if name in warm.files]
    for name, one, other in [("stdout", cold.stdout, warm.stdout), ("stderr", cold.stderr, warm.stderr), *pairs]:
        if one == other:  # an interpreter of 40 MB, for instance
            continue
        lines = (data.decode("utf-8", "backslashreplace").splitlines() for data in (one, other))
        yield from (f"{name}: {line}" for line in unified_diff(*lines, "cold", "warm", lineterm="", n=0))


class Place:
    """A directory that is made anew for each run of a command."""

    def __init__(self, place: Path, make: Callable[[Path], object]) -> None:
        self.place = place
        self.make = make

    def prepare(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        self.make(self.place)

    def run(self, command: Sequence[str], stdin: bytes, **keywords: Any) -> Outcome:
        """Run a command in a new process. The keywords are those of ``subprocess.run``."""
        self.prepare()
        with open(self.place / ".stdout", "wb") as stdout, open(self.place / ".stderr", "wb") as stderr:
            done = subprocess.run(
                command,
                input=stdin,
                cwd=self.place,
                stdout=stdout,
                stderr=stderr,
                timeout=PROGRAM_DEADLINE,
                check=False,
                **keywords,
            )
        return outcome(done.returncode, self.place)


class Runs(Place):
    """Runs of one command line of the interpreter, cold and warm."""

    def __init__(self, place: Path, make: Callable[[Path], object], template: Template) -> None:
        super().__init__(place, make)
        self.template = template
        self.why_cold = ""  # why a new interpreter has run the last warm program; empty if none has

    def cold(self, line: Sequence[str], stdin: bytes = b"", env: Mapping[str, str] = PLAIN) -> Outcome:
        return self.run([sys.executable, *line], stdin, env=env)

    def warm(self, line: Sequence[str], stdin: bytes = b"", env: Mapping[str, str] = PLAIN) -> Outcome:
        self.prepare()
        read, write = os.pipe()
        os.write(write, stdin)
        os.close(write)
        with (
            open(read, "rb") as source,
            open(self.place / ".stdout", "wb") as stdout,
            open(self.place / ".stderr", "wb") as stderr,
        ):
            template = self.template.fork(cwd=self.place, stdin=source, stdout=stdout, stderr=stderr, env=env)
            process, report = start(template, line)
            with process:
                returncode = process.wait(PROGRAM_DEADLINE).returncode
            self.why_cold = reason(read_report(report))
        return outcome(returncode, self.place)

    def check(
        self, line: Sequence[str], stdin: bytes = b"", env: Mapping[str, str] = PLAIN, why_cold: str = ""
    ) -> Outcome:
        """Run a command line both ways, and compare; return the outcome of the cold run.

        ``why_cold`` is a part of the reason for which a new interpreter must run it in the template's process, too.
        """
        cold, warm = self.cold(line, stdin, env), self.warm(line, stdin, env)
        assert not list(differences(cold, warm)), line
        assert why_cold in self.why_cold, line
        assert bool(self.why_cold) == bool(why_cold), (line, self.why_cold)
        return cold


def start(template: Template, line: Sequence[str]) -> tuple[Process, Owned]:
    """Start a command line of the interpreter, without its options, in a template.

    Does what ``run_module``, ``run_script`` and ``run_code`` do; returns the pipe of the program's report as well.
    """
    kind, target, *argv = line if line[0] in ("-m", "-c") else ("", *line)
    process, report = take_over(template, Process._of, CommandLine((), kind, target, argv, ()))
    return process.ready(), report
