"""The durations of calls, as the owner observes them, and how many may therefore be under way to one worker."""

from __future__ import annotations

QUICK = 0.0002  # seconds
AHEAD = 0.001  # seconds of work that may be ahead of a quick call in its worker
DEEPEST = 64  # calls at most, even if they take no time
WEIGHT = 8  # a new call counts 1/WEIGHT, all earlier ones the rest: a slow call is not forgotten at once


class CallDuration:
    """An estimate of how long the calls of one function take.

    ``depth`` is how many calls a worker may have in all if one of them is a call of this function. It is 0 for a
    function that is not quick, or not known.
    """

    __slots__ = ("_mean", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._mean = -1.0

    def saw(self, seconds: float) -> None:
        """Note the duration of a call, in seconds."""
        mean = self._mean
        self._mean = mean = seconds if mean < 0 else mean + (seconds - mean) / WEIGHT
        self.depth = 0 if mean > QUICK else DEEPEST if mean * DEEPEST < AHEAD else int(AHEAD / mean)


PER_CALL = 8.0  # microseconds that a call takes at least, in addition to its function
AHEAD_US = 2000.0  # microseconds of work that may be queued at a worker: longer than a busy owner needs to look again
SHORT = 3000.0  # microseconds: another job may be queued behind such a job, so that the worker never lacks work
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
        if mean is None or mean > SHORT:
            return 1
        return max(2, min(MOST_JOBS, int(AHEAD_US / (mean + PER_CALL))))

    @property
    def items(self) -> int:
        """The number of items of a map that may go together."""
        mean = self.mean
        return 1 if mean is None else max(1, min(MOST_ITEMS, int(AHEAD_US / 2 / (mean + PER_CALL))))
