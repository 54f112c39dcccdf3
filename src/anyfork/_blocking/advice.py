"""Advice on what a template should have loaded and computed, from what its processes do."""

from __future__ import annotations

import os
from collections import defaultdict
from fcntl import F_GETFL, F_SETFL, fcntl

from _anyfork_child.values.decode import Descriptor
from _anyfork_child.wire.memfd import new_file
from _anyfork_child.wire.platform import LINUX, SYSTEM

from .._errors import ArgumentError
from .._processes.handles import HasTemplates, check_template
from .._status import Record

WATCH = "_anyfork_child.birth.advice_watch:watch"
IMPORT, PATTERN, CACHE, UNSHARED = "import", "pattern", "cache", "unshared"  # the kinds of notes, as written there
MEGABYTE = 1 << 20

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._processes.handles import TemplateHandle


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
        return f"{self.module}: {_count(self.processes)}, {cost} each"


class LatePattern(Record):
    """A regular expression that processes have compiled: how many, and the seconds that it has taken on average.

    For example::

        import anyfork

        for late in anyfork.advise(anyfork.Template()).patterns:
            print(late.pattern, late.processes, late.seconds)
    """

    __match_args__: tuple[str, ...] = ("pattern", "processes", "seconds")
    __slots__ = __match_args__
    pattern: str
    processes: int
    seconds: float

    def __init__(self, pattern: str, processes: int, seconds: float) -> None:
        self._set(pattern, processes, seconds)

    def __str__(self) -> str:
        return f"re.compile({self.pattern}): {_count(self.processes)}, {self.seconds * 1000:.1f} ms each"


class FilledCache(Record):
    """A cache of functools that processes have filled: its function, how many, and their further entries on average.

    For example::

        import anyfork

        for late in anyfork.advise(anyfork.Template()).caches:
            print(late.function, late.processes, late.entries)
    """

    __match_args__: tuple[str, ...] = ("function", "processes", "entries")
    __slots__ = __match_args__
    function: str
    processes: int
    entries: float

    def __init__(self, function: str, processes: int, entries: float) -> None:
        self._set(function, processes, entries)

    def __str__(self) -> str:
        return f"the cache of {self.function}: {_count(self.processes)}, {self.entries:.1f} further entries each"


class Advice:
    """What the processes of a template do since it is observed, that their template could have done for them.

    Modules that they import should be preloaded, unless they are not safe in a template (see ``anyfork.audit``). What
    they compute at their first calls can be done by ``prepare``. Only modules, regular expressions and caches of
    functools are seen; the last two as far as the template had loaded their modules at the fork.

    For example::

        import anyfork

        advice = anyfork.advise(anyfork.Template())
        for late in advice.imports:
            print(late.module)
    """

    def __init__(self, templates: Iterable[TemplateHandle]) -> None:
        self._file = new_file()
        fcntl(self._file.fd, F_SETFL, fcntl(self._file.fd, F_GETFL) | os.O_APPEND)  # all processes write to its end
        for template in templates:
            template.prepare(WATCH, Descriptor(self._file.fd))

    @property
    def imports(self) -> list[LateImport]:
        """The modules, as far as processes have imported them by now; the greatest total time comes first.

        For example::

            import anyfork

            template = anyfork.Template()
            advice = anyfork.advise(template)
            template.fork().run_code("import fractions").wait()
            print([late.module for late in advice.imports])
        """
        late = [LateImport(*one) for one in self._averages(IMPORT)]
        return sorted(late, key=lambda one: one.seconds * one.processes, reverse=True)

    @property
    def patterns(self) -> list[LatePattern]:
        """The regular expressions that processes have compiled by now; the greatest total time comes first.

        For example::

            import anyfork

            template = anyfork.Template().preload("re")
            advice = anyfork.advise(template)
            template.fork().run_code("import re; re.match('a+', 'aa')").wait()
            assert [late.pattern for late in advice.patterns] == ["'a+'"]
        """
        late = [LatePattern(pattern, count, seconds) for pattern, count, seconds, _ in self._averages(PATTERN)]
        return sorted(late, key=lambda one: one.seconds * one.processes, reverse=True)

    @property
    def caches(self) -> list[FilledCache]:
        """The caches that processes had filled when they ended; the greatest total number of entries comes first.

        Processes that were killed have not said it.

        For example::

            import anyfork

            template = anyfork.Template().preload("fnmatch")
            advice = anyfork.advise(template)
            template.fork().run_code("import fnmatch; fnmatch.fnmatch('a', '*')").wait()
            print([late.function for late in advice.caches])
        """
        late = [FilledCache(function, count, entries) for function, count, _, entries in self._averages(CACHE)]
        return sorted(late, key=lambda one: one.entries * one.processes, reverse=True)

    @property
    def unshared(self) -> int | None:
        """How many bytes of the template's memory a process had written to at its end, and so owned, on average.

        None if no process has said it. It is an estimate: memory that a process has given back makes it too large.
        ``Template.immortalize`` lets processes write less.

        For example::

            import anyfork

            template = anyfork.Template()
            advice = anyfork.advise(template)
            template.fork().run_code("pass").wait()
            assert advice.unshared > 0
        """
        for _, _, _, size in self._averages(UNSHARED):
            return int(size)
        return None

    def _averages(self, kind: str) -> list[tuple[str, int, float, int]]:
        """Return names with how many processes have noted them, and the average of their seconds and sizes."""
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for line in self._read().splitlines():
            of, _, time, size, name = line.split(" ", 4)
            if of == kind:
                found[name].append((int(time), int(size)))
        return [_average(name, notes) for name, notes in found.items()]

    def _read(self) -> str:
        size = os.fstat(self._file.fd).st_size
        text = os.pread(self._file.fd, size, 0).decode()
        return text[: text.rfind("\n") + 1]

    def __str__(self) -> str:
        late, calls, unshared = self.imports, [*self.patterns, *self.caches], self.unshared
        if late:
            names = ", ".join(repr(one.module) for one in late)
            lines = [*map(str, late), f"to save that: preload({names})"]
        else:
            lines = ["no process has imported a module that its template had not loaded"]
        if calls:
            lines += [*map(str, calls), "to save that: call the same once in the template, by prepare()"]
        if unshared:
            lines.append(f"each process has written to {unshared / MEGABYTE:.1f} MB of its template's memory")
        return "\n".join(lines)


def _average(name: str, notes: list[tuple[int, int]]) -> tuple[str, int, float, int]:
    times, sizes = zip(*notes, strict=True)
    count = len(notes)
    return name, count, sum(times) / count / 1e9, max(0, sum(sizes) // count)


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def advise(template: TemplateHandle | HasTemplates) -> Advice:
    """Observe the processes that are forked from a template from now on; return the advice.

    Given a pool, an Executor or a Warm, of either face, it observes workers and processes of its present templates;
    those that run already, and those of a template that is made later, are not observed. What makes its first template
    later, in an event loop, has to have made it: ``await warm.template()``, or a first call of the pool.
    It grows as long as the processes run: print it when the program has done its usual work. Starts and imports of
    observed processes are slower. Only on Linux, and for templates on this machine.

    For example::

        import anyfork

        template = anyfork.Template()
        advice = anyfork.advise(template)
        template.fork().run_code("import fractions").wait()
        print(advice)
    """
    if isinstance(template, HasTemplates):
        templates = template._templates("advise")
    else:
        check_template("advise", template)
        templates = [template]
    if not LINUX:
        raise ArgumentError(f"advise() reads the size of processes from /proc, which {SYSTEM} has not")
    return Advice(templates)
