"""What processes do only at their first calls, and what they write to: for anyfork.advise().

Runs in an observed template, and in what is forked from it: regular expressions that a process compiles, caches of
functools that it fills, and the memory of the template that it writes to. Hooks of the fork begin it in each process.
"""

from __future__ import annotations

import _functools  # type: ignore[import-not-found]  # not in the stubs
import atexit
import os
import sys
from time import monotonic_ns

from .import_watch import PAGE, ImportWatch
from .preparation import function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..values.decode import Descriptor

CACHE_TYPE: type = _functools._lru_cache_wrapper
LONGEST = 200  # characters of a pattern
PATTERN, CACHE, UNSHARED = "pattern", "cache", "unshared"


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
            self._imports.note(PATTERN, monotonic_ns() - began, 0, ascii(pattern)[:LONGEST])
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
