"""A map of an Executor, whose results a thread waits for."""

from __future__ import annotations

import _thread
from contextlib import contextmanager
from itertools import islice
from time import monotonic

from .._blocking.waiting import warn_in_loop
from .._errors import ArgumentError
from .._pools.jobs import Raised, value_of, write_files
from .._pools.map import MapItems
from .._system.timeouts import one_wait, remaining
from .errors import drop_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.progress import Progress
    from .._pools.jobs import ItemJob
    from .._pools.map import PoolOfMap

    class Dispatching(PoolOfMap, Protocol):
        """The dispatcher, as its maps see it."""

        @property
        def foreign(self) -> bool: ...
        @property
        def refuses(self) -> bool: ...
        def begin_work(self, work: ExecutorMap) -> None: ...
        def check_owner(self, call: str) -> None: ...
        def check_wait(self, call: str) -> None: ...
        def post(self, action: Callable[[], None]) -> None: ...


@contextmanager
def _drop_in_errors() -> Iterator[None]:
    """Raise the error for values that cannot travel as the kind that concurrent.futures knows, as ``submit`` does."""
    try:
        yield
    except ArgumentError as error:
        raise drop_in(error) from error.__cause__


class ExecutorMap(MapItems):
    """The items and results of one map."""

    pool: Dispatching

    def __init__(
        self,
        dispatcher: Dispatching,
        function: Callable[..., Any] | str,
        chunked: bool,
        on_event: Handler | None,
        options: dict[str, Any],
        progress: Progress | None,
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        with _drop_in_errors():
            super().__init__(
                dispatcher, function, options, ordered=ordered, progress=progress, chunked=chunked, on_event=on_event
            )
        self._return_exceptions = return_exceptions
        # The index of the result that the thread of the map waits for, and the lock on which it waits. Only that thread
        # sets this, both in one step: the Executor's thread may look at any moment, without the GIL.
        self._awaited: tuple[int, LockType] | None = None

    def add(self, items: Sequence[Any]) -> list[ItemJob]:
        """Add further items and submit them. Raises ArgumentError, OSError, and the exception that refuses the map."""
        with _drop_in_errors():
            alone = super().add(items)
        for job in alone:
            write_files((job.function, job.kind, job.body))
        self.pool.begin_work(self)
        return alone

    # --- Results ---

    def finish(self, answers: list[tuple[int, call_messages.Message]]) -> None:
        """Decode and store the answers. Runs without any lock, because decoding may run arbitrary code."""
        pool = self.pool
        for index, message in answers:
            try:
                result = value_of(message, pool)
            except BaseException as error:
                result = Raised(error)
            self.settle(index, result)

    def wake(self) -> None:
        """Wake the thread that waits for a result."""
        awaited = self._awaited
        if awaited is not None and awaited[1].locked() and self._has(awaited[0]):
            awaited[1].release()

    def wait(self, index: int, deadline: float | None) -> None:
        """Wait until the item has a result; in an unordered map, until any item has one. Raises TimeoutError."""
        self.pool.check_owner("map")
        warn_in_loop()
        self.pool.check_wait("a result of map()")
        turn = _thread.allocate_lock()
        turn.acquire()
        self._awaited = index, turn
        if self._has(index):  # it came meanwhile: each side writes first, and looks then
            return
        while not turn.acquire(timeout=one_wait(remaining(deadline))) and not self._has(index):
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError

    def _has(self, index: int) -> bool:
        return index in self.results if self.done is None else bool(self.done)

    def take(self, index: int) -> Any:
        """Remove and return the result of an item, or raise or return the error of its call."""
        if self.pool.foreign:
            self.pool.check_owner("map")
        result = self.results.pop(index)
        if type(result) is Raised:
            if self._return_exceptions and isinstance(result.error, Exception):
                return drop_in(result.error)
            try:
                raise drop_in(result.error)
            finally:
                del result
        return result

    def close(self) -> None:
        """Close the map, and let the dispatcher's thread drop the items that have not begun."""
        self.end()
        if not self.pool.foreign:
            self.pool.post(self.withdraw)


def in_chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield the items in lists of this size; the last one may be shorter."""
    while chunk := list(islice(items, size)):
        yield chunk


def results_of(work: ExecutorMap, items: Iterator[Any], count: int, deadline: float | None) -> Iterator[Any]:
    """Yield the results. Collect and submit further items, several at once, as results are taken.

    If the Executor refuses further items, the exception comes after the results of those that it has accepted.
    """
    index, bound, more = 0, count, True
    done = work.done
    some = max(1, count // 4)
    try:
        while index < count or more:
            last = index == count
            if not last and (index not in work.results if done is None else not done):
                work.wait(index, deadline)
            if more and count - index <= bound - some + 1 and (last or not work.pool.refuses):
                ahead = list(islice(items, some))
                more = len(ahead) == some
                if ahead:
                    work.add(ahead)
                    count += len(ahead)
            if last:
                continue
            index += 1
            yield work.take(index - 1 if done is None else done.popleft())
    finally:
        work.close()


def flat(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    """Yield the results in the chunks, keeping no reference to them."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
