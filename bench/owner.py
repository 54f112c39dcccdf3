"""The program that owns a contender's processes: it measures a slice whenever the driver asks for one.

Each contender has one of its own, so that sizes, modules and descriptors of one do not weigh on another. Lines on a
socket that nobody else knows: ``measure amount`` in, ``ok number number ...`` or ``unavailable why`` out. They are
plain numbers, because the Perl contender speaks the same, and because loading json would make every owner larger.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections import deque
from time import perf_counter, sleep

from . import starters
from .procfs import available, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from typing import Any

    from .starters import Starter

IN_FLIGHT = 64
SPARE = 1.25  # of an owner's size must be free, or the machine would swap and measure that
PAGE = 4096
PAUSE = 0.02  # seconds between starts that are measured one by one


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind, megabytes, modules to preload."""
    fd, kind, megabytes, *preload = sys.argv[1:]
    ballast = None

    def make() -> Starter[Any]:
        nonlocal ballast
        ballast = fill(int(megabytes) * 1_000_000)
        starter = starters.make(kind, tuple(preload))
        starter.one()
        return starter

    own(fd, make, lambda starter, measure, amount: MEASURES[measure](starter, amount))


def own(fd: str, make: Callable[[], Any], answer: Callable[[Any, str, float], list[float]]) -> None:
    """Make what is measured, say that it is there, or why not, and answer until the driver closes the socket."""
    os.set_inheritable(int(fd), False)
    with open(int(fd), "r+b", buffering=0) as control:
        try:
            made = make()
        except (ImportError, MemoryError) as error:
            control.write(f"unavailable {error}\n".encode())
            return
        serve(control, lambda measure, amount: answer(made, measure, amount))
        made.close()


def serve(control: FileIO, answer: Callable[[str, float], list[float]]) -> None:
    """Say that all is ready, then answer what is asked until the driver closes the socket."""
    control.write(b"ok\n")
    while line := control.readline():
        measure, amount = line.split()
        numbers = answer(measure.decode(), float(amount))
        control.write(f"ok {' '.join(f'{number:.9g}' for number in numbers)}\n".encode())


def fill(size: int) -> mmap.mmap | None:
    """Make this process resident with so many bytes, of touched pages of 4 KiB as a grown heap has them."""
    missing = size - resident()
    if missing <= 0:
        return None
    if available() < missing * SPARE:
        raise MemoryError(f"needs {size // 1_000_000} MB of free memory")
    ballast = mmap.mmap(-1, missing, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ballast.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, missing, PAGE):
        ballast[page] = 1
    return ballast


# --- Measures: a starter and an amount into numbers -------------------------------------------------------------


def first_byte(starter: Any, seconds: float) -> list[float]:
    """Seconds from the call to the first byte, of as many starts as fit into so many seconds."""
    samples: list[float] = []
    deadline = perf_counter() + seconds
    while not samples or perf_counter() < deadline:
        begin = perf_counter()
        process = starter.first_byte()
        samples.append(perf_counter() - begin)
        starter.end(process)
    return samples


def sequential(starter: Starter[Any], seconds: float) -> list[float]:
    """How many processes were created and ended one after the other, and the seconds that this took."""
    count = 0
    begin = perf_counter()
    while not count or perf_counter() < begin + seconds:
        starter.one()
        count += 1
    return [count, perf_counter() - begin]


def in_flight(starter: Starter[Any], seconds: float) -> list[float]:
    """The same with 64 processes on their way at a time; the seconds contain the end of the last one."""
    started: deque[Any] = deque()
    count = 0
    begin = perf_counter()
    while not count or perf_counter() < begin + seconds:
        started.append(starter.start())
        count += 1
        if len(started) == IN_FLIGHT:
            starter.end(started.popleft())
    while started:
        starter.end(started.popleft())
    return [count, perf_counter() - begin]


def many(starter: Starter[Any], count: float) -> list[float]:
    """The same with so many processes started before the first is waited for."""
    begin = perf_counter()
    for process in [starter.start() for _ in range(int(count))]:
        starter.end(process)
    return [count, perf_counter() - begin]


def entered(starter: Any, count: float) -> list[float]:
    """Seconds until the function has been entered, of so many starts with a pause between them."""
    samples = []
    for _ in range(int(count)):
        sleep(PAUSE)
        begin = perf_counter()
        process = starter.entered()
        samples.append(perf_counter() - begin)
        starter.end(process)
    return samples


def exec_ready(starter: Any, count: float) -> list[float]:
    """Seconds until an exec'ed template is ready, and of a bare interpreter, in turn."""
    return starter.ready(int(count))  # type: ignore[no-any-return]  # only one starter has this


MEASURES: dict[str, Callable[[Any, float], list[float]]] = {
    "first_byte": first_byte,
    "sequential": sequential,
    "in_flight": in_flight,
    "many": many,
    "entered": entered,
    "exec_ready": exec_ready,
}
