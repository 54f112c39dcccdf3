"""The starts of a Warm's programs, and whether each has been warm: the program tells when it begins."""

from __future__ import annotations

import os

from _anyfork_child.values.decode import Descriptor

from .._system.pipes import open_pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from _anyfork_child.wire.owned_descriptors import Owned

    from .._processes.arguments import Argument, Kind
    from .._processes.handles import TemplateHandle
    from .._processes.link import Link
    from .generation import Generation

    Made = TypeVar("Made")

KINDS: dict[str, Kind] = {"run_module": "-m", "run_script": "", "run_code": "-c"}


class WarmStarts:
    """The programs that have not begun yet, as far as this process knows."""

    def __init__(self) -> None:
        self._awaited: list[tuple[Owned, Generation]] = []

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

    def await_report(self, report: Owned | None, generation: Generation) -> None:
        """Remember a program that was started and has not reported yet."""
        if report is not None:
            os.set_blocking(report.fd, False)
            self._awaited.append((report, generation))

    def cold(self) -> Iterator[tuple[Generation, str]]:
        """Yield the programs that new interpreters run, with the reasons, as far as they have reported it by now."""
        for _ in range(len(self._awaited)):
            try:
                report, generation = self._awaited.pop(0)
            except IndexError:  # another thread has come first
                return
            try:
                said = os.read(report.fd, 1 << 16)
            except BlockingIOError:
                self._awaited.append((report, generation))
                continue
            report.close()
            if said:
                yield generation, said[1:].decode("utf-8", "replace")

    def close(self) -> None:
        """Listen no longer; programs go on."""
        self._awaited.clear()
