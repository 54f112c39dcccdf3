"""The calls of one map in a pool. Small items go together in jobs that take about PER_JOB seconds each.

Nothing here waits. A job of a map has several items, which a worker runs one after the other. Each item has an answer
of its own. So when a worker dies, the pool knows of each item whether it was done, may have run, or has not begun.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat

from .._calls.call import DONE, Answer, State
from .._calls.labels import label_of
from .._calls.map import is_short
from .._errors import PeerError, WorkerDiedError
from .._system.locks import in_one_go
from .calls import PoolJob
from .records import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from _anyfork_child.values.message import Message
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._calls.known_functions import KnownFunction
    from .._calls.progress import Progress
    from .calls import WorkerQueue
    from .pool import PoolHandle

    class FutureLike(Protocol):
        """A future that the consumer of a map waits for."""

        def done(self) -> bool: ...
        def set_result(self, result: None, /) -> None: ...


PER_JOB = 0.002  # seconds for the items of one job: with less, workers wait more; with more, the end is uneven
MOST = 64  # items of a job at most
SENT = State.SENT


class MapItem(Answer):
    """An item of a map, and the answer to it."""

    __slots__ = ("job", "value")
    ahead = 1

    def __init__(self, value: Any) -> None:
        self.state = SENT
        self.error: BaseException | None = None
        self._answer: call_messages.Message | None = None
        self.wake = None
        self.value = value
        self.job: ItemsJob

    @property
    def _serializer(self) -> Serializer | None:  # type: ignore[override]  # read only
        return self.job.pool.serializer

    def finish(self, answer: call_messages.Message | None, error: BaseException | None = None) -> None:
        """Note the answer. If the worker has ended instead, leave the decision about the job to the scheduler."""
        if error is not None:
            return
        self._answer = answer
        self.settle()

    def settle(self) -> None:
        """Complete the item, whose answer or error is known, and the job with its last item."""
        wanted, job = self.state is SENT, self.job
        if wanted:
            job.work.line_up(self)  # before it is done: an interrupt in between is noticed, see MapJobs.recover
        self.state = DONE
        self.value = None
        job.left -= 1
        if not job.left:
            job.answered()
        if wanted:
            job.work.came(self)
        else:
            self.drop()


class ItemsJob(PoolJob):
    """A job for several small items of a map, or for one item that was encoded separately."""

    __slots__ = ("began", "error", "items", "left", "work")

    def __init__(
        self,
        work: MapJobs,
        items: list[MapItem],
        function: KnownFunction,
        body: bytes | Message | None,
        state: JobState = JobState.NEW,
    ) -> None:
        priority, timeout, idempotent = work.options
        super().__init__(work.pool, function, body, None, priority, timeout, idempotent, len(items))
        self.label = work.label
        self.work = work
        self.items = items
        self.left = len(items)
        self.began = 0.0  # when it was sent
        self.error: BaseException | None = None  # with which it fails
        self.state = state
        in_one_go(map(setattr, items, repeat("job"), repeat(self)), map(work.jobs.add, (self,)))

    @property
    def answers(self) -> int:
        """The number of items that have an answer."""
        return self.size - self.left

    def send(self, calls: WorkerQueue) -> None:
        """Begin the items that have no answer yet."""
        self.began = self.pool.now()
        items = self._open()
        if self.body is None:
            calls.begin_items(items, self.function, [item.value for item in items])
            self.measure(calls)
        else:
            self.begin(calls, items[0])

    def numbers(self, _: int) -> list[int]:
        """Return the numbers of the job's calls that its worker has not answered yet."""
        return [item.number for item in self._open()]

    def _open(self) -> list[MapItem]:
        return [item for item in self.items if item.state is not DONE and item.job is self]

    def answered(self) -> None:
        """Complete the job, of which all items have answers, and learn how long an item took."""
        assert self.worker is not None
        pooled_worker, now = self.worker.pooled_worker, self.pool.now()
        self.work.learn((now - max(self.began, pooled_worker.last)) / self.size)
        pooled_worker.last = now
        self.items = []  # breaks the cycle with this job: all are freed at once
        self.release()
        self.work.jobs.discard(self)
        self.pool.answered(self)

    def fail(self, error: BaseException) -> None:
        """Fail the items that have no answer with this error.

        When a plain worker has died, only the first of them fails: the others have not begun, and become another job.
        """
        rest = self.fail_items(error)
        if rest is not None:
            self.pool.scheduler.put_back([rest], of_failed=True)

    def fail_items(self, error: BaseException) -> ItemsJob | None:
        """Do what ``fail`` does, and return the other job. If an interrupt stops this, a second call does the rest."""
        self.error = error
        items, rest, work = self._open(), None, self.work
        if len(items) > 1 and isinstance(error, WorkerDiedError | PeerError) and error.may_have_run:
            rest = ItemsJob(work, items[1:], self.function, None, JobState.QUEUED)
        for item in items if rest is None else items[:1]:
            item.error = item.error or error
            work.line_up(item)
            item.state = DONE
            work.came(item)
        self.release()
        self.items = []
        work.jobs.discard(self)
        return rest

    def give_up(self, calls: WorkerQueue) -> None:
        """Give up the calls of the job: no caller waits for their answers any more."""
        for item in self._open():
            calls.give_up(item)


