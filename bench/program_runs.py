"""The ways to run a program that the benchmark ``programs`` compares: cold, and warm by each interface."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep

from anyfork import Template
from anyfork import subprocess as warm_subprocess

from . import held_program, procfs
from .driver import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from anyfork import Process

    from .program_cases import Case

ATTEMPTS = 600  # to find the keeper's template ready
PAUSE = 0.1  # seconds between them
CLIENT = "bin/anyfork"
SCRIPT = "import sys\nfrom _anyfork_client.__main__ import main\nsys.exit(main())\n"  # as pip writes it


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the call to the first output and to the end, and seconds of CPU; None for what is unknown."""

    first: float | None
    end: float
    cpu: float | None


class Runner:
    """The ways to run one program, from a template of its own and a keeper."""

    def __init__(self, case: Case, directory: Path, env: Mapping[str, str]) -> None:
        self._case, self._directory, self._env = case, directory, {**env}
        self._command = [sys.executable, *case.line]
        preload = [part for name in case.preload for part in ("--preload", name)]
        self._client = [str(directory / CLIENT), "run", *preload]
        self._template: Template | None = None
        self.ways: dict[str, Callable[[], Run]] = {
            "cold": self._cold,
            "template": self._by_template,
            "subprocess": self._by_subprocess,
            "run": self._by_command_line,
        }

    def __enter__(self) -> Self:
        self._template = Template.new_exec(flags=(), env=self._env).preload(*self._case.preload).ready()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._template is not None
        self._template.close()

    def wait_for_keeper(self) -> None:
        """Run the program until the keeper has a template for it. Raises UnavailableError."""
        for _ in range(ATTEMPTS):
            line = [self._client[0], "run", "--verbose", *self._client[2:], *self._case.line]
            done = subprocess.run(line, env=self._env, cwd=self._directory, capture_output=True, text=True, check=False)
            if "starts cold" not in done.stderr:
                return
            sleep(PAUSE)
        raise UnavailableError(done.stderr)

    def _cold(self) -> Run:
        return self._spawn(self._command)

    def _by_command_line(self) -> Run:
        return self._spawn([*self._client, *self._case.line])

    def _spawn(self, command: Sequence[str]) -> Run:
        def start(output: int) -> Callable[[], tuple[int, float]]:
            process = subprocess.Popen(
                command, env=self._env, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            return lambda: _reap(process)

        return _timed(start)

    def _by_template(self) -> Run:
        def start(output: int) -> Callable[[], tuple[int | None, float | None]]:
            process = self._start(output)

            def wait() -> tuple[int | None, float | None]:
                status = process.wait()
                usage = status.usage
                return status.code, None if usage is None else usage.user_time + usage.system_time

            return wait

        return _timed(start)

    def _start(self, output: int) -> Process:
        assert self._template is not None
        template = self._template.fork(cwd=self._directory, stdout=output, stderr=output)
        case = self._case
        methods = {"-m": template.run_module, "-c": template.run_code, "": template.run_script}
        return methods[case.kind](case.target, *case.argv)

    def _by_subprocess(self) -> Run:
        def start(output: int) -> Callable[[], tuple[int, None]]:
            process = warm_subprocess.Popen(
                self._command,
                template=self._template,
                env=self._env,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            return lambda: (process.wait(), None)

        return _timed(start)

    def memory(self) -> tuple[int, int]:
        """Return the private memory of the program at its end, cold and warm, in bytes."""
        return self._memory(subprocess.Popen), self._memory(partial(warm_subprocess.Popen, template=self._template))

    def _memory(self, start: Callable[..., subprocess.Popen[bytes]]) -> int:
        end, far_end = os.pipe()
        far_release, release = os.pipe()
        case = self._case
        line = [
            sys.executable,
            held_program.__file__,
            str(far_end),
            str(far_release),
            case.kind,
            case.target,
            *case.argv,
        ]
        process = start(
            line,
            env=self._env,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(far_end, far_release),
        )
        os.close(far_end)
        os.close(far_release)
        try:
            if not os.read(end, 1):
                raise UnavailableError(f"{case.label} did not come to its end")
            return procfs.memory(process.pid).private
        finally:
            os.close(release)
            os.close(end)
            process.wait()


def _timed(start: Callable[[int], Callable[[], tuple[int | None, float | None]]]) -> Run:
    """Start a program with a pipe as its output, and follow it to its end. Raises UnavailableError if it fails."""
    output, far = os.pipe()
    first, said = None, b""
    try:
        began = perf_counter()
        wait = start(far)
        os.close(far)
        while piece := os.read(output, 1 << 16):
            if first is None:
                first = perf_counter() - began
            said = piece
        code, cpu = wait()
        end = perf_counter() - began
        if code:
            raise UnavailableError(f"status {code}: {said.decode(errors='replace').rstrip().rpartition(chr(10))[2]}")
        return Run(first, end, cpu)
    finally:
        os.close(output)


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def write_client(directory: Path) -> None:
    """Write the command ``anyfork``, as the installation of the package does."""
    path = directory / CLIENT
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{SCRIPT}")
    path.chmod(0o755)


def stop_keepers(directory: Path, env: Mapping[str, str]) -> None:
    """Let the keepers end that ``anyfork run`` has started."""
    subprocess.run([str(directory / CLIENT), "stop"], env={**env}, stdout=subprocess.DEVNULL, check=True)
