"""Starts programs that try operations, sees to it that they go on, and counts what came of the trials."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import shim
from .marks import MARK, descendants, python_path
from .state import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SILENCE = 90.0  # seconds without a word after which a program hangs: longer than every wait within it
STOPPED = 0.03  # seconds that a process stands still that was stopped
ORPHANS = 4.0  # seconds for what an owner has left behind to end; a tenth of a second is what is promised
WITH_SHIM = ("failure", "kill")
OWNER_KILLED = "owner KILL"


@dataclass(frozen=True, slots=True)
class Trial:
    """One operation, in one variant of a campaign, at many points: a range of numbers."""

    operation: str
    variant: str
    points: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial at one point.

    ``kind`` is survived, refused (by the next operation, with a clear error), exempt, failed, beyond (the operation has
    no such point), or broken: there it failed although nothing was done to it.
    """

    operation: str
    variant: str
    at: int
    kind: str
    place: str
    text: str


@dataclass(slots=True)
class Tally:
    """The figures of a campaign on one face, and its failures."""

    campaign: str
    face: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)
    places: set[str] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        if outcome.kind == "beyond":
            return
        self.counts[outcome.kind] += 1
        self.places.add(outcome.place)
        if outcome.kind in ("failed", "broken"):
            self.failures.append(outcome)

    @property
    def tried(self) -> int:
        """How many strikes there were."""
        return sum(self.counts.values())

    def command(self, outcome: Outcome) -> str:
        """Return how to repeat a failure."""
        variant = f" --variant '{outcome.variant}'" if outcome.variant else ""
        what = f"--face {self.face} --operation '{outcome.operation}'{variant} --point {outcome.at}"
        return f"scripts/campaign {self.campaign} {what}"

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        return f"{self.campaign} {self.face}: {self.tried} tried at {len(self.places)} places: {counts}"


def run(
    campaign: str,
    face: str,
    trials: list[Trial],
    told: Callable[[Outcome], None] = lambda _: None,
    patience: float = PATIENCE,
) -> Tally:
    """Try all of it, in as many programs as it takes; return the figures.

    ``patience`` is for how many seconds something may be left of an operation: on a free machine a second is plenty.
    """
    tally = Tally(campaign, face)
    ahead = list(trials)
    while ahead:
        for outcome in _run_program(campaign, face, ahead, patience):
            ahead = _after(ahead, outcome)
            tally.add(outcome)
            told(outcome)
    return tally


def _after(trials: list[Trial], outcome: Outcome) -> list[Trial]:
    """Return what is still to be tried after this."""
    while (trials[0].operation, trials[0].variant) != (outcome.operation, outcome.variant):
        trials = trials[1:]
    first, rest = trials[0], trials[1:]
    begin = outcome.at + first.points[2]
    if outcome.kind in ("beyond", "broken") or begin >= first.points[1]:
        return rest
    return [Trial(first.operation, first.variant, (begin, *first.points[1:])), *rest]


def _run_program(campaign: str, face: str, trials: list[Trial], patience: float) -> Iterator[Outcome]:
    """Yield what one program says, until it has done its job or ends or hangs."""
    with tempfile.TemporaryFile() as errors, _control(campaign) as (control, block):
        mark = uuid.uuid4().hex
        environment = {**os.environ, **control, "PYTHONPATH": python_path(), MARK: mark}
        program = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "campaigns.trials"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        try:
            assert program.stdin is not None
            job = {"campaign": campaign, "face": face, "patience": patience}
            listed = [(trial.operation, trial.variant, trial.points) for trial in trials]
            program.stdin.write(json.dumps({**job, "trials": listed}).encode())
            program.stdin.close()
            yield from _outcomes(program, errors, trials[0], block, mark)
        finally:
            program.kill()
            program.wait()
            assert program.stdout is not None
            program.stdout.close()
            for pid in descendants(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _control(campaign: str) -> Iterator[tuple[dict[str, str], shim.Shim | None]]:
    """Yield what a program needs for the shim, if the campaign uses it."""
    if campaign not in WITH_SHIM:
        yield {}, None
        return
    with shim.control() as control:
        yield control


def _outcomes(
    program: subprocess.Popen[bytes], errors: Any, first: Trial, block: shim.Shim | None, mark: str
) -> Iterator[Outcome]:
    begun: dict[str, Any] = {}
    for line in _lines(program, block):
        said = json.loads(line)
        if "kind" not in said:
            begun = said
            continue
        kind, text = said["kind"], said["text"]
        if kind == "unusable":
            kind, text = "failed", f"{text}\n{_tail(errors)}"
        yield Outcome(begun["operation"], begun["variant"], begun["at"], kind, said["place"], text)
        begun = {}
    if begun:
        kind, text = _ended(program, begun["variant"], mark)
        if kind == "failed":
            text = f"{text}\n{_tail(errors)}"
        place = block.disarm() if block is not None else ""
        yield Outcome(begun["operation"], begun["variant"], begun["at"], kind, place, text)
    elif program.wait() not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the program of the trials failed before {first}:\n{_tail(errors)}")


def _ended(program: subprocess.Popen[bytes], variant: str, mark: str) -> tuple[str, str]:
    """Return what is to be said of a program that has ended, or hangs, in the middle of a trial."""
    code = program.poll()
    if code is None:
        return "failed", "the program hangs"
    if (code, variant) != (-signal.SIGKILL, OWNER_KILLED):
        return "failed", f"the program has ended with {code}"
    end = time.monotonic() + ORPHANS
    while (left := descendants(mark)) and time.monotonic() < end:
        time.sleep(0.005)
    return ("failed", f"orphans are left: {left}") if left else ("survived", "")


def _lines(program: subprocess.Popen[bytes], block: shim.Shim | None) -> Iterator[bytes]:
    """Yield each line that a program writes; the end, too, when it has been silent for long."""
    assert program.stdout is not None
    buffer = b""
    fd = program.stdout.fileno()
    last = time.monotonic()
    while True:
        if not select.select([fd], [], [], SILENCE if block is None else STOPPED)[0]:
            if block is not None:
                _let_go_on(block)
            if time.monotonic() - last >= SILENCE:
                program.send_signal(signal.SIGUSR1)  # it writes down what its threads do
                time.sleep(1)
                return
            continue
        data = os.read(fd, 65536)
        if not data:
            program.wait()
            return
        last = time.monotonic()
        *lines, buffer = (buffer + data).split(b"\n")
        yield from lines


def _let_go_on(block: shim.Shim) -> None:
    pid = block.take_stopped()
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _tail(errors: Any) -> str:
    size = os.fstat(errors.fileno()).st_size
    return os.pread(errors.fileno(), 6000, max(0, size - 6000)).decode(errors="replace").strip()
