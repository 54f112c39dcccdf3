"""Very many jobs under harm: workers and templates are killed, pools are resized, templates replaced, jobs given up.

The books must balance: every job has exactly one end, none runs twice, one that was cancelled in time never runs, and one
with a result has run. What fails says that a worker or a template has died.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

import anyfork
from anyfork import Executor, Template, Worker, aio

from . import deeds
from .owners import SCENES, kill_owner

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

LOOPS: dict[str, dict[str, Any]] = {
    "pool-asyncio": {"backend": "asyncio"},
    "pool-uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "pool-trio": {"backend": "trio"},
}
WORKERS: dict[str, dict[str, Any]] = {
    "worker-asyncio": {"backend": "asyncio"},
    "worker-trio": {"backend": "trio"},
}
FACES = ("executor", "worker", *LOOPS, *WORKERS)
EVERY = 0.05  # seconds between two strikes
BATCH = 200  # jobs that are on their way at once
PATIENCE = 120.0  # seconds for the end of a job; nothing takes that long unless it is lost
SLOW, SHORT = 0.5, 0.05  # seconds that a job takes of which nobody waits for the end, and how long it is waited for


@dataclass(slots=True)
class Book:
    """What became of the jobs of one load."""

    path: str
    ends: Counter[str] = field(default_factory=Counter)
    results: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)

    def answered(self, number: int, result: object) -> None:
        """Note the result of a job."""
        self.ends["answered"] += 1
        self.results.add(number)
        if result != number:
            self.faults.append(f"job {number} has the result {result!r}")

    def failed(self, number: int, error: BaseException) -> None:
        """Note how else a job has ended."""
        if isinstance(error, CancelledError):
            self.ends["cancelled"] += 1
            self.cancelled.add(number)
        elif isinstance(error, anyfork.CallTimeoutError):
            self.ends["timed out"] += 1
        elif isinstance(error, anyfork.AnyforkError) and not isinstance(error, anyfork.PeerError):
            self.ends[f"failed by {type(error).__name__}"] += 1
        else:
            self.faults.append(f"job {number}: {type(error).__name__}: {error}")

    def close(self, jobs: int) -> None:
        """Compare with what the jobs have written down themselves."""
        text = Path(self.path).read_text() if os.path.exists(self.path) else ""
        runs = Counter(map(int, text.split()))
        twice = [number for number, count in runs.items() if count > 1]
        lost = [number for number in self.results if not runs[number]]
        zombies = [number for number in self.cancelled if runs[number]]
        for what, numbers in (
            ("ran twice", twice),
            ("has a result, but did not run", lost),
            ("ran though cancelled", zombies),
        ):
            if numbers:
                self.faults.append(f"{len(numbers)} jobs: {what}: {sorted(numbers)[:5]}")
        if sum(self.ends.values()) + sum(fault.startswith("job ") for fault in self.faults) < jobs:
            self.faults.append(f"{jobs} jobs have only {sum(self.ends.values())} ends")


class Templates:
    """The template that workers come from; a new one where that was killed."""

    def __init__(self) -> None:
        self.present = self.new()

    def new(self) -> Template:
        """Make a fresh one."""
        return (
            Template().preload(deeds.__name__, "_anyfork_child.worker.loop", "_anyfork_child.worker.job_loop").ready()
        )

    def replace(self) -> Template:
        """Let another one take the place of the present one, which is closed."""
        old, self.present = self.present, self.new()
        old.close()
        return self.present


def kill(pid: int | None) -> bool:
    """Kill a process; False where it has ended already."""
    if not pid:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


# --- Executor -------------------------------------------------------------------------------------------------


def load_executor(book: Book, jobs: int, chance: random.Random, until: float) -> int:
    """Give an Executor jobs while it is harmed; return how many there were."""
    templates, over = Templates(), threading.Event()
    with Executor(templates.present, 2) as executor:
        harming = threading.Thread(target=_harm_executor, args=(executor, templates, chance, over, book))
        harming.start()
        try:
            done = 0
            while done < jobs and time.monotonic() < until:
                done += _batch(executor, book, range(done, min(done + BATCH, jobs)), chance)
        finally:
            over.set()
            harming.join()
    templates.present.close()
    return done


def _harm_executor(
    executor: Executor, templates: Templates, chance: random.Random, over: threading.Event, book: Book
) -> None:
    while not over.wait(EVERY):
        what = chance.choices(("worker", "resize", "replace", "template"), (10, 3, 1, 1))[0]
        book.strikes[what] += 1
        match what:
            case "worker":
                kill(chance.choice(executor.pids or [0]))
            case "resize":
                executor.resize(chance.randint(1, 3))
            case "template":
                kill(templates.present.pid)
        if what in ("template", "replace"):
            old = templates.present
            executor.replace_template(templates.replace(), old)


def _batch(executor: Executor, book: Book, numbers: range, chance: random.Random) -> int:
    futures: dict[int, Future[Any]] = {}
    hasty = executor.options(timeout=SHORT)
    for number in numbers:
        submit, seconds = (hasty.submit, SLOW) if chance.random() < 0.002 else (executor.submit, 0.0)
        futures[number] = _submit(submit, book.path, number, seconds)
        if chance.random() < 0.05:
            chance.choice(list(futures.values())).cancel()
    for number, future in futures.items():
        try:
            book.answered(number, future.result(PATIENCE))
        except (Exception, CancelledError) as error:
            book.failed(number, error)
    return len(futures)


def _submit(submit: Callable[..., Future[Any]], path: str, number: int, seconds: float) -> Future[Any]:
    """Submit a job. Between the death of a template and its replacement nothing may be submitted."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return submit(deeds.note, path, number, seconds)
        except anyfork.AnyforkError as error:
            if time.monotonic() > end:
                failed: Future[Any] = Future()
                failed.set_exception(error)
                return failed
            time.sleep(0.01)