class MapJobs:
    """The items of one map that are under way.

    ``ahead`` holds the items that the consumer has not taken yet: in their order, or in the order in which they are
    done. ``waiting`` gets a result when ``next`` has an item for the consumer.
    """

    def __init__(
        self,
        pool: PoolHandle,
        function: Callable[..., Any] | str,
        window: int,
        ordered: bool,
        progress: Progress | None,
        options: tuple[float, float | None, bool],
    ) -> None:
        self.pool = pool
        self.options = options
        self.label: str = label_of(function)
        self.jobs: set[ItemsJob] = set()  # jobs that are not done
        self.waiting: FutureLike | None = None
        self.exhausted = False  # there are no more items
        self.closed = False
        self._callable = function
        self._function: KnownFunction = pool.encoder.functions.find_for_many(function)
        self._window = window
        self._ordered = ordered
        self._progress = progress
        self._ahead: deque[MapItem] = deque()
        self._under_way = 0  # items that the consumer has not taken yet
        self._batch: list[MapItem] = []
        self._made: list[ItemsJob] = []
        self._alone = options[1] is not None or pool.concurrent or pool.memory is not None
        self._size = 1  # items of the next job
        self._most_jobs: float = 0  # jobs that may be submitted now
        limit = pool.scheduler.limits.max_calls
        self._most = MOST if limit is None else max(1, min(MOST, limit))

    # --- Items ---

    @property
    def full(self) -> bool:
        """Return whether no more items may be under way, or in the queue."""
        return self._under_way >= self._window or len(self._made) >= self._most_jobs

    @property
    def wants_more(self) -> bool:
        """Return whether it is time to get further items: the queue has room, or nothing is under way.

        Many are fetched at once, when no more than half of the window is under way.
        """
        under_way = self._under_way
        if self.exhausted or under_way > self._window // 2:
            return False
        return not under_way or self.pool.scheduler.has_room

    def fill(self, items: Iterator[Any]) -> Iterator[Message]:
        """Take items until the map is full; yield each message that has files to be written. ``submit`` follows.

        Raises ArgumentError, and what the iterator raises.
        """
        for value in items:
            message = self.add(value)
            if message is not None:
                yield message
            if self.full:
                return
        self.exhausted = True

    def add(self, value: Any) -> Message | None:
        """Take an item; return its message if that has files to be written. Raises ArgumentError."""
        small = self.pool.serializer is None and is_short(value)
        item = MapItem(value)
        message = None
        if small:
            self._batch.append(item)
            if self._alone or len(self._batch) >= self._size:
                self._close_batch()
        else:
            self._close_batch()
            message = self._add_alone(item)
        self._under_way += 1
        if self._ordered:
            self._ahead.append(item)
        return message

    def _add_alone(self, item: MapItem) -> Message | None:
        encoder = self.pool.encoder
        function, _, body = encoder.encode_item(self._function, self._callable, (item.value,), False)
        item.value = None
        self._made.append(ItemsJob(self, [item], function, body))
        return None if type(body) is bytes or not body.fills else body  # type: ignore[union-attr, return-value]  # a message

    def _close_batch(self) -> None:
        if self._batch:
            self._made.append(ItemsJob(self, self._batch, self._function, None))
            self._batch = []

    def begin(self) -> None:
        """Prepare to add items: as many jobs as there is room for in the queue, and one at least."""
        self._most_jobs = max(1, self.pool.scheduler.room)

    def submit(self) -> None:
        """Submit the jobs for the added items to the scheduler."""
        self._close_batch()
        self.pool.maps.add(self)
        for job in self._made:
            if job.state is JobState.NEW:
                self.pool.scheduler.submit(job)
        self._made.clear()

    def drop_unwritten(self) -> None:
        """Drop the last item, because its files could not be written."""
        job = self._made.pop()
        job.release()
        self.jobs.discard(job)
        self._under_way -= 1
        if self._ordered:
            self._ahead.pop()

    # --- Answers ---

    def learn(self, seconds: float) -> None:
        """Adapt how many items share a job to the duration of an item, in seconds."""
        wanted = self._most if seconds * self._most <= PER_JOB else max(1, int(PER_JOB / seconds))
        self._size = min(wanted, 4 * self._size)

    def line_up(self, item: MapItem) -> None:
        """Let the consumer take an item that is about to be done, in the order in which items are done."""
        if not (self._ordered or self.closed):
            self._ahead.append(item)

    def came(self, item: MapItem) -> None:
        """Note that an item is done: show the progress, and wake the consumer if it can take an item now."""
        if self._progress is not None:
            self._progress.advance()
        if self.closed:
            return
        waiting = self.waiting
        if waiting is not None and (not self._ordered or item is self._ahead[0]) and not waiting.done():
            waiting.set_result(None)

    def complete(self) -> None:
        """Complete after an interrupt what it has stopped: items that were about to be done, and jobs that failed."""
        if not self._ordered:
            self._ahead = deque(item for item in self._ahead if item.state is DONE)
        for job in [*self.jobs]:
            if job.error is not None:
                job.fail_items(job.error)  # the job of the rest is queued with all others

    def wake(self) -> None:
        """Let the consumer look again after an interrupt, which may have come before it was woken."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    @property
    def empty(self) -> bool:
        """Return whether no item is under way."""
        return not self._under_way

    def next(self) -> MapItem | None:
        """Return the next item for the consumer, which is done, or None if there is no such item yet."""
        ahead = self._ahead
        if not ahead or ahead[0].state is not DONE:
            return None
        self._under_way -= 1
        return ahead.popleft()

    def close(self) -> None:
        """End the map: cancel the items that have not begun, and ignore the answers to all others."""
        self.closed = self.exhausted = True
        self.pool.maps.discard(self)
        self._function = self.pool.encoder.functions.none  # workers forget one that was sent by value
        jobs, self.jobs = self.jobs, set()
        self._made.clear()
        self._batch.clear()
        for item in self._ahead:
            item.drop()
        self._ahead.clear()
        self._under_way = 0
        self.pool.withdraw(*jobs, kill=False)
        if self._progress is not None:
            self._progress.close()
