"""The results of a map in a pool, for async programs."""

from __future__ import annotations

from itertools import islice

from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import FDS
from _anyfork_child.wire.channel import close_all

from .._pools.jobs import Raised, value_of
from .._pools.map import MapItems
from .._processes.arguments import Stays
from .._system.signatures import Generic, Result
from ._waiting import OneTask
from ._worker_channel import write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any, Self

    from _anyfork_child.wire import call_messages

    from .._calls.progress import Progress
    from .._system.signatures import Items
    from ._loop import FutureLike
    from ._pool_loop import PoolLoop


WINDOW = 128  # items in progress for each call that workers may have at once


class AsyncMapItems(MapItems):
    """The items and results of one map, of which at most ``window`` are in progress.

    Results are decoded when the consumer takes them, because decoding runs arbitrary code.
    """

    pool: PoolLoop

    def __init__(
        self,
        pool: PoolLoop,
        function: Callable[..., Any] | str,
        options: dict[str, Any],
        *,
        ordered: bool,
        progress: Progress | None,
        window: int,
    ) -> None:
        super().__init__(pool, function, options, ordered=ordered, progress=progress)
        self.waiter: FutureLike | None = None  # gets a result when there may be a result for the consumer
        self.exhausted = False  # there are no more items
        self._window = window
        self._taken = 0  # results that the consumer has taken

    @property
    def empty(self) -> bool:
        """True if no item is in progress."""
        return self._taken == self.count

    @property
    def room(self) -> int:
        """The number of items to collect now. If the pool refuses them, the first one is enough for the error."""
        return 1 if self.pool.refuses else self._window - (self.count - self._taken)

    @property
    def wants_more(self) -> bool:
        """True if it is time to get further items. Many are fetched at once, when half of the window is free.

        A pool that was closed refuses them. That error waits until the results in progress have been taken.
        """
        if self.exhausted or 2 * (self.count - self._taken) > self._window:
            return False
        return self.empty or (self.pool.scheduler.has_room and not self.pool.refuses)

    def begin(self) -> None:
        """Submit the added items. Runs as a decision of the pool."""
        if not self.closed:
            self.pool.works.add(self)
            self.feed()

    def finish(self, answers: list[tuple[int, call_messages.Message]]) -> None:
        """Keep the answers. After an interrupt, this may be called again with the same answers."""
        if self.closed:
            while answers:
                close_all(answers.pop()[1][FDS])
        elif self.done is None:
            self.results.update(answers)
        else:
            for index, message in answers:
                self._keep(index, message)
        if self._progress is not None:
            self._progress.advance(len(answers))
        self.wake()

    def _keep(self, index: int, result: Any) -> None:
        assert self.done is not None
        known = index in self.results
        self.results[index] = result
        if not known or index not in self.done:
            self.done.append(index)

    def settle(self, index: int, result: Any) -> None:
        """Do the same as ``MapItems.settle``, also if an interrupt has stopped the same call before."""
        if index not in self.results:
            super().settle(index, result)
            return
        if self.done is not None:
            self._keep(index, result)
        self.wake()

    def wake(self) -> None:
        """Wake the task that waits for a result, if it is there."""
        waiter = self.waiter
        if waiter is not None and not waiter.done() and (self.done or self._taken in self.results):
            waiter.set_result(None)

    def next(self) -> Any:
        """Remove and return the next result for the consumer, which is to be decoded; None if it is not there yet."""
        if self.pool.finished:  # an interrupt has stopped their delivery
            self.pool.deliver()
        if self.done is None:
            found = self.results.pop(self._taken, None)
        else:
            found = self.results.pop(self.done.popleft()) if self.done else None
        self._taken += found is not None
        return found

    def close(self) -> None:
        """End the map: cancel the items that have not begun, and ignore the answers to all others."""
        if self.closed:
            return
        self.exhausted = True
        self.end()
        for result in self.results.values():
            if not isinstance(result, Raised):
                close_all(result[FDS])
        self.results.clear()
        self.pool.request(self.withdraw)


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
    _work: AsyncMapItems
    _later: AsyncIterator[object] | None
    _items: Iterator[object]
    _return_exceptions: bool
    _turn: OneTask

    def __init__(self) -> None:
        raise TypeError("results of a map are made by Pool.map, not by PoolMap()")

    @classmethod
    def _of(
        cls,
        pool_loop: PoolLoop,
        work: AsyncMapItems,
        items: Items[object],
        return_exceptions: bool,
    ) -> Self:
        made = cls.__new__(cls)
        made._pool_loop = pool_loop
        made._work = work
        made._later = items.__aiter__() if hasattr(items, "__aiter__") else None
        made._items = iter(items) if made._later is None else iter(())  # type: ignore[arg-type]  # it is one of the two
        made._return_exceptions = return_exceptions
        made._turn = OneTask()
        return made

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        work = self._work
        if self._pool_loop.foreign:
            self._pool_loop.check_owner("map")
        self._turn.check()
        if work.wants_more:
            with self._turn:
                await self._fill()
        result = work.next()
        if result is None:
            with self._turn:
                result = await self._wait()
        try:
            if type(result) is Raised:
                raise result.error
            return value_of(result, self._pool_loop)  # type: ignore[no-any-return]  # what came has any type
        except StopAsyncIteration as error:
            work.close()
            raise RuntimeError("the function of map() raised StopAsyncIteration") from error
        except BaseException as error:
            if self._return_exceptions and isinstance(error, Exception):
                return error  # type: ignore[return-value]  # the result of map() has it too then
            work.close()
            raise
        finally:
            del result

    async def _wait(self) -> Any:
        """Wait for the next result, and return it. Raises StopAsyncIteration if there is none."""
        work, loop = self._work, self._pool_loop.find_loop("map")
        assert loop is not None  # since the call of ``map``
        while True:
            work.waiter = waiter = loop.waiting()  # first, so that what a signal handler ends from now on is seen
            try:
                if (result := work.next()) is None and not (work.empty or work.closed):
                    await waiter
                    result = work.next()
            finally:
                work.waiter = None
            if result is not None:
                return result
            if work.empty or work.closed:
                work.close()
                raise StopAsyncIteration

    async def _fill(self) -> None:
        """Collect further items, and submit them together."""
        work, pool_loop = self._work, self._pool_loop
        pool_loop.find_loop("map")
        try:
            refused = pool_loop.refuses
            if not refused:
                await pool_loop.follow()
                if work.empty and not pool_loop.scheduler.has_room:
                    await pool_loop.wait_for_room()
            if found := await self._collect():
                for job in work.add(found):
                    if isinstance(job.body, Message):
                        await write_files(job.body)
                if refused or pool_loop.scheduler.finished:  # a closing pool does what was begun before
                    pool_loop.here("map")
                pool_loop.request(work.begin)
        except BaseException:
            work.close()
            raise

    async def _collect(self) -> list[tuple[object]]:
        """Return further items, as arguments of calls."""
        work = self._work
        if self._later is None:
            room = work.room
            found = [(item,) for item in islice(self._items, room)]
            work.exhausted = len(found) < room
            return found
        found = []
        while len(found) < work.room:
            try:
                found.append((await self._later.__anext__(),))
            except StopAsyncIteration:
                work.exhausted = True
                break
        return found

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
