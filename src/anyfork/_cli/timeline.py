"""A timeline, as it is read from a file in Chrome's trace format: what its workers did, and when."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

KINDS = ("fork", "load", "idle", "job")


class TimelineError(Exception):
    """Raised for a file that is not a timeline."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a worker's time, in seconds since the beginning of the timeline."""

    name: str
    kind: str
    begin: float
    seconds: float
    jobs: int
    outcome: str


@dataclass(slots=True)
class Lane:
    """The track of a worker: stretches of its time, and marks of what has happened to it."""

    name: str
    slices: list[Slice] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)


@dataclass(slots=True)
class FunctionTimes:
    """How long the jobs of one function took, in seconds."""

    name: str
    jobs: int
    total: float
    median: float
    longest: float
    died: int


@dataclass(slots=True)
class Timeline:
    """All tracks, counters and marks of a file."""

    lanes: dict[tuple[int, int], Lane]
    counters: dict[tuple[int, str], list[tuple[float, dict[str, float]]]]
    marks: list[tuple[float, str]]
    seconds: float

    @property
    def jobs(self) -> int:
        """The number of jobs."""
        return sum(one.jobs for lane in self.lanes.values() for one in lane.slices if one.kind == "job")

    def marked(self, name: str) -> int:
        """Return how often something has happened."""
        return sum(mark == name for lane in self.lanes.values() for _, mark in lane.marks)

    @property
    def utilisation(self) -> float:
        """The share of the time of all workers that jobs took."""
        busy = sum(one.seconds for lane in self.lanes.values() for one in lane.slices if one.kind == "job")
        there = sum(life(lane) for (_, tid), lane in self.lanes.items() if tid)
        return min(1.0, busy / there) if there else 0.0

    def functions(self) -> list[FunctionTimes]:
        """Return the times of all functions, the one with most time first."""
        by_name: dict[str, list[Slice]] = defaultdict(list)
        for lane in self.lanes.values():
            for one in lane.slices:
                if one.kind == "job":
                    by_name[one.name].append(one)
        return sorted(map(times_of, by_name.values()), key=lambda times: -times.total)

    def busy(self, points: int) -> list[float]:
        """Return how many workers ran jobs in each of so many equal parts of the time."""
        width = self.seconds / points or 1.0
        found = [0.0] * points
        for lane in self.lanes.values():
            for one in lane.slices:
                if one.kind == "job":
                    spread(found, width, one.begin, one.begin + one.seconds)
        return found


def life(lane: Lane) -> float:
    """Return for how long a worker was there, in seconds."""
    if not lane.slices:
        return 0.0
    return max(one.begin + one.seconds for one in lane.slices) - min(one.begin for one in lane.slices)


def times_of(slices: Sequence[Slice]) -> FunctionTimes:
    """Return the times of one function. Quick jobs share a slice, which counts as so many equal ones."""
    each = [one.seconds / one.jobs for one in slices for _ in range(min(one.jobs, 1000))]
    total, died = sum(one.seconds for one in slices), sum(one.outcome == "died" for one in slices)
    return FunctionTimes(slices[0].name, sum(one.jobs for one in slices), total, median(each), max(each), died)


def spread(found: list[float], width: float, begin: float, end: float) -> None:
    """Add a stretch of time to the parts that it lies in."""
    for part in range(int(begin / width), min(len(found), int(end / width) + 1)):
        found[part] += max(0.0, min(end, (part + 1) * width) - max(begin, part * width)) / width


def read_timeline(path: str) -> Timeline:
    """Read a file, which may lack its end. Raises OSError and TimelineError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        events = parse(file.read())
    timed = [event for event in events if event.get("ph") in ("X", "i", "C")]
    if not timed:
        raise TimelineError(f"{path} is not a timeline: it has no events; trace= and ANYFORK_TRACE make one")
    first = min(event["ts"] for event in timed)
    last = max(event["ts"] + event.get("dur", 0) for event in timed)
    timeline = Timeline({}, defaultdict(list), [], max(1e-6, (last - first) / 1e6))
    for event in events:
        add(timeline, event, first)
    return timeline


def parse(text: str) -> list[dict[str, Any]]:
    """Return the events in a file. The last line may be incomplete, and the end of the array missing."""
    try:
        found = json.loads(text)
    except ValueError:
        found = [event for line in text.splitlines() if (event := parse_line(line)) is not None]
    if isinstance(found, dict):
        found = found.get("traceEvents", [])
    return [event for event in found if isinstance(event, dict)]


def parse_line(line: str) -> Any:
    """Return the event in a line, or None."""
    try:
        return json.loads(line.rstrip().rstrip(","))
    except ValueError:
        return None


def add(timeline: Timeline, event: dict[str, Any], first: float) -> None:
    """Add an event to a timeline."""
    key, kind, at = (event.get("pid", 0), event.get("tid", 0)), event.get("ph"), (event.get("ts", 0) - first) / 1e6
    args = event.get("args", {})
    if kind == "M" and event.get("name") == "thread_name":
        timeline.lanes.setdefault(key, Lane("")).name = str(args.get("name", key[1]))
    elif kind == "X":
        lane = timeline.lanes.setdefault(key, Lane(str(key[1])))
        cat = event.get("cat", "job")
        jobs, outcome = int(args.get("jobs", 1)), str(args.get("outcome", ""))
        lane.slices.append(
            Slice(str(event["name"]), cat if cat in KINDS else "job", at, event.get("dur", 0) / 1e6, jobs, outcome)
        )
    elif kind == "i" and key[1]:
        timeline.lanes.setdefault(key, Lane(str(key[1]))).marks.append((at, str(event["name"])))
    elif kind == "i":
        timeline.marks.append((at, str(event["name"])))
    elif kind == "C":
        timeline.counters[key[0], str(event["name"])].append((at, args))
