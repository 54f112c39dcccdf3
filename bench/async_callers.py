"""The ways to call a function in one worker from an event loop. Each runs in an owner program of its own.

Every measure has a loop of its own and a worker that is there before the time is taken. Where nothing else is said, 64
in flight are 64 tasks that call one after the other.
"""

from __future__ import annotations

from operator import neg
from time import perf_counter

from .async_starters import AsyncStarter
from .callers import until
from .child import die_saying_when


class AioTasks(AsyncStarter):
    """A worker of anyfork, by the async face."""

    async def prepare(self) -> None:
        from anyfork import aio

        self._worker = aio.Worker(aio.Template().preload("bench.child"))
        await self._worker.ready()

    async def one(self) -> None:
        await self._worker.call(neg, 1)

    async def finish(self) -> None:
        await self._worker.aclose()


class Aio(AioTasks):
    """The same with a map of 64 in flight."""

    def in_flight(self, seconds: float) -> list[float]:
        async def count_results() -> list[float]:
            count = 0
            begin = perf_counter()
            async for _ in self._worker.map(neg, until(begin + seconds)):
                count += 1
            return [count, perf_counter() - begin]

        return self._in_loop(count_results)

    def deaths(self, count: float) -> list[float]:
        """As callers.Anyfork.deaths."""
        said: list[float] = []
        died: list[float] = []

        async def die() -> list[float]:
            from anyfork import WorkerDiedError, aio

            async with aio.Template().preload("bench.child", "anyfork") as template:
                for _ in range(int(count)):
                    async with aio.Worker(template.fork(), on_event=said.append) as worker:
                        try:
                            await worker.call(die_saying_when)
                        except WorkerDiedError:
                            died.append(perf_counter())
            return [end - begin for begin, end in zip(said, died, strict=True)]

        return self._in_loop(die)


class AioTrio(Aio):
    """The same under trio."""

    needs = "trio"
    backend = "trio"


class ToProcess(AsyncStarter):
    """AnyIO's own: a worker takes one call at a time, the others wait for it."""

    async def prepare(self) -> None:
        import anyio

        self._limiter = anyio.CapacityLimiter(1)
        await self.one()

    async def one(self) -> None:
        import anyio.to_process

        await anyio.to_process.run_sync(neg, 1, limiter=self._limiter)


class ToProcessTrio(ToProcess):
    """The same under trio."""

    needs = "trio"
    backend = "trio"


KINDS: dict[str, AsyncStarter] = {
    "call-aio": Aio(),
    "call-aio-tasks": AioTasks(),
    "call-aio-trio": AioTrio(),
    "call-to-process": ToProcess(),
    "call-to-process-trio": ToProcessTrio(),
}
