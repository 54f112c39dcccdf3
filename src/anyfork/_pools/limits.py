"""The limits of a pool."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a pool. Times are in seconds, ``max_memory`` is in bytes.

    Zero is valid everywhere, None means no limit; see _pools.scheduler.
    """

    max_workers: int = 4
    min_idle: int = 0
    load: int = 2
    start_after: float = 0.1
    idle_timeout: float = 10.0
    max_calls: int | None = None
    max_memory: int | None = None
    max_age: float | None = None
    max_queued: int | None = None
    deepens: bool = False  # a worker may have more jobs than ``load`` as long as all of them are quick, see Job.depth
    concurrent: bool = False  # workers run all their jobs at once
