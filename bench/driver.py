"""A contender as the benchmark sees it: a program of its own on the other end of a socket (see owner)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

ROOT = Path(__file__).resolve().parent.parent
ANSWER = 180.0  # seconds: a contender that says nothing for that long hangs
END = 30.0  # seconds for an owner to end after its socket was closed


class UnavailableError(Exception):
    """A contender cannot run here, or has stopped working; the text says why."""


class Driver:
    """One owner program, started at once and asked for slices."""

    def __init__(
        self, command: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._control, far = socket.socketpair()
        self._control.settimeout(ANSWER)
        self._file = self._control.makefile("rb")
        self._errors = tempfile.TemporaryFile()
        # What children import must be found wherever the benchmark is started from.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with far:
            self._process = subprocess.Popen(
                [*command, str(far.fileno()), *arguments],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """The owner's process id."""
        return self._process.pid

    @classmethod
    def python(cls, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Self:
        """An owner written in Python, without a ``__main__`` that multiprocessing would load again in each child."""
        return cls([sys.executable, "-c", f"from {module} import main; main()"], arguments, environment)

    def answer(self) -> list[float]:
        """The numbers that come next. Raises UnavailableError."""
        try:
            word, _, rest = self._file.readline().decode().strip().partition(" ")
        except OSError as error:
            raise UnavailableError(f"no answer: {error}") from error
        if word == "ok":
            return [float(number) for number in rest.split()]
        raise UnavailableError(rest or self._last_words())

    def ask(self, measure: str, amount: float) -> list[float]:
        """Have it measure something. Raises UnavailableError."""
        try:
            self._control.sendall(f"{measure} {amount}\n".encode())
        except OSError as error:
            raise UnavailableError(self._last_words()) from error
        return self.answer()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"it ended: {lines[-1] if lines else 'without a word'}"

    def close(self) -> None:
        """End the owner, by force if it does not listen."""
        self._file.close()
        self._control.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
