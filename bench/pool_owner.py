"""The owner program of a contender of ``pool``: as owner, with a pool whose workers are there."""

from __future__ import annotations

import os
import signal
import sys
from operator import neg
from time import perf_counter

from . import pool_jobs
from .owner import own
from .poolers import IN_FLIGHT, WORKERS, Pooler, checked
from .procfs import memory, offspring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 64  # jobs that a map hands over at a time where it is told to, the same everywhere
BLOCK = 512  # tiny jobs between two looks at the clock
MAP_BLOCK = 8192
LONG, SHORT, SHORTS = 0.2, 0.001, 100  # seconds of a long job, of a short one behind it, and how many of those
MANY_WORKERS = 8
LOADS = {"heavy": ["bench.frames"], "memory": ["bench.frames"], "requests": ["bench.heavy"]}
MANY = ("memory", "requests")
MEGABYTE = 125_000  # numbers of 8 bytes


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind, and what is loaded before."""
    fd, kind, load = sys.argv[1:]
    workers = MANY_WORKERS if load in MANY else WORKERS
    own(fd, lambda: checked(kind, workers, LOADS[load]), lambda pool, name, amount: MEASURES[name](pool, amount))


def tiny(pool: Pooler, seconds: float) -> list[float]:
    """How many tiny jobs, one submission each, and the seconds that they took."""
    return _repeat(lambda: len(pool.run(neg, [(1,)] * BLOCK)), seconds)


def tiny_map(pool: Pooler, seconds: float) -> list[float]:
    """The same by map, as it is without further arguments."""
    return _repeat(lambda: len(pool.map(neg, range(BLOCK), 1)), seconds)


def tiny_chunks(pool: Pooler, seconds: float) -> list[float]:
    """The same by map, in chunks."""
    return _repeat(lambda: len(pool.map(neg, range(MAP_BLOCK), CHUNK)), seconds)


def arrays(pool: Pooler, seconds: float) -> list[float]:
    """How many arrays of 1 MB went to workers and came back, and the seconds that they took."""
    import numpy as np

    array = np.arange(MEGABYTE, dtype=float)
    return _repeat(lambda: len(pool.run(pool_jobs.same, [(array,)] * 8)), seconds)


def jobs_1ms(pool: Pooler, seconds: float) -> list[float]:
    """For how long workers were in jobs of 1 ms, and for how long they could have been."""
    return _use(pool, 0.001, seconds)


def jobs_10ms(pool: Pooler, seconds: float) -> list[float]:
    """The same with jobs of 10 ms."""
    return _use(pool, 0.01, seconds)


def _use(pool: Pooler, job: float, seconds: float) -> list[float]:
    count = max(WORKERS, int(WORKERS * max(seconds, 10 * job) / job))
    begin = perf_counter()
    used = sum(pool.run(pool_jobs.busy, [(job,)] * count))
    return [used, WORKERS * (perf_counter() - begin)]


def behind(pool: Pooler, _: float) -> list[float]:
    """Seconds until short jobs were done that were submitted behind a long one."""
    begin = perf_counter()
    pool.run(pool_jobs.busy, [(LONG,), *[(SHORT,)] * SHORTS])
    return [perf_counter() - begin]


def first(pool: Pooler, _: float) -> list[float]:
    """Seconds from making a pool to the first result that needs numpy and pandas."""
    pool.stop()
    begin = perf_counter()
    pool.start()
    (result,) = pool.run(pool_jobs.heavy, [()])
    taken = perf_counter() - begin
    if result != 3.0:
        raise RuntimeError(f"a wrong result: {result}")
    return [taken]


def replace(pool: Pooler, _: float) -> list[float]:
    """Seconds from the death of a worker to the result of a job that was submitted then, by a new pool if need be."""
    (victim, *_rest) = set(pool.run(pool_jobs.pid, [()] * IN_FLIGHT))
    end = os.pidfd_open(victim)
    os.kill(victim, signal.SIGKILL)
    begin = perf_counter()
    os.close(end)
    while True:
        try:
            pool.run(neg, [(1,)] * WORKERS * 2)
            return [perf_counter() - begin]
        except Exception as error:  # each library has its own; whoever hangs is ended by the driver
            print(f"after the death of a worker: {type(error).__name__}", file=sys.stderr)
            pool.renew()


def idle_memory(pool: Pooler, _: float) -> list[float]:
    """Bytes of all workers and of what serves them, shared pages divided among their users, after a job each."""
    pool.run(pool_jobs.busy, [(0.05,)] * MANY_WORKERS * 2)
    return [float(sum(memory(pid).pss for pid in offspring(os.getpid())))]


def requests(pool: Pooler, count: float) -> list[float]:
    """Serve so many requests; bytes of the program and all that serves it, shared pages divided among their users."""
    if not count:
        pool.run(pool_jobs.busy, [(0.05,)] * MANY_WORKERS * 2)  # so that all workers are there
    pool.run(pool_jobs.request, [(number,) for number in range(int(count))])
    return [float(sum(memory(pid).pss for pid in (os.getpid(), *offspring(os.getpid()))))]


def _repeat(block: Callable[[], int], seconds: float) -> list[float]:
    count = 0
    begin = perf_counter()
    while not count or perf_counter() < begin + seconds:
        count += block()
    return [count, perf_counter() - begin]


MEASURES: dict[str, Callable[[Pooler, float], list[float]]] = {
    "tiny": tiny,
    "map": tiny_map,
    "chunks": tiny_chunks,
    "arrays": arrays,
    "1ms": jobs_1ms,
    "10ms": jobs_10ms,
    "behind": behind,
    "first": first,
    "replace": replace,
    "memory": idle_memory,
    "requests": requests,
}
