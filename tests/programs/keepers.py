"""``anyfork run`` as tests use it: in a directory of keepers of their own, without a terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cold_and_warm import PLAIN
from conftest import eventually
from deadlines import PROGRAM_DEADLINE

from _anyfork_client import messages, place
from anyfork._programs.learned import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    Outcome = TypeVar("Outcome")

ATTEMPTS = 10
COLD = "anyfork: the program starts cold"


class CommandLine:
    """The command ``anyfork``, with a runtime directory and options of ``run``."""

    def __init__(self, runtime: Path, *options: str) -> None:
        self.env = {**PLAIN, "XDG_RUNTIME_DIR": str(runtime)}
        self.directory = runtime / "anyfork"
        self.options = options

    def command(self, *line: str) -> list[str]:
        return [sys.executable, "-m", "_anyfork_client", "run", *self.options, *line]

    def start(self, *line: str, **keywords: Any) -> subprocess.Popen[bytes]:
        keywords = {"env": self.env, "start_new_session": True, "stdin": subprocess.DEVNULL, **keywords}
        return subprocess.Popen(self.command(*line), **keywords)

    def run(self, *line: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        keywords = {"env": self.env, "start_new_session": True, "capture_output": True, "text": True, **keywords}
        if "input" not in keywords:
            keywords.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(self.command(*line), timeout=PROGRAM_DEADLINE, check=False, **keywords)

    def call(self, command: str) -> str:
        """Run another command of ``anyfork``; return its output."""
        line = [sys.executable, "-m", "_anyfork_client", command]
        return subprocess.run(
            line, env=self.env, capture_output=True, text=True, timeout=PROGRAM_DEADLINE, check=True
        ).stdout

    def warm_up(self) -> None:
        """Wait until programs with these options start warm."""
        eventually(lambda: "anyfork: " not in self.run("--verbose", "-c", "pass").stderr)

    def import_from(self, directory: Path) -> None:
        """Let programs and templates find modules in a directory."""
        self.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(directory), self.env.get("PYTHONPATH")]))

    def starts(self) -> int:
        """Return how many programs have started warm."""
        return sum(template["starts"] for template in self.ask()["templates"])

    def until_warm(self, run: Callable[[], Outcome]) -> Outcome:
        """Run a program until it has started warm; on a loaded machine the keeper may answer too late."""
        for _ in range(ATTEMPTS):
            before = self.starts()
            found = run()
            if self.starts() > before:
                return found
        raise AssertionError("the program does not start warm")

    def sockets(self) -> list[Path]:
        return [*self.directory.glob(f"*{place.SUFFIX}")]

    def ask(self, command: str = "status") -> dict[str, Any]:
        """Return what the only keeper answers."""
        [path] = self.sockets()
        directory = os.open(self.directory, place.PATH)
        sock = place.connect(directory, path.stem, PROGRAM_DEADLINE)
        try:
            messages.send(sock, (command, {}))
            return messages.receive(sock)[1]
        finally:
            sock.close()
            os.close(directory)

    def stop(self) -> None:
        """Let all keepers end, and wait until they have left nothing."""
        self.call("stop")
        eventually(lambda: not self.directory.exists() or not self.left(), f"left: {self.directory}")

    def left(self) -> list[Path]:
        """Return the files of keepers, but for those of what they have learned, which stay for the next one."""
        return [path for path in self.directory.iterdir() if path.suffix != SUFFIX]


@contextmanager
def command_line(*options: str) -> Iterator[CommandLine]:
    """Make a runtime directory and, at the end, let its keepers end."""
    runtime = Path(tempfile.mkdtemp(prefix="anyfork-"))
    line = CommandLine(runtime, *options)
    try:
        yield line
    finally:
        line.stop()
        shutil.rmtree(runtime)
