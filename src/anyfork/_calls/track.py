"""The track of a worker on a timeline: its start, its jobs, the time between them, and what happened to it."""

from __future__ import annotations

from functools import lru_cache
from json import dumps
from math import inf
from time import monotonic

from .._processes.undelivered import destructor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .trace_file import TraceFile

IDLE = 0.001  # seconds between two jobs that count as idle
GAP = 0.0002  # seconds at most between two quick jobs of the same function that share an event
TOGETHER = 0.002  # seconds at most of the jobs that share an event, without the last one
NEXT_LANE = 1 << 22  # above the greatest process id of Linux: jobs that run at the same time have tracks of their own

quoted = lru_cache(4096)(dumps)


class Track:
    """The track of one worker.

    ``began`` is when its running job began, and ``last`` when it was busy last.

    ``label`` is the name of the jobs that share the present event, ``count`` their number, and ``first`` when the first
    one began.

    Small calls of a ``Worker`` are counted without ``extend`` as long as they call ``function`` and end before
    ``until``: less than GAP after the last one that ``extend`` has added.
    """

    __slots__ = (
        "_file",
        "_kind",
        "_lanes",
        "_open",
        "began",
        "count",
        "first",
        "function",
        "label",
        "last",
        "pid",
        "until",
    )

    def __init__(self, file: TraceFile, kind: str, concurrent: bool, now: float) -> None:
        self._file = file
        self._kind = kind
        self._open = False
        self.pid = 0
        self.began = self.last = self.first = now
        self.label = ""
        self.count = 0
        self.function: Any = None
        self.until = -inf
        # When the last job of each lane ended. Jobs that run one after the other have the first lane for themselves.
        self._lanes: list[float] = [] if concurrent else [inf]
        file.open_track()
        self._open = True

    # --- Its life ---

    def entered(self, pid: int | None, now: float, generation: int = 0) -> None:
        """Note that the process of the worker runs."""
        self.pid = pid or 0
        self._file.name_track(self.pid, f"{self._kind} {self.pid}")
        self._slice('"fork"', self.pid, self.last, now, f'{{"generation":{generation}}}')
        self.last = now

    def ready(self, now: float) -> None:
        """Note that the worker is ready for jobs."""
        self._slice('"load"', self.pid, self.last, now, "{}")
        self.last = self.first = now

    def instant(self, name: str, now: float, **details: object) -> None:
        """Note what has happened to the worker."""
        self._file.instant(name, self.pid, now, **details)

    def close(self, now: float) -> None:
        """End the track: the worker has ended. Closing twice is harmless."""
        if self._open:
            self._write()
            if self.pid and now - self.last > IDLE and self._lanes[:1] == [inf]:
                self._slice('"idle"', self.pid, self.last, now, "{}")
            self._open = False
            self._file.close_track()

    # --- Its jobs ---

    def job(self, label: str, began: float, now: float, count: int = 1, outcome: str = "") -> None:
        """Note that a job has ended. Quick jobs of the same function, one right after the other, share an event."""
        self.until = -inf
        self.began = began
        if label == self.label and not outcome and self.extend(now, count):
            return
        self._write()
        if began - self.last > IDLE:
            self._slice('"idle"', self.pid, self.last, began, "{}")
        self.label, self.first, self.count, self.last = label, began, count, now
        if outcome:
            self._write(outcome)

    def extend(self, now: float, count: int) -> bool:
        """Add a quick job to those that share an event. Return False if it needs an event of its own."""
        last = self.last
        if self.began - last > GAP or last - self.first > TOGETHER:
            return False
        self.count += count
        self.last = now
        return True

    def begin_other(self, function: Any) -> float:
        """Note that a small call of another function begins, which needs an event of its own. Return the time."""
        self.function, self.until = function, -inf
        return monotonic()

    def _write(self, outcome: str = "") -> None:
        if self.count:
            self._slice(quoted(self.label), self.pid, self.first, self.last, _details(self.count, outcome))
            self.count, self.label = 0, ""

    def job_in_lane(self, label: str, began: float, now: float, outcome: str = "") -> None:
        """Note that a job has ended that may have run at the same time as others."""
        lanes = self._lanes
        lane = next((lane for lane, last in enumerate(lanes) if last <= began), len(lanes))
        if lane == len(lanes):
            lanes.append(0.0)
            if lane:
                self._file.name_track(self.pid + lane * NEXT_LANE, f"{self._kind} {self.pid} ({lane + 1})")
        lanes[lane] = now
        self._slice(quoted(label), self.pid + lane * NEXT_LANE, began, now, _details(1, outcome))

    def _slice(self, name: str, tid: int, began: float, now: float, details: str) -> None:
        kind = name.strip('"') if name in ('"fork"', '"load"', '"idle"') else "job"
        more = f',"dur":{max(0.0, now - began) * 1e6:.0f},"cat":"{kind}","args":{details}'
        self._file.add(name, "X", tid, began, more)

    @destructor
    def __del__(self) -> None:
        if self._open:
            self.close(self.last)


def _details(count: int, outcome: str) -> str:
    ended = f',"outcome":{quoted(outcome)}' if outcome else ""
    return f'{{"jobs":{count}{ended}}}'
