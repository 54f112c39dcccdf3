"""What importing anyfork costs a program, and what a fresh interpreter costs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from .contenders import Contender
from .driver import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

UNWANTED = ("asyncio", "anyio", "multiprocessing")
COUNT_MODULES = (
    "import sys; before = set(sys.modules); import anyfork; new = set(sys.modules) - before;"
    f"print(len(new), *sorted(set({UNWANTED!r}) & set(sys.modules)))"
)


@dataclass(frozen=True, slots=True)
class ImportCost:
    """Seconds of whole interpreters, bare and with ``import anyfork``; modules it loads, and those it should not."""

    bare: list[float]
    imported: list[float]
    modules: int
    unwanted: list[str]

    @property
    def seconds(self) -> float:
        """What the import adds: the median of the differences of neighbours."""
        return median(ours - bare for ours, bare in zip(self.imported, self.bare, strict=True))


@dataclass(frozen=True, slots=True)
class ExecCost:
    """Seconds until an exec'ed template is ready, and of ``python -I -c pass``, measured in turn."""

    ready: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        """How many bare interpreters one takes."""
        return median(ours / bare for ours, bare in zip(self.ready, self.bare, strict=True))


def import_cost(count: int) -> ImportCost:
    """Run so many interpreters of both kinds in turn, after one that writes the byte code."""
    answer = subprocess.run([sys.executable, "-c", COUNT_MODULES], check=True, capture_output=True, text=True, cwd=ROOT)
    modules, *unwanted = answer.stdout.split()
    bare, imported = [], []
    for _ in range(count):
        bare.append(_interpreter("pass"))
        imported.append(_interpreter("import anyfork"))
    return ImportCost(bare, imported, int(modules), unwanted)


def _interpreter(code: str) -> float:
    begin = perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"python -c {code!r} failed")
    return perf_counter() - begin


def exec_cost(count: int) -> ExecCost:
    """Measure in an owner whose default template is up. Raises UnavailableError."""
    with Contender("exec", "", "anyfork-exec").launch() as driver:
        driver.answer()
        times: Sequence[float] = driver.ask("exec_ready", count)
    return ExecCost(list(times[::2]), list(times[1::2]))
