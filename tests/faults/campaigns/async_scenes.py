"""The scenes of the async faces, for each event loop. See ``scenes`` for how they are written."""

from __future__ import annotations

import operator
import signal
import time
from typing import TYPE_CHECKING

import anyio

from anyfork import aio
from anyfork._pools.worker_table import STALL

from . import deeds
from .scenes import SECONDS, World, equal, scene

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any, TypeAlias

    Acts: TypeAlias = AsyncIterator[Callable[[], Awaitable[object]]]

LOOPS = ("asyncio", "trio")


def async_scene(name: str, **options: bool) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    """Register a scene for each loop."""

    def register(play: Callable[[World], Any]) -> Callable[[World], Any]:
        for loop in LOOPS:
            scene(loop, name, **options)(play)
        return play

    return register


async def served(world: World) -> aio.Template:
    """Return an async template of its own for a scene, which does what the scene asks for."""
    world.handle = template = aio.Template.from_blocking(world.served())
    return template


async def works(template: aio.Template) -> None:
    """Check that a process can be started from a template, and that its status comes back."""
    with anyio.fail_after(SECONDS):
        async with await template.fork().run(deeds.end_with, 3) as process:
            equal((await process.wait()).code, 3)


async def called(worker: aio.Worker) -> None:
    """Check that a worker answers."""
    equal(await worker.call(operator.neg, 5, timeout=SECONDS), -5)


async def pooled(pool: aio.Pool) -> None:
    """Check that a pool does jobs."""
    with anyio.fail_after(SECONDS):
        equal(await pool.call(operator.neg, 5), -5)


# --- Templates and processes ----------------------------------------------------------------------------------


