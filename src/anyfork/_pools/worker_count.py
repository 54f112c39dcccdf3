"""How many workers a pool has: when it starts another one, a spare (min_idle) too, and from which of its templates."""

from __future__ import annotations

from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .pool_options import Limits
    from .template_table import Source
    from .worker_table import Workforce


class Growth:
    """The policy of one pool for starting workers.

    ``wake_at`` is when ``next`` must be called again. ``owed`` workers start without waiting for ``start_after``, as
    long as they are wanted: they replace workers that were lost, or are the ``min_idle`` workers.
    """

    __slots__ = ("_force", "_retry_at", "_sources", "_start_at", "owed")

    def __init__(self, force: Workforce, sources: Sequence[Source], owed: int) -> None:
        self.owed = owed
        self._force = force
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
        used = [source for source in self._sources if source.limit]
        return not self._force.count and bool(used) and all(source.hopeless for source in used)

    @property
    def broken(self) -> bool:
        """Return whether the pool is hopeless and will always be."""
        return self.hopeless and all(source.broken for source in self._sources if source.limit)

    def is_forbidden(self, limits: Limits) -> bool:
        """Return whether no worker is left, and the limits allow no working one until they change."""
        some = limits.max_workers and limits.load and any(source.limit for source in self._sources)
        return not (some or self._force.count)

    def next(self, waiting: int, limits: Limits, now: float) -> Source | None:
        """Return the template to start a worker from now, or None if no worker is wanted or it is not time.

        ``waiting`` is how many jobs have no worker.
        """
        self._retry_at = inf
        if not (waiting or limits.min_idle) or not self._wants(waiting, limits):
            self._start_at = inf
            self.owed = 0
            return None
        source = self._source(waiting, limits, now)
        if source is None:
            self._start_at = inf
            return None
        if self._start_at == inf:
            self._start_at = now + limits.start_after
        if self._force.count and not self.owed and now < self._start_at:
            return None
        self.owed = max(0, self.owed - 1)
        self._start_at = now + limits.start_after
        return source

    def _wants(self, waiting: int, limits: Limits) -> bool:
        force, load = self._force, limits.load
        starting = len(force.starting)
        if load and waiting > starting * load:
            return force.freest() is None  # otherwise a worker has room for a waiting job
        taken = -(-waiting // load) if load else 0
        return len(force.idle) + starting - taken < limits.min_idle

    def _source(self, waiting: int, limits: Limits, now: float) -> Source | None:
        """Return the first template that may have one more worker now, or None.

        Note when the next back-off ends, if one prevents a start.
        """
        if self._force.count >= limits.max_workers:
            return None
        for source in self._sources:
            if source.count >= source.limit or source.broken or (source.hopeless and not waiting):
                continue
            if now >= source.not_before:
                return source
            self._retry_at = min(self._retry_at, source.not_before)
        return None
