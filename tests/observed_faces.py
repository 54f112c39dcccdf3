"""Everything that runs jobs in workers behind one interface, so that one text of a test holds for all of it."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import faces

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    from collections.abc import Iterator

POOLS = ["executor", "pool"]
ALL = [*POOLS, "worker", "aio-worker"]


class Blocking:
    """An Executor or a Worker."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def call(self, function, *args):
        if isinstance(self.made, anyfork.Executor):
            return self.made.submit(function, *args).result()
        return self.made.call(function, *args)

    def call_again(self, function, *args):
        """Call a function that may run again when its worker dies."""
        return self.made.options(idempotent=True).submit(function, *args).result()

    def call_within(self, seconds, function, *args):
        """Call a function that has to end in so many seconds."""
        return self.made.options(timeout=seconds).submit(function, *args).result()

    def map(self, function, items, **options):
        return list(self.made.map(function, items, **options))

    def stats(self):
        return self.made.stats()

    def close(self) -> None:
        self.made.shutdown() if isinstance(self.made, anyfork.Executor) else self.made.close()


class Async:
    """An aio.Pool or an aio.Worker, in the loop of asyncio."""

    def __init__(self, make: Any) -> None:
        self.loop = faces.Loop("asyncio")
        self.made = self.loop.call(make)

    def call(self, function, *args):
        return self.loop.wait(self.made.call, function, *args)

    def call_again(self, function, *args):
        return self.loop.wait(partial(self.made.call, idempotent=True), function, *args)

    def call_within(self, seconds, function, *args):
        return self.loop.wait(partial(self.made.call, timeout=seconds), function, *args)

    def map(self, function, items, **options):
        async def collect():
            return [each async for each in self.made.map(function, items, **options)]

        return self.loop.wait(collect)

    def stats(self):
        return self.loop.call(self.made.stats)

    def close(self) -> None:
        self.loop.wait(self.made.aclose)


@contextlib.contextmanager
def opened(kind: str, **options: Any) -> Iterator[Blocking | Async]:
    """Make an Executor, a Pool or a Worker, and close it at the end."""
    workers = {"max_workers": 1} if kind in POOLS else {}
    make = {
        "executor": lambda: Blocking(anyfork.Executor(**workers, **options)),
        "pool": lambda: Async(lambda: aio.Pool(**workers, **options)),
        "worker": lambda: Blocking(anyfork.Worker(**options)),
        "aio-worker": lambda: Async(lambda: aio.Worker(aio.Template(), **options)),
    }[kind]
    with contextlib.closing(make()) as made:
        yield made
