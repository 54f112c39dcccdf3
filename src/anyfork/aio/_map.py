"""The results of a map in a pool, for async programs."""

from __future__ import annotations

from .._processes.arguments import Stays
from .._system.signatures import Generic, Result
from ._worker_channel import write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Self

    from .._pools.map import MapItem, MapJobs
    from .._system.signatures import Items
    from ._pool_loop import PoolLoop


class PoolMap(Stays, Generic[Result]):
    """An async iterator over the results of the calls for many items. ``aclose`` cancels calls that have not begun.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with aio.Pool() as pool:
                async for result in pool.map(abs, [-1, -2]):
                    print(result)

        anyio.run(main)
    """

    _instead = "pass on its results"
    _pool_loop: PoolLoop
    _work: MapJobs
    _later: AsyncIterator[object] | None
    _items: Iterator[object]
    _return_exceptions: bool

    def __init__(self) -> None:
        raise TypeError("results of a map are made by Pool.map, not by PoolMap()")

    @classmethod
    def _of(
        cls,
        pool_loop: PoolLoop,
        work: MapJobs,
        items: Items[object],
        return_exceptions: bool,
    ) -> Self:
        made = cls.__new__(cls)
        made._pool_loop = pool_loop
        made._work = work
        made._later = items.__aiter__() if hasattr(items, "__aiter__") else None
        made._items = iter(items) if made._later is None else iter(())  # type: ignore[arg-type]  # it is one of the two
        made._return_exceptions = return_exceptions
        return made

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        work = self._work
        if self._pool_loop.foreign:
            self._pool_loop.here("map")
        if work.wants_more:
            await self._fill()
        item = work.next()
        if item is None:
            item = await self._wait()
        try:
            return item.result()  # type: ignore[no-any-return]  # what came has any type
        except StopAsyncIteration as error:
            work.close()
            raise RuntimeError("the function of map() raised StopAsyncIteration") from error
        except BaseException as error:
            if self._return_exceptions and isinstance(error, Exception):
                return error  # type: ignore[return-value]  # the result of map() has it too then
            work.close()
            raise

    async def _wait(self) -> MapItem:
        """Wait for the next item that is done, and return it. Raises StopAsyncIteration if there is none."""
        work, loop = self._work, self._pool_loop.here("map")
        while True:
            work.waiting = waiting = loop.waiting()  # first, so that what a signal handler ends from now on is seen
            try:
                if (item := work.next()) is None and not work.empty:
                    await waiting
                    item = work.next()
            finally:
                work.waiting = None
            if item is not None:
                return item
            if work.empty:
                work.close()
                raise StopAsyncIteration

    async def _fill(self) -> None:
        """Collect further items, and submit them together."""
        work, pool_loop = self._work, self._pool_loop
        pool_loop.here("map")
        try:
            await pool_loop.follow()
            if work.empty and not pool_loop.scheduler.has_room:
                await pool_loop.wait_for_room()
            work.begin()
            if self._later is None:
                for message in work.fill(self._items):
                    await write_files(message)
            while self._later is not None and not (work.full or work.exhausted):
                try:
                    item = await self._later.__anext__()
                except StopAsyncIteration:
                    work.exhausted = True
                    break
                needs = work.add(item)
                if needs is not None:
                    await write_files(needs)
            pool_loop.request(work.submit)
        except BaseException:
            work.close()
            raise

    async def aclose(self) -> None:
        """Collect no more items, and cancel the calls that have not begun.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Pool() as pool:
                    results = pool.map(abs, [-1, -2])
                    assert await anext(results) == 1
                    await results.aclose()

            anyio.run(main)
        """
        self._work.close()

    def __del__(self) -> None:
        work = getattr(self, "_work", None)
        if work is not None and not work.closed:
            self._pool_loop.later(work.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
