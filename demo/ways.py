"""The ways to have processes: anyfork, and multiprocessing's forkserver and spawn."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING

import anyfork

from . import heavy

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkServerContext, SpawnContext
    from typing import Self

HEAVY = "demo.heavy"
COLD = [sys.executable, "-m", "demo.report"]


class Way(ABC):
    """One way to start processes that have pandas, and to make pools."""

    name: str

    @abstractmethod
    def run(self, function: Callable[..., None]) -> None:
        """Run a function in a new process, and wait for its end."""

    @abstractmethod
    def time_report(self) -> float:
        """Start the program demo.report; return how many seconds its output took to come."""

    @abstractmethod
    def pool(self, workers: int) -> Executor:
        """Return a pool of so many workers."""

    @abstractmethod
    def pids(self, pool: Executor) -> list[int]:
        """Return the process ids of the pool's workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End what belongs to this way alone."""


class Anyfork(Way):
    """Processes from a template that has loaded pandas."""

    name = "anyfork"

    def __enter__(self) -> Self:
        self._template = anyfork.Template().preload(HEAVY)
        return self

    def run(self, function: Callable[..., None]) -> None:
        with self._template.fork().start(function) as process:
            assert process.wait().code == 0

    def time_report(self) -> float:
        began = time.perf_counter()
        with self._template.fork(stdout=anyfork.CHANNEL).run_module("demo.report") as process:
            return seconds_to_output(began, process.channel.fileno())

    def pool(self, workers: int) -> Executor:
        return anyfork.Executor(self._template, max_workers=workers)

    def pids(self, pool: Executor) -> list[int]:
        assert isinstance(pool, anyfork.Executor)
        return [*pool.pids]

    def close(self) -> None:
        self._template.close()


class Multiprocessing(Way):
    """Processes of a context of multiprocessing."""

    def __init__(self, context: ForkServerContext | SpawnContext) -> None:
        self.name = context.get_start_method()
        self._context = context
        context.set_forkserver_preload([HEAVY])

    def run(self, function: Callable[..., None]) -> None:
        process = self._context.Process(target=function)
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()

    def time_report(self) -> float:
        began = time.perf_counter()
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=heavy.report_to, args=(theirs,))
        process.start()
        theirs.close()
        with ours:
            seconds = seconds_to_output(began, ours.fileno())
        process.join()
        assert process.exitcode == 0
        return seconds

    def pool(self, workers: int) -> Executor:
        return ProcessPoolExecutor(workers, mp_context=self._context)

    def pids(self, pool: Executor) -> list[int]:
        assert isinstance(pool, ProcessPoolExecutor)
        return [] if pool._broken else [*(pool._processes or ())]  # there is no public name for them

    def close(self) -> None:
        """Do nothing: the fork server is the program's, and ends with it."""


def all_ways() -> tuple[Way, ...]:
    """All three of them."""
    forkserver, spawn = multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn")
    return Anyfork(), Multiprocessing(forkserver), Multiprocessing(spawn)


def time_cold_report() -> float:
    """Start the program as from the command line; return how many seconds its output took to come."""
    began = time.perf_counter()
    with subprocess.Popen(COLD, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return seconds_to_output(began, process.stdout.fileno())


def seconds_to_output(began: float, descriptor: int) -> float:
    """Read to the end; return how many seconds after the beginning the first bytes came."""
    assert os.read(descriptor, 1 << 16)
    seconds = time.perf_counter() - began
    while os.read(descriptor, 1 << 16):
        pass
    return seconds