# --- Worker ---------------------------------------------------------------------------------------------------


def load_worker(book: Book, jobs: int, chance: random.Random, until: float) -> int:
    """Call one worker after the other, from two threads, while they are killed; return how many calls there were."""
    templates, lock = Templates(), threading.RLock()
    numbers = iter(range(jobs))
    present = [Worker(templates.present.fork())]
    over = threading.Event()

    def replace(broken: Worker) -> None:
        with lock:
            if present[0] is broken:
                broken.close()
                try:
                    present[0] = Worker(templates.present.ready().fork())
                except anyfork.TemplateError:
                    present[0] = Worker(templates.replace().fork())

    def call() -> None:
        for number in numbers:
            worker = present[0]
            slow = chance.random() < 0.002
            try:
                if slow:
                    book.answered(number, worker.call(deeds.note, book.path, number, SLOW, timeout=SHORT))
                else:
                    book.answered(number, worker.call(deeds.note, book.path, number))
            except Exception as error:
                book.failed(number, error)
                replace(worker)
            if time.monotonic() >= until:
                return

    def harm() -> None:
        while not over.wait(EVERY):
            what = chance.choices(("worker", "template"), (15, 1))[0]
            book.strikes[what] += 1
            kill(present[0].pid if what == "worker" else templates.present.pid)

    harming = threading.Thread(target=harm)
    callers = [threading.Thread(target=call) for _ in range(2)]
    for thread in (harming, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    over.set()
    harming.join()
    present[0].close()
    templates.present.close()
    return sum(book.ends.values())


# --- aio.Pool -------------------------------------------------------------------------------------------------


async def load_pool(book: Book, jobs: int, chance: random.Random, until: float) -> int:
    """Give a pool jobs while it is harmed; return how many there were."""
    numbers = iter(range(jobs))
    template = [await _async_template()]

    async def call(pool: aio.Pool) -> None:
        for number in numbers:
            try:
                await _one(pool, book, number, chance.random())
            except Exception as error:
                book.failed(number, error)
                if isinstance(error, anyfork.TemplateError):
                    await anyio.sleep(0.01)
            if time.monotonic() >= until:
                return

    async def harm(pool: aio.Pool) -> None:
        while True:
            await anyio.sleep(EVERY)
            await _harm_pool(pool, template, chance, book)

    async with aio.Pool(template[0], max_workers=2) as pool, anyio.create_task_group() as group:
        group.start_soon(harm, pool)
        async with anyio.create_task_group() as callers:
            for _ in range(40):
                callers.start_soon(call, pool)
        group.cancel_scope.cancel()
    await template[0].aclose()
    return sum(book.ends.values())


async def _one(pool: aio.Pool | aio.Worker, book: Book, number: int, chance: float) -> None:
    if chance < 0.002:
        book.answered(number, await pool.call(deeds.note, book.path, number, SLOW, timeout=SHORT))
    elif chance < 0.02:
        with anyio.move_on_after(0.001) as scope:
            book.answered(number, await pool.call(deeds.note, book.path, number))
        if scope.cancelled_caught:
            book.ends["given up"] += 1
    else:
        with anyio.fail_after(PATIENCE):
            book.answered(number, await pool.call(deeds.note, book.path, number))


async def _harm_pool(pool: aio.Pool, template: list[aio.Template], chance: random.Random, book: Book) -> None:
    what = chance.choices(("worker", "resize", "replace", "template"), (10, 3, 1, 1))[0]
    book.strikes[what] += 1
    match what:
        case "worker":
            kill(chance.choice(pool.pids or [0]))
        case "resize":
            pool.resize(chance.randint(1, 3))
        case "template":
            kill(template[0].pid)
    if what in ("template", "replace"):
        old, template[0] = template[0], await _async_template()
        pool.replace_template(template[0], old)
        await old.aclose()


async def _async_template() -> aio.Template:
    modules = (deeds.__name__, "_anyfork_child.worker.loop", "_anyfork_child.worker.job_loop")
    return await aio.Template().preload(*modules).ready()


# --- aio.Worker -----------------------------------------------------------------------------------------------


async def load_async_worker(book: Book, jobs: int, chance: random.Random, until: float) -> int:
    """Call one worker after the other, from several tasks, while they are killed; return how many calls there were."""
    numbers, template = iter(range(jobs)), await _async_template()
    present = [aio.Worker(template.fork())]
    lock = anyio.Lock()

    async def replace(broken: aio.Worker) -> None:
        nonlocal template
        async with lock:
            if present[0] is not broken:
                return
            with anyio.CancelScope(shield=True):
                await broken.aclose()
            try:
                present[0] = aio.Worker((await template.ready()).fork())
            except anyfork.TemplateError:
                await template.aclose()
                template = await _async_template()
                present[0] = aio.Worker(template.fork())

    async def call() -> None:
        for number in numbers:
            worker = present[0]
            try:
                await _one(worker, book, number, chance.random())
            except Exception as error:
                book.failed(number, error)
                await replace(worker)
            if time.monotonic() >= until:
                return

    async def harm() -> None:
        while True:
            await anyio.sleep(EVERY)
            what = chance.choices(("worker", "template"), (15, 1))[0]
            book.strikes[what] += 1
            kill(present[0].pid if what == "worker" else template.pid)

    async with anyio.create_task_group() as group:
        group.start_soon(harm)
        async with anyio.create_task_group() as callers:
            for _ in range(4):
                callers.start_soon(call)
        group.cancel_scope.cancel()
    await present[0].aclose()
    await template.aclose()
    return sum(book.ends.values())


# --- The commands ---------------------------------------------------------------------------------------------


def soak(face: str, jobs: int, seed: int, seconds: float = float("inf")) -> Book:
    """Put one face under load; return the books, which name what is wrong."""
    chance, until = random.Random(seed), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        book = Book(os.path.join(folder, "runs"))
        if face == "executor":
            done = load_executor(book, jobs, chance, until)
        elif face == "worker":
            done = load_worker(book, jobs, chance, until)
        elif face in WORKERS:
            done = anyio.run(load_async_worker, book, jobs, chance, until, **WORKERS[face])
        else:
            done = anyio.run(load_pool, book, jobs, chance, until, **LOOPS[face])
        book.close(done)
    return book


def main(options: argparse.Namespace) -> int:
    """Put each face under load, and print the figures."""
    failed = 0
    for face in options.face or FACES:
        began = time.monotonic()
        book = soak(face, options.jobs, options.seed, options.seconds or float("inf"))
        ends = ", ".join(f"{count} {end}" for end, count in sorted(book.ends.items()))
        strikes = ", ".join(f"{what} {count}" for what, count in sorted(book.strikes.items()))
        print(f"load {face}: {ends}; struck: {strikes}; {time.monotonic() - began:.0f} s", flush=True)
        for fault in book.faults[:20]:
            print(f"    FAILED scripts/campaign load --face {face} --seed {options.seed}: {fault}", flush=True)
        failed += len(book.faults)
    return int(failed > 0)


def kill_owners(options: argparse.Namespace) -> int:
    """Kill owners, idle and busy, and look for what is left of them; print the figures."""
    began, counts, left = time.monotonic(), Counter[str](), 0
    chance = random.Random(options.seed)
    for _ in range(options.rounds):
        scene = chance.choice(list(SCENES))
        pause = chance.random() * 0.05
        orphans = kill_owner(scene, pause)
        counts[scene] += 1
        if orphans:
            left += 1
            print(f"    FAILED scripts/campaign owners --seed {options.seed}: {scene} killed after {pause}: {orphans}")
        if options.seconds and time.monotonic() - began > options.seconds:
            break
    text = ", ".join(f"{count} {scene}" for scene, count in sorted(counts.items()))
    print(f"owners: {counts.total()} killed ({text}), {left} left something behind; {time.monotonic() - began:.0f} s")
    return int(left > 0)
