"""What type checkers say about functions and their arguments. Never run: see test_types.

A line that ends with ``# wrong`` has an error; no other line has one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, assert_type

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    import socket

    from anyio.abc import UNIXSocketStream


def add(a: int, b: int) -> int:
    return a + b


def repeat(text: str, times: int = 2) -> str:
    return text * times


async def add_later(a: int, b: int) -> int:
    return a + b


def count(limit: int) -> Iterator[int]:
    yield from range(limit)


async def count_later(limit: int) -> AsyncIterator[int]:
    yield limit


def work(channel: socket.socket, name: str, size: int) -> None:
    channel.sendall(name.encode() * size)


def work_alone(channel: socket.socket) -> None:
    channel.close()


async def work_later(channel: UNIXSocketStream, name: str) -> None:
    await channel.send(name.encode())


def work_without_channel(name: str) -> None:
    print(name)


# --- Calls ----------------------------------------------------------------------------------------------------------

assert_type(anyfork.call(add, 1, 2), int)
assert_type(anyfork.call(repeat, "x"), str)
assert_type(anyfork.call(repeat, "x", 3, timeout=1), str)
assert_type(anyfork.call(partial(int, base=16), "ff"), int)
anyfork.call("module:function", 1, "x")
anyfork.call(add, 1, "x")  # wrong
anyfork.call(add, 1)  # wrong
anyfork.call(add, 1, 2, 3)  # wrong
anyfork.call(int, "ff", base=16)  # wrong
anyfork.call(add, 1, 2, timeout="x")  # wrong


# --- Templates ------------------------------------------------------------------------------------------------------


def use_templates(template: anyfork.Template) -> None:
    assert_type(template.run(work, "x", 2), anyfork.Process)
    template.send("x").run(work, 2)
    template.send("x", 2).run(work)
    template.start(work_alone)
    template.start(work_later, "x", backend="trio")
    template.start("module:function", "x")
    template.prepare(add, 1, 2)
    template.run(work, 1, 2)  # wrong
    template.run(work, "x", "y")  # wrong
    template.run(work, "x", 2, 3)  # wrong
    template.run(work, "x", 2, timeout="x")  # wrong
    template.start(work, "x")  # wrong
    template.start(work_alone, "x")  # wrong
    template.start(work_later, 1)  # wrong
    template.start(work_without_channel)  # wrong
    template.start(work, name="x")  # wrong
    template.prepare(add, 1, "x")  # wrong
    template.prepare(add, 1, b=2)  # wrong


async def use_async_templates(template: aio.Template) -> None:
    assert_type(await template.run(work, "x", 2), aio.Process)
    await template.run(work_later, "x")
    template.start(work_alone)
    await template.run(work, 1, 2)  # wrong
    template.start(work_later, 1)  # wrong
    template.start(work_without_channel)  # wrong
    await aio.call(add, 1, "x")  # wrong
    assert_type(await aio.call(add, 1, 2), int)


# --- Workers --------------------------------------------------------------------------------------------------------


def use_workers(worker: anyfork.Worker) -> None:
    assert_type(worker.call(add, 1, 2), int)
    assert_type(worker.call(add_later, 1, 2), int)
    assert_type(worker.map(repeat, ["x"]), Iterator[str])
    assert_type(worker.stream(count, 3), anyfork.Stream[int])
    assert_type(worker.stream(count_later, 3), anyfork.Stream[int])
    for number in worker.stream(count, 3):
        assert_type(number, int)
    worker.call("module:function", 1)
    worker.call(add, 1, "x")  # wrong
    worker.call(add_later, 1, "x")  # wrong
    worker.map(repeat, [1])  # wrong
    worker.map(add, [1])  # wrong
    worker.stream(count, "x")  # wrong
    worker.stream(add, 1, 2)  # wrong
    worker.call(add, a=1, b=2)  # wrong


async def use_async_workers(worker: aio.Worker) -> None:
    assert_type(await worker.call(add, 1, 2), int)
    assert_type(await worker.call(add_later, 1, 2), int)
    assert_type(worker.map(repeat, ["x"]), aio.Map[str])
    async for number in await worker.stream(count_later, 3):
        assert_type(number, int)
    async for text in worker.map(repeat, ["x"]):
        assert_type(text, str)
    await worker.call(add, 1, "x")  # wrong
    worker.map(repeat, [1])  # wrong
    await worker.stream(count, "x")  # wrong


# --- Pools ----------------------------------------------------------------------------------------------------------


def use_executors(executor: anyfork.Executor) -> None:
    assert_type(executor.submit(add, 1, 2).result(), int)
    assert_type(executor.submit(add, a=1, b=2).result(), int)
    assert_type(executor.map(repeat, ["x"]), Iterator[str])
    assert_type(executor.map(add, [1], [2], chunksize=2), Iterator[int])
    executor.submit("module:function", 1)
    executor.submit(add, "x")  # wrong
    executor.submit(add, 1, c=2)  # wrong
    executor.map(repeat, [1])  # wrong
    executor.map(add, [1], ["x"])  # wrong
    executor.map(add, [1])  # wrong


async def use_pools(pool: aio.Pool) -> None:
    assert_type(await pool.call(add, 1, 2, priority=1), int)
    assert_type(await pool.call(add_later, 1, 2), int)
    assert_type(pool.map(repeat, ["x"], window=2), aio.PoolMap[str])
    assert_type(pool.map(repeat, ["x"], return_exceptions=True), aio.PoolMap[str | Exception])
    async for text in pool.map(repeat, ["x"]):
        assert_type(text, str)
    await pool.call("module:function", 1)
    await pool.call(add, 1, "x")  # wrong
    await pool.call(add, 1, 2, base=3)  # wrong
    await pool.call(add, 1, 2, priority="x")  # wrong
    pool.map(repeat, [1])  # wrong
    pool.map(add, [1])  # wrong
