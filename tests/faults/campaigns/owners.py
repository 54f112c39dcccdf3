"""Owners that are killed at any moment, idle and busy: nothing may be left of them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid

from .marks import MARK, descendants, python_path

PATIENCE = 4.0  # seconds for what must have ended by then; a tenth of a second is what is promised
SCENES = {
    "idle templates": "kept = [Template().ready(), Template.new_exec().ready()]; say(); pause()",
    "idle processes": "kept = Template().run(deeds.drain); say(); pause()",
    "an idle executor": "kept = Executor(max_workers=2); list(kept.map(abs, range(9))); say(); pause()",
    "a busy executor": "kept = Executor(max_workers=2); kept.submit(abs, 1).result(); say()\nwhile True: list(kept.map(abs, range(99)))",
    "starts of processes": "t = Template().ready(); say()\nwhile True: t.fork().start(deeds.drain).close()",
    "starts of programs": "t = Template().ready(); say()\nwhile True: t.fork().run_program(['sleep', '99']).close()",
    "nested templates": "t = Template().ready(); say()\nfor n in range(50): t = t.fork().ready()\npause()",
    "a busy worker": "kept = Worker(); kept.call(abs, 1); say()\nwhile True: kept.call(abs, 1)",
    "calls": "say()\nwhile True: anyfork.call(abs, 1)",
}
PRELUDE = """
import os
from signal import pause
import anyfork
from anyfork import Executor, Template, Worker
from campaigns import deeds
def say(): os.write(1, b".")
"""


def kill_owner(scene: str, pause: float) -> dict[int, str]:
    """Start an owner, kill it after a moment, and return which of its processes live on."""
    mark = uuid.uuid4().hex
    program = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + SCENES[scene]],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": python_path(), MARK: mark},
    )
    assert program.stdout is not None
    with program.stdout as said:
        begun = said.read(1)
        select.select([], [], [], pause)
        program.kill()
        program.wait()
    assert begun, f"the owner of {scene} has not come up"
    end = time.monotonic() + PATIENCE
    while (left := descendants(mark)) and time.monotonic() < end:
        select.select([], [], [], 0.005)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left
