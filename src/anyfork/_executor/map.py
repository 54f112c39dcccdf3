"""A map of an Executor: its items in progress, and its results that were not taken yet.

Several small items are sent to a worker together, as many as take about a millisecond; each has an answer of its own.
An item that is not small is encoded at once, as a job of its own.
"""

from __future__ import annotations

import _thread
from collections import deque
from concurrent.futures import CancelledError
from itertools import islice
from time import monotonic

from _anyfork_child.values.scalars import load_plain
from _anyfork_child.wire.call_messages import BODY, CHUNKS, ITEMS

from .._blocking.waiting import warn_in_loop
from .._calls.labels import label_of
from .._pools.encoder import simple
from .._system import this_process
from .._system.timeouts import one_wait, remaining
from .errors import drop_in
from .jobs import BatchJob, EncodedJob, Raised, UnsentItem, plain, value_of, write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    from _anyfork_child.wire import call_messages

    from .._calls.call import Handler
    from .._calls.durations import JobDuration
    from .._calls.known_functions import KnownFunction
    from .._calls.progress import Progress
    from .._pools.calls import PoolJob
    from .._pools.encoder import JobEncoder
    from .._pools.records import WorkerRecord
    from .._pools.scheduler import Scheduler
    from .jobs import AnyJob

    class Dispatching(Protocol):
        """The dispatcher, as its maps see it."""

        encoder: JobEncoder
        scheduler: Scheduler
        works: set[ExecutorMap]
        open: dict[AnyJob, None]

        @property
        def in_single_file(self) -> bool: ...
        @property
        def owner(self) -> int: ...
        def begin_work(self, work: ExecutorMap) -> None: ...
        def add(self, job: AnyJob) -> None: ...
        def check_owner(self, call: str) -> None: ...
        def check_wait(self, call: str) -> None: ...
        def post(self, action: Callable[[], None]) -> None: ...
        def take_back(self, worker: WorkerRecord) -> None: ...
        def withdraw(self, *jobs: PoolJob, kill: bool = True) -> bool: ...


TOGETHER = 256  # items whose size is checked together
OF_ITS_OWN = 1 << 10  # bytes: longer items are sent separately
JOBS_AHEAD = 2  # jobs for each worker


