"""How many workers a pool has: when it starts another one, a spare (min_idle) too, and from which of its templates."""

from __future__ import annotations

from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .pool_options import Limits
    from .records import TemplateRecord
    from .worker_table import WorkerTable


class WorkerCount:
    """The policy of one pool for starting workers.

    ``wake_at`` is when ``next`` must be called again. ``replacements_due`` workers start at once, without waiting for
    ``start_after``, as long as they are wanted: they replace workers that were lost, or are the ``min_idle`` workers.
    """

    __slots__ = ("_retry_at", "_sources", "_start_at", "_workers", "replacements_due")

    def __init__(self, workers: WorkerTable, sources: Sequence[TemplateRecord], replacements_due: int) -> None:
        self.replacements_due = replacements_due
        self._workers = workers
        self._sources = sources
        self._start_at = inf  # when the next worker may be started, while one is wanted
        self._retry_at = inf  # when a template that has failed may be tried again

    @property
    def wake_at(self) -> float:
        """The time for the next call of ``next``; infinity for never."""
        return min(self._start_at, self._retry_at)

    @property
    def hopeless(self) -> bool:
        """Return whether no worker lives, and none of the templates gives a living worker."""
        return not self._workers.count and self._all_used(lambda source: source.hopeless)

    @property
    def broken(self) -> bool:
        """Return whether no worker takes jobs, and none of the templates will ever give one that does.

        Those that leave may run a job for long. Jobs that wait do not wait for that.
        """
        lasting = self._workers.starting or self._workers.working
        return not lasting and self._all_used(lambda source: source.hopeless and source.broken)

    def _all_used(self, holds: Callable[[TemplateRecord], bool]) -> bool:
        used = [source for source in self._sources if source.limit]
        return bool(used) and all(map(holds, used))

    def is_forbidden(self, limits: Limits) -> bool:
        """Return whether no worker is left, and the limits allow no working one until they change."""
        some = limits.max_workers and limits.load and any(source.limit for source in self._sources)
        return not (some or self._workers.count)

    def next(self, waiting: int, limits: Limits, now: float) -> TemplateRecord | None:
        """Return the template to start a worker from now, or None if no worker is wanted or it is not time.

        ``waiting`` is how many jobs have no worker.
        """
        self._retry_at = inf
        if not (waiting or limits.min_idle) or not self._wants(waiting, limits):
            self._start_at = inf
            self.replacements_due = 0
            return None
        source = self._source(waiting, limits, now)
        if source is None:
            self._start_at = inf
            return None
        if self._start_at == inf:
            self._start_at = now + limits.start_after
        if self._workers.count and not self.replacements_due and now < self._start_at:
            return None
        self.replacements_due = max(0, self.replacements_due - 1)
        self._start_at = now + limits.start_after
        return source

    def _wants(self, waiting: int, limits: Limits) -> bool:
        workers, load = self._workers, limits.load
        starting = len(workers.starting)
        if load and waiting > starting * load:
            return workers.least_loaded() is None  # otherwise a worker has room for a waiting job
        taken = -(-waiting // load) if load else 0
        return len(workers.idle) + starting - taken < limits.min_idle

    def _source(self, waiting: int, limits: Limits, now: float) -> TemplateRecord | None:
        """Return the first template that may have one more worker now, or None.

        Note when the next back-off ends, if one prevents a start.
        """
        if self._workers.count >= limits.max_workers:
            return None
        for source in self._sources:
            if source.count >= source.limit or source.broken or source.awaited or (source.hopeless and not waiting):
                continue
            if now >= source.not_before:
                return source
            self._retry_at = min(self._retry_at, source.not_before)
        return None
