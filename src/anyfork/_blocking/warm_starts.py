"""The starts of a Warm's programs, and whether each has been warm: the program tells when it begins."""

from __future__ import annotations

import os
from _thread import RLock

from _anyfork_child.values.decode import Descriptor

from .._system.locks import Once, do_locked
from .._system.pipes import open_pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from _anyfork_child.wire.descriptors import Owned

    from .._processes.arguments import Argument, Kind
    from .._processes.handles import ProcessHandle, TemplateHandle
    from .._processes.link import Link
    from .generation import Generation

    Made = TypeVar("Made")

KINDS: dict[str, Kind] = {"run_module": "-m", "run_script": "", "run_code": "-c"}


class Beginning:
    """The report of a program on how it begins. ``why_cold`` is why a new interpreter runs it; empty if it runs warm.

    It is None until the program has begun.
    """

    def __init__(self, report: Owned, generation: Generation) -> None:
        os.set_blocking(report.fd, False)
        self.generation = generation
        self._said = Once()  # an interrupt must not lose what was read
        self._why: str | None = None
        self._report = report
        self._lock = RLock()  # reentrant, as all locks for signal handlers

    def why_cold(self) -> str | None:
        """Look at the report, without waiting."""
        return self._why if self._why is not None else do_locked(self._lock, self._look)

    def _look(self) -> str | None:
        if self._why is None:
            try:
                self._said.call(0, map(os.read, (self._report.fd,), (1 << 16,)))
            except BlockingIOError:
                return None
            self._why = self._said[0][1:].decode("utf-8", "replace")
            self._report.close()
        return self._why


def note_cold(process: ProcessHandle, why: str) -> None:
    """Note why a new interpreter runs the program of a process."""
    process._link.why_cold = lambda: why


class WarmStarts:
    """The programs that have not begun yet, as far as this process knows."""

    def __init__(self) -> None:
        self._awaited: list[Beginning] = []

    def begin(
        self,
        handle: TemplateHandle,
        make: Callable[[Link], Made],
        call: str,
        target: Argument,
        argv: Sequence[Argument],
        imports_to: str,
    ) -> tuple[Made, Owned | None]:
        """Let a program take over a process; return its handle, and the pipe over which it reports how it begins.

        There is no such pipe to another machine.
        """
        if handle._link.session.host:
            return handle._take_over_by_python(make, KINDS[call], target, argv), None
        report, far = open_pipe()
        try:
            starter = ((), (), Descriptor(far.fd), (), None, None, imports_to)
            return handle._take_over_by_python(make, KINDS[call], target, argv, starter), report
        finally:
            far.close()

    def await_report(self, process: ProcessHandle, report: Owned | None, generation: Generation) -> None:
        """Remember a program that was started and has not reported yet."""
        if report is not None:
            beginning = Beginning(report, generation)
            process._link.why_cold = beginning.why_cold
            self._awaited.append(beginning)

    def cold(self) -> Iterator[tuple[Generation, str]]:
        """Yield the programs that new interpreters run, with the reasons, as far as they have reported it by now."""
        for _ in range(len(self._awaited)):
            try:
                beginning = self._awaited.pop(0)
            except IndexError:  # another thread has come first
                return
            why = beginning.why_cold()
            if why is None:
                self._awaited.append(beginning)
            elif why:
                yield beginning.generation, why

    def close(self) -> None:
        """Listen no longer; programs go on."""
        self._awaited.clear()
