"""What the tests of pools need beside a pool: calls that go on meanwhile, and ways to hold jobs and to wait for them."""

from __future__ import annotations

import os

import anyio
import pytest
from deadlines import DEADLINE


class Gate:
    """A pipe that jobs wait at; ``open`` lets so many go on, and closing it all."""

    def __init__(self) -> None:
        read, write = os.pipe()
        self.file = os.fdopen(read, "rb", buffering=0)
        self._write: int | None = write

    def open(self, count: int = 1) -> None:
        assert self._write is not None
        os.write(self._write, b"x" * count)

    def close(self) -> None:
        self.file.close()
        if self._write is not None:
            os.close(self._write)
            self._write = None


class Seen:
    """What jobs have said, as an on_event, and a way to wait for it."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def __call__(self, value: object) -> None:
        self.values.append(value)

    async def wait(self, count: int) -> list[object]:
        await until(lambda: len(self.values) >= count, lambda: f"{len(self.values)} of {count} events came")
        return self.values[:count]


async def until(condition, what=lambda: "it did not happen") -> None:
    """Let other tasks go on until something holds, which they bring about."""
    with anyio.move_on_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.001)
        return
    pytest.fail(what())


class Asked:
    """What becomes of a call that goes on beside the test."""

    def __init__(self) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()

    async def _run(self, call, args, options) -> None:
        with self.scope:
            try:
                self.result = await call(*args, **options)
            except Exception as error:
                self.error = error
        self.done.set()

    async def outcome(self) -> object:
        """Return the result, or what was raised."""
        with anyio.fail_after(DEADLINE):
            await self.done.wait()
        return self.result if self.error is None else self.error


async def ask_in_turn(tasks, pool, count, *args, **options) -> list[Asked]:
    """Let so many calls of a pool go on beside the test, each begun when the one before it is in the pool."""
    asked = []
    before = pool.stats().submitted
    for _ in range(count):
        asked.append(ask(tasks, pool.call, *args, **options))
        await until(lambda: pool.stats().submitted == before + len(asked))
    return asked


def ask(tasks, call, *args, **options) -> Asked:
    """Let a call go on beside the test."""
    asked = Asked()
    tasks.start_soon(asked._run, call, args, options)
    return asked
