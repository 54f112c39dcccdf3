"""The benchmark ``soak-pool``: a pool whose workers are killed all the time, and one that does very many tiny jobs."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import neg
from pathlib import Path
from time import perf_counter

import anyio

from anyfork import WorkerDiedError, aio

from .child import work_and_note
from .procfs import descriptors, memory, zombies
from .report import Report, Settings, progress
from .tables import number, table
from .targets import Target, at_least, at_most, targets_data, targets_table

JOBS, QUICK_JOBS = 10_000, 1_000
CALLERS = 64
EVERY = 0.05  # seconds between two kills
TAKES = 0.001  # seconds of a job, so that it is often in the middle of one that a worker is killed
TINY, QUICK_TINY = 1_000_000, 50_000
LOOKS = 10
GROWTH = 1_100_000  # bytes, as in soak
MB = 1_000_000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True)
class Account:
    """What has become of the jobs of a pool whose workers were killed."""

    jobs: int
    results: int
    died: int
    twice: int
    unaccounted: int
    killed: int
    left: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """The owner after so many tiny jobs."""

    jobs: int
    owner_private: int
    owner_descriptors: int
    workers_private: int
    seconds: float


def run(settings: Settings) -> Report:
    """Do both, and fail when a job is not accounted for, or something has grown or stayed."""
    jobs, tiny = (QUICK_JOBS, QUICK_TINY) if settings.quick else (JOBS, TINY)
    account = anyio.run(kill_all_the_time, jobs)
    looks = anyio.run(many_tiny_jobs, tiny)
    found = targets(account, looks[0], looks[-1])
    failed = any(target.met is False for target in found)
    data: dict[str, object] = {
        "account": asdict(account),
        "looks": [asdict(look) for look in looks],
        "targets": targets_data(found),
    }
    return Report([account_table(account), looks_table(looks), targets_table(found)], data, failed)


async def kill_all_the_time(jobs: int) -> Account:
    """Let tasks call one after the other while a random worker is killed again and again."""
    begin, killed = perf_counter(), 0
    results: dict[int, bool] = {}
    numbers = iter(range(jobs))

    async def call_again_and_again(pool: aio.Pool, path: str) -> None:
        for job in numbers:
            try:
                results[job] = await pool.call(work_and_note, path, job, TAKES) == job
            except WorkerDiedError:
                results[job] = False

    async def kill(pool: aio.Pool) -> None:
        nonlocal killed
        while True:
            await anyio.sleep(EVERY)
            if pool.pids:
                with suppress(ProcessLookupError):
                    os.kill(random.choice(pool.pids), signal.SIGKILL)
                    killed += 1
            progress(f"soak-pool: {len(results)} of {jobs} jobs, {killed} workers killed")

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ran"
        async with (
            aio.Template().preload("bench.child") as template,
            aio.Pool(template) as pool,
            anyio.create_task_group() as group,
        ):
            group.start_soon(kill, pool)
            await _all(call_again_and_again, pool, str(path))
            group.cancel_scope.cancel()
        ran = path.read_text().split()
    done = {job for job, well in results.items() if well}
    return Account(
        jobs,
        len(done),
        len(results) - len(done),
        len(ran) - len(set(ran)),
        jobs - len(results) + len(done - set(map(int, ran))),
        killed,
        len(pool.pids) + zombies(os.getpid()),
        perf_counter() - begin,
    )


async def many_tiny_jobs(count: int) -> list[Look]:
    """Half by map, half by calls; look at the owner at intervals, of which the first is the warming up."""
    begin, step = perf_counter(), count // LOOKS
    looks: list[Look] = []
    async with aio.Template().preload("operator") as template, aio.Pool(template, max_workers=2, min_idle=2) as pool:
        while pool.stats().idle < 2:  # both are there at the first look
            await anyio.sleep(EVERY)
        for done in range(step, count + 1, step):
            async for _ in pool.map(neg, range(step // 2)):
                pass
            await _all(_call, pool, step // 2 // CALLERS)
            progress(f"soak-pool: {done} of {count} tiny jobs")
            workers = sum(memory(pid).private for pid in pool.pids)
            owner = os.getpid()
            looks.append(Look(done, memory(owner).private, descriptors(owner), workers, perf_counter() - begin))
    return looks


async def _all(caller: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run so many callers to their end."""
    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(caller, *args)


async def _call(pool: aio.Pool, count: int) -> None:
    for _ in range(count):
        await pool.call(neg, 1)


def targets(account: Account, first: Look, last: Look) -> list[Target]:
    """Nothing is lost, nothing is done twice, nothing grows, nothing stays."""
    grown = last.jobs - first.jobs
    return [
        at_most("jobs that are not accounted for", 0, account.unaccounted),
        at_most("jobs that ran twice", 0, account.twice),
        at_most("jobs lost for each worker that was killed", 1, account.died / max(1, account.killed)),
        at_least("workers killed", 1, account.killed),
        at_most("processes and zombies left", 0, account.left),
        at_most(f"growth of the owner in {grown} tiny jobs, bytes", GROWTH, last.owner_private - first.owner_private),
        at_most("growth of its workers, bytes", GROWTH, last.workers_private - first.workers_private),
        at_most("more descriptors in the owner", 0, last.owner_descriptors - first.owner_descriptors),
    ]


def account_table(account: Account) -> str:
    """One line."""
    heads = ["jobs", "results", "workers\ndied", "ran\ntwice", "not ac-\ncounted for", "killed", "left", "seconds"]
    row = [str(value) for value in asdict(account).values()]
    return table(f"A worker killed every {EVERY * 1000:.0f} ms", heads, [[*row[:-1], number(account.seconds, 1)]])


def looks_table(looks: list[Look]) -> str:
    """One line a look."""
    heads = ["jobs", "owner\nown, MB", "\ndescriptors", "workers\nown, MB", "\nseconds"]
    rows = [
        [
            str(look.jobs),
            number(look.owner_private / MB),
            str(look.owner_descriptors),
            number(look.workers_private / MB),
            number(look.seconds, 1),
        ]
        for look in looks
    ]
    return table("Tiny jobs, half by map and half by calls", heads, rows)
