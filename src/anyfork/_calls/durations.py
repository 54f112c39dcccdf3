"""The durations of calls, as the owner observes them, and how many may therefore be under way to one worker."""

from __future__ import annotations

QUICK_US = 200.0  # microseconds: calls of a function that take less are quick
QUICK_AHEAD_US = 1000.0  # microseconds of work that may be ahead of a quick call in its worker
DEEPEST = 64  # calls at most, even if they take no time
PER_CALL_US = 8.0  # microseconds that a call takes at least, in addition to its function
QUEUED_US = 2000.0  # microseconds of work that may be queued at a worker: longer than a busy owner needs to look again
SHORT_US = 3000.0  # microseconds: another job may be queued behind such a job, so that the worker never lacks work
MOST_JOBS = 256  # jobs
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
        if mean is None or mean > SHORT_US:
            return 1
        return max(2, min(MOST_JOBS, int(QUEUED_US / (mean + PER_CALL_US))))

    @property
    def items(self) -> int:
        """The number of items of a map that may go together."""
        mean = self.mean
        return 1 if mean is None else max(1, min(MOST_ITEMS, int(QUEUED_US / 2 / (mean + PER_CALL_US))))

    @property
    def depth(self) -> int:
        """The number of calls that a worker may have in all if one of them is such a call; 0 if it is not quick."""
        mean = self.mean
        if mean is None or mean > QUICK_US:
            return 0
        return DEEPEST if mean * DEEPEST < QUICK_AHEAD_US else int(QUICK_AHEAD_US / mean)