class ExecutorMap:
    """The state of one map. ``items`` are those without a result, by index; ``results`` are those not yet taken."""

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
        self.dispatcher = dispatcher
        self.function: KnownFunction = dispatcher.encoder.functions.find_for_many(function)
        self.kind: int = CHUNKS if chunked else ITEMS
        self.on_event = on_event
        self.options = options
        self.label: str = label_of(function)
        self.items: dict[int, Any] = {}
        self.results: dict[int, Any] = {}
        self.done: deque[int] | None = None if ordered else deque()  # the indexes of ``results``, as they came
        self.durations: JobDuration = self.function.duration
        self.waiting: deque[int] = deque()  # items that are in no job yet
        self.encoded: dict[int, ItemJob] = {}  # the jobs of items that are not small
        self.jobs: set[BatchJob | ItemJob] = set()  # submitted and not done
        self.closed = False
        self._progress = progress
        self._return_exceptions = return_exceptions
        self._callable = function
        self._count = 0
        # The index of the result that the thread of the map waits for, and the lock on which it waits. Only that thread
        # sets this, both in one step: the Executor's thread may look at any moment, without the GIL.
        self._awaited: tuple[int, LockType] | None = None
        limited = dispatcher.in_single_file or dispatcher.scheduler.limits.max_calls is not None
        self._most = 1 if limited or options["timeout"] is not None else 0

    # --- Items ---

    def add(self, items: Sequence[Any]) -> None:
        """Add further items and submit them. Each is a tuple of arguments, or a chunk: a list of such tuples."""
        first = self._count
        self._count += len(items)
        for start in range(0, len(items), TOGETHER):
            some = items[start : start + TOGETHER]
            numbers = range(first + start, first + start + len(some))
            self.items.update(zip(numbers, some, strict=True))
            together = self._simple_ones(numbers, some)
            if len(together) < len(some):
                self.encoded.update((number, self._alone(number)) for number in numbers if number not in together)
            self.waiting.extend(numbers)
        self.dispatcher.begin_work(self)

    def _simple_ones(self, numbers: range, items: Sequence[Any]) -> range | set[int]:
        if simple(items) is not None:
            return numbers
        return {number for number, item in zip(numbers, items, strict=True) if simple(item, OF_ITS_OWN) is not None}

    def _alone(self, number: int) -> ItemJob:
        encoded = self.dispatcher.encoder.encode_item(
            self.function, self._callable, self.items[number], self.kind == CHUNKS
        )
        self.items[number] = None
        write_files(encoded)
        return ItemJob(self, number, encoded)

    def _submit(self, job: BatchJob | ItemJob) -> None:
        self.jobs.add(job)
        self.dispatcher.add(job)

    def feed(self) -> None:
        """Submit jobs for waiting items, as many as workers will soon need. The caller holds the dispatcher's lock."""
        most = JOBS_AHEAD * max(1, self.dispatcher.scheduler.limits.max_workers)
        waiting = self.waiting
        while waiting and len(self.jobs) < most:
            job = self.encoded.pop(waiting[0], None)
            if job is not None:
                waiting.popleft()
            self._submit(job or BatchJob(self, self._next_items(most)))
        if not waiting and not self.jobs:
            self.dispatcher.works.discard(self)

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

    def wait_for_jobs(self, indexes: list[int]) -> None:
        """Queue exactly these items, which are in no job, and submit jobs for them."""
        self.waiting.clear()
        self.waiting.extend(indexes)
        self.feed()

    def over(self, job: BatchJob | ItemJob) -> None:
        """Remove a job that has all its answers, and submit further ones. The caller holds the dispatcher's lock."""
        self.jobs.discard(job)
        if isinstance(job, BatchJob) and job.took:
            self.durations.saw(job.took, job.size)
        self.feed()

    # --- Results ---

    def finish(self, answered: tuple[int, call_messages.Message]) -> None:
        """Decode and store the answer to an item. Runs without any lock, because decoding may run arbitrary code."""
        index, message = answered
        try:
            result = load_plain(message[BODY]) if plain(message) else value_of(message)
        except BaseException as error:
            result = Raised(error)
        self.settle(index, result)

    def settle(self, index: int, result: Any) -> None:
        """Store the result of an item, or a Raised in its place, and wake the thread that waits for it."""
        if self.closed:
            return
        if self._progress is not None:
            self._progress.advance(len(result) if self.kind == CHUNKS and type(result) is list else 1)
        self.results[index] = result
        if self.done is not None:
            self.done.append(index)
        awaited = self._awaited
        if awaited is not None and (awaited[0] == index or self.done is not None) and awaited[1].locked():
            awaited[1].release()

    def wait(self, index: int, deadline: float | None) -> None:
        """Wait until the item has a result; in an unordered map, until any item has one. Raises TimeoutError."""
        self.dispatcher.check_owner("map")
        warn_in_loop()
        self.dispatcher.check_wait("a result of map()")
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
        if self.dispatcher.owner != this_process.pid:
            self.dispatcher.check_owner("map")
        result = self.results.pop(index)
        if type(result) is Raised:
            if self._return_exceptions and isinstance(result.error, Exception):
                return drop_in(result.error)
            try:
                raise drop_in(result.error)
            finally:
                del result
        return result

    @property
    def unwanted(self) -> bool:
        """True if the map was closed: no more results are wanted."""
        return self.closed

    def fail(self, error: BaseException) -> None:
        """Fail all items that are in no job yet, because the map was deferred and cannot begin."""
        while self.waiting:
            index = self.waiting.popleft()
            job = self.encoded.pop(index, None)
            if job is None:
                self.items.pop(index, None)
            (job or UnsentItem(self, index)).fail(error)

    def close(self) -> None:
        """Close the map, and let the dispatcher's thread drop the items that have not begun."""
        self.closed = True
        if self._progress is not None:
            self._progress.close()
        if self.dispatcher.owner != this_process.pid:
            return
        self.dispatcher.post(self._withdraw)

    def cancel(self, finished: list[tuple[Any, Any]]) -> None:
        """Cancel the items that are in no job yet. The caller holds the dispatcher's lock."""
        while self.waiting:
            index = self.waiting.popleft()
            job = self.encoded.pop(index, None)
            if job is None:
                self.items.pop(index, None)
            finished.append((job or UnsentItem(self, index), None))
        self.dispatcher.works.discard(self)

    def _withdraw(self) -> None:
        for job in self.encoded.values():
            job.release()
        self.encoded.clear()
        self.waiting.clear()
        for worker in {one.worker for one in self.jobs if one.worker is not None}:
            self.dispatcher.take_back(worker)  # which may add parts of jobs
        jobs, self.jobs = self.jobs, set()
        for one in jobs:
            self.dispatcher.open.pop(one, None)
        self.dispatcher.withdraw(*jobs, kill=False)  # type: ignore[arg-type]  # jobs of ours
        self.dispatcher.works.discard(self)
        self.results.clear()


def in_chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield the items in lists of this size; the last one may be shorter."""
    while chunk := list(islice(items, size)):
        yield chunk


def results_of(work: ExecutorMap, items: Iterator[Any], count: int, deadline: float | None) -> Iterator[Any]:
    """Yield the results. Collect and submit further items, several at once, as results are taken."""
    index, bound, more = 0, count, True
    done = work.done
    some = max(1, count // 4)
    try:
        while index < count:
            if index not in work.results if done is None else not done:
                work.wait(index, deadline)
            if more and count - index <= bound - some + 1:
                ahead = list(islice(items, some))
                more = len(ahead) == some
                if ahead:
                    work.add(ahead)
                    count += len(ahead)
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


class ItemJob(EncodedJob):
    """A job of a single item of a map."""

    __slots__ = ("_index", "work")

    def __init__(self, work: ExecutorMap, index: int, encoded: Any) -> None:
        super().__init__(encoded, on_event=work.on_event, **work.options)
        self.label = work.label
        self.work = work
        self._index = index

    def cancel(self) -> None:
        """Deliver CancelledError: the job will not run."""
        self.fail(CancelledError())

    def open(self) -> tuple[int]:
        """Return the index of the item, as a tuple."""
        return (self._index,)

    def settle(self, error: BaseException | None, value: Any) -> None:
        """Store the result or the error in the map."""
        self.work.items.pop(self._index, None)
        self.work.settle(self._index, value if error is None else Raised(error))
