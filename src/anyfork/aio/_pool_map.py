"""The results of a map in a pool: the async face."""

from __future__ import annotations

from ._talk import write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from typing import Any, Self

    from .._pool_map import Item, MapWork
    from ._pool import Pool


class PoolMap:
    """The results of the calls for many items, as an async iterator; ``aclose`` cancels those that have not begun."""

    def __init__(
        self, pool: Pool, work: MapWork, items: Iterable[object] | AsyncIterable[object], return_exceptions: bool
    ) -> None:
        self._pool = pool
        self._work = work
        self._later = items.__aiter__() if hasattr(items, "__aiter__") else None
        self._items = iter(items) if self._later is None else iter(())  # type: ignore[arg-type]  # it is one of the two
        self._return_exceptions = return_exceptions

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        work = self._work
        if work.wants_more and not work.exhausted:
            await self._fill()
        item = work.next()
        if item is None:
            item = await self._wait()
        try:
            return item.result()
        except StopAsyncIteration as error:
            work.close()
            raise RuntimeError("the function of map() raised StopAsyncIteration") from error
        except BaseException as error:
            if self._return_exceptions and isinstance(error, Exception):
                return error
            work.close()
            raise

    async def _wait(self) -> Item:
        """The next item, once it is done. Raises StopAsyncIteration where there is none."""
        work, loop = self._work, self._pool._here("map")
        while (item := work.next()) is None:
            if work.empty:
                work.close()
                raise StopAsyncIteration
            work.waiting = waiting = loop.waiting()
            try:
                await waiting
            finally:
                work.waiting = None
        return item

    async def _fill(self) -> None:
        """Ask for further items, all in one go."""
        work, pool = self._work, self._pool
        pool._check("map")
        try:
            if work.empty and not pool.scheduler.has_room:
                await pool.wait_for_room()
            if self._later is None:
                for message in work.fill(self._items):
                    await write_files(message)
            while self._later is not None and work.room > 0 and not work.exhausted:
                try:
                    item = await self._later.__anext__()
                except StopAsyncIteration:
                    work.exhausted = True
                    break
                needs = work.add(item)
                if needs is not None:
                    await write_files(needs)
        except BaseException:
            work.close()
            raise
        work.submit()
        pool.decide()

    async def aclose(self) -> None:
        """Ask for nothing more, and cancel what has not begun."""
        self._work.close()

    def __del__(self) -> None:
        work = getattr(self, "_work", None)
        if work is not None and not work.closed:
            self._pool.later(work.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
