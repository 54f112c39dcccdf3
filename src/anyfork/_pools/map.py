"""The items of one map in a pool that are in progress, and their results that were not taken yet. Nothing here waits.

Several small items are sent to a worker together, as many as take about a millisecond; each has an answer of its own.
So the items behind a long one are taken back, and when a worker dies, only the item that it was running is lost. An
item that is not small is encoded at once, as a job of its own.
"""

from __future__ import annotations

from collections import deque

from _anyfork_child.wire.call_messages import CHUNKS, ITEMS

from .._calls.known_functions import label_of
from .encoder import simple
from .jobs import BatchJob, ItemJob, UnsentItem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol

    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.durations import JobDuration
    from .._calls.known_functions import KnownFunction
    from .._calls.progress import Progress
    from .encoder import JobEncoder
    from .jobs import AnyJob
    from .scheduler import Scheduler

    class PoolOfMap(Protocol):
        """A pool (_pools.pool), as its maps see it."""

        encoder: JobEncoder
        scheduler: Scheduler
        serializer: Serializer | None
        raised: tuple[type[BaseException], ...]
        memory: int | None
        concurrent: bool
        works: set[MapItems]

        def add(self, job: AnyJob) -> None: ...
        def withdraw_jobs(self, jobs: Iterable[AnyJob], kill: bool = True) -> None: ...


CHECKED_TOGETHER = 256  # items whose size is checked together
OF_ITS_OWN = 1 << 10  # bytes: longer items are sent separately
JOBS_AHEAD = 2  # jobs for each worker, or for each call that a concurrent worker runs


