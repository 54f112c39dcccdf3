"""The durations of the calls of a function in a pool, as its owner observes them."""

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
