"""The pace of an Executor's jobs: how long they take, and how many of them may therefore be under way to one worker."""

from __future__ import annotations

PER_CALL = 8.0  # microseconds that a call takes at least, in addition to its function
AHEAD = 2000.0  # microseconds of work that may be queued at a worker: longer than a busy owner needs to look again
SHORT = 3000.0  # microseconds: another job may be queued behind such a job, so that the worker never lacks work
MOST = 256  # jobs
MOST_ITEMS = 128  # items of a map in one job


class JobDuration:
    """The mean duration of recent jobs in microseconds; None before the first one."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean: float | None = None

    def saw(self, took: float, count: int = 1) -> None:
        """Note that ``count`` calls took this many microseconds together."""
        each = took / count
        mean = self.mean
        if mean is None or each > 4 * mean:
            self.mean = each  # better to have too few jobs under way than too many
        else:
            self.mean = (mean + each) / 2

    @property
    def load(self) -> int:
        """The number of jobs that a worker may have."""
        mean = self.mean
        if mean is None or mean > SHORT:
            return 1
        return max(2, min(MOST, int(AHEAD / (mean + PER_CALL))))

    @property
    def items(self) -> int:
        """The number of items of a map that may go together."""
        mean = self.mean
        return 1 if mean is None else max(1, min(MOST_ITEMS, int(AHEAD / 2 / (mean + PER_CALL))))
