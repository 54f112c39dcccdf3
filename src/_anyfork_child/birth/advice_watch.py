"""The watch of processes for anyfork.advise(): their imports, what they do only at first calls, what they write to.

Runs in an observed template, and in what is forked from it. It notes imports with their time and memory, regular
expressions that a process compiles, caches of functools that it fills, and the memory of the template that it writes
to. Hooks of the fork begin it in each process.
"""

from __future__ import annotations

import _functools  # type: ignore[import-not-found]  # not in the stubs
import atexit
import os
import sys
from importlib import _bootstrap
from time import monotonic_ns

from .preparation import function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..values.decode import Descriptor


OWN = "_anyfork_child"
IMPORT = "import"
_importlib: Any = _bootstrap  # its functions are not in the stubs
MOST_BYTES = 16 << 20  # bytes of notes; further imports are not noted
PAGE = os.sysconf("SC_PAGE_SIZE")
CACHE_TYPE: type = _functools._lru_cache_wrapper
MOST_CHARACTERS = 200  # characters of a pattern
PATTERN, CACHE, UNSHARED = "pattern", "cache", "unshared"


class ImportWatch:
    """The function that loads modules, which notes each load that is not part of another one.

    It takes the place of the one by which the interpreter loads a module, whichever statement or function asks for it.
    """

    def __init__(self, file: int) -> None:
        self._file, self._template = file, os.getpid()
        found = os.fstat(file)
        self._identity = found.st_dev, found.st_ino
        self._load: Callable[..., Any] = _importlib._find_and_load
        self._inside = False
        _importlib._find_and_load = self

    def __call__(self, name: str, import_: Callable[..., Any]) -> Any:
        if self._inside or name in sys.modules or os.getpid() == self._template:
            return self._load(name, import_)
        self._inside = True
        began, before = monotonic_ns(), resident()
        try:
            module = self._load(name, import_)
        finally:
            self._inside = False
        if not name.startswith(OWN):
            time, after = monotonic_ns() - began, resident()
            grown = (after - before) * PAGE if before and after else 0
            self.note(IMPORT, time, grown, name)
        return module

    @property
    def is_idle(self) -> bool:
        """True outside of the load of a module."""
        return not self._inside

    def note(self, kind: str, time: int, size: int, name: str) -> None:
        """Write down something that this process has done, with its nanoseconds and its size, of which kind it is."""
        try:
            found = os.fstat(self._file)
            if (found.st_dev, found.st_ino) == self._identity and found.st_size < MOST_BYTES:
                line = f"{kind} {os.getpid()} {time} {size} {' '.join(name.splitlines())}\n"
                os.write(self._file, line.encode("utf-8", "backslashreplace"))
        except OSError:  # the program has closed it
            pass


def resident() -> int:
    """Return how many pages of this process are in memory; 0 if it cannot learn that, for want of descriptors."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1])
    except OSError:  # the import that is measured must go on
        return 0


class FirstCallWatch:
    """The caches of a template, how full each is at a fork, and what has begun in this process."""

    def __init__(self, imports: ImportWatch) -> None:
        self._imports = imports
        self._modules = 0
        self._caches: list[Any] = []
        self._entries: list[int] = []
        self._compile: Callable[..., Any] | None = None
        self._anonymous = 0  # bytes

    def before_fork(self) -> None:
        """Note how full the caches are. Runs in the template."""
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            self._caches = [*{id(cache): cache for cache in _caches()}.values()]
        self._entries = [_entries(cache) for cache in self._caches]

    def after_fork(self) -> None:
        """Begin to watch. Runs in the new process."""
        self._anonymous = anonymous()
        atexit.unregister(self._at_end)  # that of a template in between
        atexit.register(self._at_end)
        re: Any = sys.modules.get("re")
        if self._compile is None and re is not None:
            self._compile, re._compiler.compile = re._compiler.compile, self.compile

    def compile(self, pattern: Any, *flags: Any) -> Any:
        """Compile a regular expression that is not in the cache of ``re``; note it, unless an import has wanted it."""
        assert self._compile is not None
        began = monotonic_ns()
        compiled = self._compile(pattern, *flags)
        if self._imports.is_idle:
            self._imports.note(PATTERN, monotonic_ns() - began, 0, ascii(pattern)[:MOST_CHARACTERS])
        return compiled

    def _at_end(self) -> None:
        for cache, before in zip(self._caches, self._entries, strict=True):
            further = _entries(cache) - before
            if further > 0:
                self._imports.note(CACHE, 0, further, _name(cache))
        unshared = _written() - max(0, anonymous() - self._anonymous)
        self._imports.note(UNSHARED, 0, max(0, unshared), "")


def anonymous() -> int:
    """Return how many bytes of this process come from no file; 0 if it cannot learn that, for want of descriptors."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * PAGE


def _written() -> int:
    """Return how many bytes this process has written that it shares with no other process; 0 as above."""
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:
            return sum(1024 * int(line.split()[1]) for line in file if line.startswith(b"Private_Dirty:"))
    except OSError:
        return 0


def _caches() -> Iterator[Any]:
    """Yield the caches of functions and methods that modules have; one may come twice."""
    for module in [*sys.modules.values()]:
        try:
            values = [*object.__getattribute__(module, "__dict__").values()]  # a lazy module stays one
        except (AttributeError, TypeError):  # anything may stand for a module
            continue
        for value in values:
            if type(value) is CACHE_TYPE:
                yield value
            elif type(value) is type:
                yield from (one for one in vars(value).values() if type(one) is CACHE_TYPE)


def _entries(cache: Any) -> int:
    entries: int = cache.cache_info().currsize
    return entries


def _name(cache: Any) -> str:
    return function_name(getattr(cache, "__wrapped__", cache)).replace(":", ".")


def watch(file: Descriptor) -> None:
    """Note the imports and first calls of all processes that are forked from this template from now on."""
    calls = FirstCallWatch(ImportWatch(file.detach()))
    os.register_at_fork(before=calls.before_fork, after_in_child=calls.after_fork)