@async_scene("Template.ready", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:

        async def act() -> None:
            await template.execute("a = 1").ready()

        yield act
        await works(template)


@async_scene("Template.fork", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:

        async def act() -> None:
            template.fork()

        yield act
        await works(template)


@async_scene("Template.run")
async def _(world: World) -> Acts:
    async with await served(world) as template, template.fork() as fork:

        async def act() -> None:
            await (await fork.run(deeds.drain)).aclose()

        yield act
        await works(template)
        await works(fork)


@async_scene("Template.run_program")
async def _(world: World) -> Acts:
    async with await served(world) as template, template.fork() as fork:

        async def act() -> None:
            await (await fork.run_program(["true"])).aclose()

        yield act
        await works(template)
        await works(fork)


@async_scene("Template.detach")
async def _(world: World) -> Acts:
    async with await served(world) as template, template.fork() as fork:

        async def act() -> None:
            (await fork.detach()).close()

        yield act
        await works(template)
        await works(fork)


@async_scene("Template.aclose", endures=False)
async def _(world: World) -> Acts:
    template = await served(world)
    yield template.aclose
    await template.aclose()


@async_scene("Process.ready", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:
        process = template.fork().start(deeds.drain)
        yield process.ready
        await process.ready()
        await process.channel.aclose()
        world.check_end(await process.wait(), 0)
        await process.aclose()


@async_scene("Process.wait", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:
        process = template.fork().start(deeds.end_with, 3)

        async def act() -> None:
            world.check_end(await process.wait(), 3)

        yield act
        world.check_end(await process.wait(), 3)
        assert world.harm or process.poll() == 3
        await process.aclose()


@async_scene("Process.kill", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:
        process = await template.fork().run(deeds.drain)

        async def act() -> None:
            process.kill()

        yield act
        process.kill()
        status = await process.wait()
        if status.signal != signal.SIGKILL:
            world.check_end(status, -signal.SIGKILL)
        await process.aclose()


@async_scene("Process.poll", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:
        process = await template.fork().run(deeds.end_with, 3)

        async def act() -> None:
            process.poll()

        yield act
        world.check_end(await process.wait(), 3)
        assert world.harm or process.poll() == 3
        await process.aclose()


@async_scene("async with Process")
async def _(world: World) -> Acts:
    async with await served(world) as template:
        process = template.fork().start(deeds.drain)

        async def act() -> None:
            async with process:
                pass
            assert world.harm or process.returncode == 0

        yield act
        await process.aclose()
        await works(template)


# --- Workers and pools ----------------------------------------------------------------------------------------


@async_scene("Worker.ready")
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Worker(template.fork()) as worker:
        yield worker.ready
        await called(await worker.ready())


@async_scene("Worker.call")
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Worker(template.fork()) as worker:
        await called(worker)

        async def act() -> None:
            equal(await worker.call(operator.neg, 1), -1)

        yield act
        await called(worker)


@async_scene("Worker.call with a timeout")
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Worker(template.fork()) as worker:

        async def act() -> None:
            equal(await worker.call(operator.neg, 1, timeout=SECONDS), -1)

        yield act
        await called(worker)


@async_scene("Worker.call with large data")
async def _(world: World) -> Acts:
    data = bytes(300_000)
    async with await served(world) as template, aio.Worker(template.fork()) as worker:
        await called(worker)

        async def act() -> None:
            equal(await worker.call(deeds.same, data), data)

        yield act
        await called(worker)


@async_scene("Worker.map")
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Worker(template.fork()) as worker:
        await called(worker)

        async def act() -> None:
            async with worker.map(operator.neg, range(20), window=4) as results:
                equal([result async for result in results], [-n for n in range(20)])

        yield act
        await called(worker)


@async_scene("Worker.stream")
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Worker(template.fork()) as worker:
        await called(worker)

        async def act() -> None:
            async with await worker.stream(deeds.count, 5) as items:
                equal([item async for item in items], [0, 1, 2, 3, 4])

        yield act
        await called(worker)


@async_scene("Worker.aclose")
async def _(world: World) -> Acts:
    async with await served(world) as template:
        worker = await aio.Worker(template.fork()).ready()
        yield worker.aclose
        await worker.aclose()


@async_scene("call", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:

        async def act() -> None:
            equal(await aio.call(operator.neg, 1, template=template), -1)

        yield act
        await act()


@async_scene("Pool()", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:

        async def act() -> None:
            async with aio.Pool(template, max_workers=1) as pool:
                await pooled(pool)

        yield act
        await act()


@async_scene("Pool.call", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Pool(template, max_workers=1) as pool:
        await pooled(pool)

        async def act() -> None:
            equal(await pool.call(operator.neg, 1), -1)

        yield act
        await pooled(pool)


@async_scene("Pool.call with large data", strict=True)
async def _(world: World) -> Acts:
    data = bytes(300_000)
    async with await served(world) as template, aio.Pool(template, max_workers=1) as pool:
        await pooled(pool)

        async def act() -> None:
            equal(await pool.call(deeds.same, data), data)

        yield act
        await pooled(pool)


@async_scene("Pool.map", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Pool(template, max_workers=1) as pool:
        await pooled(pool)

        async def act() -> None:
            async with pool.map(operator.neg, range(20)) as results:
                equal([result async for result in results], [-n for n in range(20)])

        yield act
        await pooled(pool)


@async_scene("Pool.map with a long item", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Pool(template, max_workers=1) as pool:
        await pooled(pool)

        async def act() -> None:  # the items behind the long one are taken back
            async with pool.map(time.sleep, [2 * STALL, 0, 0]) as results:
                equal([result async for result in results], [None] * 3)

        yield act
        await pooled(pool)


@async_scene("Pool.resize", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template, aio.Pool(template, max_workers=1) as pool:
        await pooled(pool)

        async def act() -> None:
            pool.resize(2)
            pool.stats()

        yield act
        await pooled(pool)


@async_scene("Pool.replace_template", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template, template.fork() as other:
        async with aio.Pool(template, max_workers=1) as pool:
            await pooled(pool)

            async def act() -> None:
                pool.replace_template(other)

            yield act
            await pooled(pool)


@async_scene("Pool.aclose", strict=True)
async def _(world: World) -> Acts:
    async with await served(world) as template:
        async with aio.Pool(template, max_workers=1) as pool:
            await pooled(pool)
            yield pool.aclose
            await pool.aclose()