class MapItems:
    """The items of one map. ``items`` are those without an answer, by index; ``results`` are those not yet taken.

    An item is a tuple of arguments, or a chunk: a list of such tuples. ``done`` are the indexes of the results in the
    order in which they came, or None if the results are wanted in the order of the items.
    """

    def __init__(
        self,
        pool: PoolOfMap,
        function: Callable[..., Any] | str,
        options: dict[str, Any],
        *,
        ordered: bool,
        progress: Progress | None,
        chunked: bool = False,
        on_event: Handler | None = None,
    ) -> None:
        self.pool: PoolOfMap = pool
        self.function: KnownFunction = pool.encoder.functions.find_for_many(function)
        self.kind: int = CHUNKS if chunked else ITEMS
        self.on_event = on_event
        self.options = options
        self.label: str = label_of(function)
        self.items: dict[int, Any] = {}
        self.results: dict[int, Any] = {}
        self.done: deque[int] | None = None if ordered else deque()
        self.durations: JobDuration = self.function.duration
        self.waiting: deque[int] = deque()  # items that are in no job yet
        self.encoded: dict[int, ItemJob] = {}  # the jobs of items that are not small
        self.jobs: set[BatchJob | ItemJob] = set()  # submitted and not done
        self.closed = False
        self.count = 0  # items so far
        self._progress = progress
        self._callable = function
        single = pool.concurrent or pool.memory is not None or pool.scheduler.limits.max_calls is not None
        self._most = 1 if single or options["timeout"] is not None else 0

    # --- Items ---

    def add(self, items: Sequence[Any]) -> list[ItemJob]:
        """Add further items, which ``feed`` submits. Return the jobs of those that are not small.

        Raises ArgumentError, and OSError.
        """
        first = self.count
        alone: list[ItemJob] = []
        self.count += len(items)
        for start in range(0, len(items), CHECKED_TOGETHER):
            some = items[start : start + CHECKED_TOGETHER]
            numbers = range(first + start, first + start + len(some))
            self.items.update(zip(numbers, some, strict=True))
            together = self._simple_ones(numbers, some)
            if len(together) < len(some):
                alone += [self._encode(number) for number in numbers if number not in together]
            self.waiting.extend(numbers)
        return alone

    def _simple_ones(self, numbers: range, items: Sequence[Any]) -> range | set[int]:
        if self.pool.serializer is not None:
            return set()
        if simple(items) is not None:
            return numbers
        return {number for number, item in zip(numbers, items, strict=True) if simple(item, OF_ITS_OWN) is not None}

    def _encode(self, number: int) -> ItemJob:
        encoder, item = self.pool.encoder, self.items[number]
        encoded = encoder.encode_item(self.function, self._callable, item, self.kind == CHUNKS)
        self.items[number] = None
        self.encoded[number] = job = ItemJob(self, number, encoded)
        return job

    def feed(self) -> None:
        """Submit jobs for waiting items, as many as workers will soon need, and as there is room for in the queue."""
        pool, waiting = self.pool, self.waiting
        limits = pool.scheduler.limits
        most = JOBS_AHEAD * max(1, limits.max_workers) * (limits.load if limits.concurrent else 1)
        while waiting and len(self.jobs) < most and pool.scheduler.has_room:
            job: BatchJob | ItemJob | None = self.encoded.pop(waiting[0], None)
            if job is not None:
                waiting.popleft()
            else:
                job = BatchJob(self, self._next_items(most))
            self.jobs.add(job)
            pool.add(job)
        if not waiting and not self.jobs:
            pool.works.discard(self)

    def _next_items(self, most: int) -> list[int]:
        """Remove the next small items from the queue, as many as one job should have, and return their indexes."""
        waiting, encoded = self.waiting, self.encoded
        size = self._most or max(1, min(self.durations.items, len(waiting) // most))
        if not encoded:
            return [waiting.popleft() for _ in range(min(size, len(waiting)))]
        found: list[int] = []
        while waiting and len(found) < size and waiting[0] not in encoded:
            found.append(waiting.popleft())
        return found

    def complete(self, indexes: set[int]) -> None:
        """Queue the items that are in no job after an interrupt, and submit jobs for them. ``indexes`` are in jobs."""
        self.waiting.clear()
        self.waiting.extend(sorted(self.items.keys() - indexes))
        self.feed()

    def over(self, job: BatchJob | ItemJob) -> None:
        """Remove a job that is over, and submit further ones."""
        self.jobs.discard(job)
        if isinstance(job, BatchJob) and job.took and not job.left:
            self.durations.saw(job.took, job.size)
        self.feed()

    # --- Results ---

    def finish(self, answers: list[tuple[int, call_messages.Message]]) -> None:
        """Take the answers to items, with their indexes. Each face implements this."""
        raise NotImplementedError

    def wake(self) -> None:
        """Wake the consumer, if it waits for a result that is there now. Each face implements this."""
        raise NotImplementedError

    def settle(self, index: int, result: Any) -> None:
        """Store the result of an item, or a Raised in its place, and wake the consumer if it waits for it."""
        if self.closed:
            return
        if self._progress is not None:
            self._progress.advance(len(result) if self.kind == CHUNKS and type(result) is list else 1)
        self.results[index] = result
        if self.done is not None:
            self.done.append(index)
        self.wake()

    # --- The end ---

    @property
    def unwanted(self) -> bool:
        """True if the map was closed: no more results are wanted."""
        return self.closed

    def fail(self, error: BaseException) -> None:
        """Fail all items that are in no job yet: the map was deferred and cannot begin, or the pool has failed."""
        for item in self.remove_unsent():
            item.fail(error)

    def cancel(self, finished: Any) -> None:
        """Cancel the items that are in no job yet: append them to ``finished``."""
        finished.extend((item, None) for item in self.remove_unsent())
        self.pool.works.discard(self)

    def remove_unsent(self) -> list[ItemJob | UnsentItem]:
        """Remove and return the items that are in no job yet."""
        found: list[ItemJob | UnsentItem] = []
        while self.waiting:
            index = self.waiting.popleft()
            job = self.encoded.pop(index, None)
            if job is None:
                self.items.pop(index, None)
            found.append(job or UnsentItem(self, index))
        return found

    def end(self) -> None:
        """Note that no more results are wanted. ``withdraw`` follows."""
        self.closed = True
        if self._progress is not None:
            self._progress.close()

    def withdraw(self) -> None:
        """Drop the items that have not begun. Runs as a decision of the pool."""
        for job in self.encoded.values():
            job.release()
        self.encoded.clear()
        self.waiting.clear()
        jobs, self.jobs = self.jobs, set()
        self.pool.works.discard(self)
        self.pool.withdraw_jobs(jobs, kill=False)
        self.results.clear()
