"""The ways to start a process from an event loop. Each runs in an owner program of its own (see async_owner).

Every measure runs in a loop of its own, which is made before the time is taken.
"""

from __future__ import annotations

from time import perf_counter

from .child import nothing
from .starters import TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

IN_FLIGHT = 64
TICK = 0.001  # seconds
MEGABYTE = 1 << 20


class AsyncStarter:
    """One way to start processes, under one kind of loop. ``needs`` is the module that must be installed for it."""

    needs = "anyio"
    backend = "asyncio"
    uvloop = False

    async def prepare(self) -> None:
        """Make what processes are started from."""

    async def one(self) -> None:
        """Create a process whose function returns at once, and wait until its end is reported."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Let go of it."""

    def close(self) -> None:
        """Nothing is held between two measures."""

    def sequential(self, seconds: float) -> list[float]:
        """How many processes were created and ended one after the other, and the seconds that this took."""
        return self._in_loop(lambda: self._one_after_the_other(seconds))

    def in_flight(self, seconds: float) -> list[float]:
        """The same with 64 processes on their way at a time, each in a task; the last one's end included."""

        async def all_of_them() -> list[float]:
            begin = perf_counter()
            counts = await _together(lambda: self._one_after_the_other(seconds), IN_FLIGHT)
            return [sum(count for count, _ in counts), perf_counter() - begin]

        return self._in_loop(all_of_them)

    def many(self, count: float) -> list[float]:
        """The same with so many processes started at once from one task group."""

        async def all_of_them() -> list[float]:
            begin = perf_counter()
            await _together(self.one, int(count))
            return [count, perf_counter() - begin]

        return self._in_loop(all_of_them)

    async def _one_after_the_other(self, seconds: float) -> list[float]:
        count = 0
        begin = perf_counter()
        while not count or perf_counter() < begin + seconds:
            await self.one()
            count += 1
        return [count, perf_counter() - begin]

    def _in_loop(self, measure: Callable[[], Awaitable[list[float]]]) -> list[float]:
        import anyio

        async def main() -> list[float]:
            await self.prepare()
            try:
                return await measure()
            finally:
                await self.finish()

        options: dict[str, Any] = {"use_uvloop": True} if self.uvloop else {}
        return anyio.run(main, backend=self.backend, backend_options=options)


async def _together(work: Callable[[], Awaitable[Any]], count: int) -> list[Any]:
    """Run it so many times at once; the results."""
    import anyio

    results = []

    async def one() -> None:
        results.append(await work())

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return results


class Aio(AsyncStarter):
    """Forks of one template in which the function is loaded."""

    async def prepare(self) -> None:
        from anyfork import aio

        self._template = await aio.Template().preload("bench.child").ready()

    async def one(self) -> None:
        process = await self._template.fork().run(nothing)
        await process.wait()
        await process.aclose()

    async def finish(self) -> None:
        await self._template.aclose()

    def ticker(self, megabytes: float) -> list[float]:
        """By how many seconds a ticker of 1 ms is late at worst, and typically, while so much is sent and received.

        Beside an idle loop's in the same time, which is what the machine does to any program.
        """
        argument = bytes(int(megabytes) * MEGABYTE)

        async def measure() -> list[float]:
            async def send() -> None:
                process = await self._template.fork().send(argument).run(nothing)
                await process.wait()
                await process.aclose()

            begin = perf_counter()
            late = await _ticks_during(send)
            seconds = perf_counter() - begin

            async def idle() -> None:
                import anyio

                await anyio.sleep(seconds)

            return [*late, *await _ticks_during(idle)]

        return self._in_loop(measure)


async def _ticks_during(work: Callable[[], Awaitable[None]]) -> list[float]:
    """The worst and the median delay of a ticker, in seconds, while this runs."""
    import anyio

    late = []

    async def tick() -> None:
        while True:
            begin = perf_counter()
            await anyio.sleep(TICK)
            late.append(perf_counter() - begin - TICK)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await work()
        group.cancel_scope.cancel()
    return [max(late), sorted(late)[len(late) // 2]]


class AioUvloop(Aio):
    """The same under uvloop."""

    needs = "uvloop"
    uvloop = True


class AioTrio(Aio):
    """The same under trio."""

    needs = "trio"
    backend = "trio"


class AsyncioSubprocess(AsyncStarter):
    """A small C program, by asyncio."""

    async def one(self) -> None:
        import asyncio

        process = await asyncio.create_subprocess_exec(TRUE)
        await process.wait()


class TrioRunProcess(AsyncStarter):
    """The same by trio."""

    needs = "trio"
    backend = "trio"

    async def one(self) -> None:
        import trio

        await trio.run_process([TRUE])


class ToProcess(AsyncStarter):
    """A call by AnyIO in a new worker process, each in a loop of its own, which would keep it for the next."""

    async def one(self) -> None:
        import anyio.to_process

        await anyio.to_process.run_sync(nothing, limiter=anyio.CapacityLimiter(1))

    def sequential(self, seconds: float) -> list[float]:
        count = 0
        begin = perf_counter()
        while not count or perf_counter() < begin + seconds:
            self.many(1)
            count += 1
        return [count, perf_counter() - begin]

    def in_flight(self, _seconds: float) -> list[float]:
        return self.many(IN_FLIGHT)


KINDS: dict[str, AsyncStarter] = {
    "aio": Aio(),
    "aio-uvloop": AioUvloop(),
    "aio-trio": AioTrio(),
    "asyncio-subprocess": AsyncioSubprocess(),
    "trio-run-process": TrioRunProcess(),
    "to-process": ToProcess(),
}
