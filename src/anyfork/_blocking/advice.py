"""Advice on what a template should have loaded, from what its processes import."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from fcntl import F_GETFL, F_SETFL, fcntl

from _anyfork_child.values.decode import Descriptor
from _anyfork_child.wire.memfd import new_file

from .._errors import ArgumentError
from .._processes.handles import TemplateHandle, check_template
from .._status import Record

WATCH = "_anyfork_child.birth.import_watch:watch"
MEGABYTE = 1 << 20


class LateImport(Record):
    """A module that processes have imported: how many, and what that has cost on average, with all that it imports.

    ``seconds`` is the time of the import, ``memory`` the number of bytes by which the process has grown.

    For example::

        import anyfork

        for late in anyfork.advise(anyfork.Template()).imports:
            print(late.module, late.processes, late.seconds)
    """

    __match_args__: tuple[str, ...] = ("module", "processes", "seconds", "memory")
    __slots__ = __match_args__
    module: str
    processes: int
    seconds: float
    memory: int

    def __init__(self, module: str, processes: int, seconds: float, memory: int) -> None:
        self._set(module, processes, seconds, memory)

    def __str__(self) -> str:
        cost = f"{self.seconds * 1000:.1f} ms and {self.memory / MEGABYTE:.1f} MB"
        count = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{self.module}: {count}, {cost} each"


class Advice:
    """What the processes of a template have imported since it is observed, in their order of total time.

    The template should preload these modules, unless they are not safe in a template (see ``anyfork.audit``).

    For example::

        import anyfork

        advice = anyfork.advise(anyfork.Template())
        for late in advice.imports:
            print(late.module)
    """

    def __init__(self, template: TemplateHandle) -> None:
        self._file = new_file()
        fcntl(self._file.fd, F_SETFL, fcntl(self._file.fd, F_GETFL) | os.O_APPEND)  # all processes write to its end
        template.prepare(WATCH, Descriptor(self._file.fd))

    @property
    def imports(self) -> list[LateImport]:
        """The modules, as far as processes have imported them by now.

        For example::

            import anyfork

            template = anyfork.Template()
            advice = anyfork.advise(template)
            template.fork().run_code("import fractions").wait()
            print([late.module for late in advice.imports])
        """
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for line in self._read().splitlines():
            _, time, memory, module = line.split(" ", 3)
            found[module].append((int(time), int(memory)))
        late = [_late(module, costs) for module, costs in found.items()]
        return sorted(late, key=lambda one: one.seconds * one.processes, reverse=True)

    def _read(self) -> str:
        size = os.fstat(self._file.fd).st_size
        text = os.pread(self._file.fd, size, 0).decode()
        return text[: text.rfind("\n") + 1]

    def __str__(self) -> str:
        late = self.imports
        if not late:
            return "no process has imported a module that its template had not loaded"
        names = ", ".join(repr(one.module) for one in late)
        return "\n".join([*map(str, late), f"to save that: preload({names})"])


def _late(module: str, costs: list[tuple[int, int]]) -> LateImport:
    times, memories = zip(*costs, strict=True)
    count = len(costs)
    return LateImport(module, count, sum(times) / count / 1e9, max(0, sum(memories) // count))


def advise(template: TemplateHandle) -> Advice:
    """Observe what the processes import that are forked from a template from now on; return the advice.

    It grows as long as the processes run: print it when the program has done its usual work. Imports of observed
    processes are slower, by some microseconds each. Only on Linux, and for templates on this machine.

    For example::

        import anyfork

        template = anyfork.Template()
        advice = anyfork.advise(template)
        template.fork().run_code("import fractions").wait()
        print(advice)
    """
    check_template("advise", template)
    if sys.platform != "linux":
        raise ArgumentError(f"advise() reads the size of processes from /proc, which {sys.platform} has not")
    return Advice(template)
