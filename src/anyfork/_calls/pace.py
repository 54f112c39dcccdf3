"""How long the jobs of an Executor take, and how many of them may therefore be under way to one worker."""

from __future__ import annotations

PER_CALL = 8.0  # microseconds that a call takes beside its function, at least
AHEAD = 2000.0  # microseconds of work that a worker may have before it: longer than a busy owner needs to look again
SHORT = 3000.0  # microseconds: behind such a job another one may wait, and a worker is never without work
MOST = 256  # jobs
MOST_ITEMS = 128  # of a map, in one job


class Pace:
    """The mean of what was seen of late, in microseconds; None before anything was."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean: float | None = None

    def saw(self, took: float, count: int = 1) -> None:
        """Some calls took so many microseconds together."""
        each = took / count
        mean = self.mean
        if mean is None or each > 4 * mean:
            self.mean = each  # better too few than too many are under way
        else:
            self.mean = (mean + each) / 2

    @property
    def load(self) -> int:
        """How many jobs a worker may have."""
        mean = self.mean
        if mean is None or mean > SHORT:
            return 1
        return max(2, min(MOST, int(AHEAD / (mean + PER_CALL))))

    @property
    def items(self) -> int:
        """How many items of a map may go together."""
        mean = self.mean
        return 1 if mean is None else max(1, min(MOST_ITEMS, int(AHEAD / 2 / (mean + PER_CALL))))
