"""How long the calls of a function take in a pool, as far as its owner sees it."""

from __future__ import annotations

QUICK = 0.0002  # seconds
AHEAD = 0.001  # seconds of work that may be ahead of a quick call in its worker
DEEPEST = 64  # calls, also of those that take no time
WEIGHT = 8  # so many calls weigh as much as all before them: a slow one is not forgotten at once


class Tempo:
    """``depth`` is how many calls a worker may have in all, if this is one of them; 0 for a function that is not quick,
    or not known."""

    __slots__ = ("_mean", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._mean = -1.0

    def saw(self, seconds: float) -> None:
        """A call took so long."""
        mean = self._mean
        self._mean = mean = seconds if mean < 0 else mean + (seconds - mean) / WEIGHT
        self.depth = 0 if mean > QUICK else DEEPEST if mean * DEEPEST < AHEAD else int(AHEAD / mean)
