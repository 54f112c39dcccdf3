"""The command ``anyfork report``, and the page that shows a timeline: one file of HTML, with pictures in SVG."""

from __future__ import annotations

import os
import sys
from html import escape

from .timeline import TimelineError, read_timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import NoReturn

    from .timeline import FunctionTimes, Lane, Timeline

WIDTH, LEFT, ROW = 1000, 150, 18  # of the pictures, in units of their own: of names, and of a worker's row
HEIGHT = 120  # of a curve
POINTS = 200  # of the curve of utilisation
MOST_LANES, MOST_SLICES, MOST_FUNCTIONS = 200, 20_000, 100  # that a page shows
ORDINARY = ("ended", "retired")  # marks of what is no trouble
COLOURS = 8  # of functions; the eighth stands for all others
STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --dim: #667; --line: #d8dee4; --card: #f6f8fa;
  --idle: #e4e8ec; --fork: #f0b429; --load: #d98c00; --died: #c62828;
  --c0: #2f6fde; --c1: #17876d; --c2: #8a4fd3; --c3: #c2500f; --c4: #0b8bb0;
  --c5: #b03a7c; --c6: #6a7d00; --c7: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1318; --text: #e6e9ed; --dim: #9aa4b0; --line: #2c343d;
  --card: #181e25; --idle: #262e37; --fork: #e0a92e; --load: #c98a1a; --died: #ff6b6b;
  --c0: #6ea0ff; --c1: #3fc1a2; --c2: #b48cf2; --c3: #f08a4b; --c4: #49bfe0;
  --c5: #e57ab4; --c6: #b3c437; --c7: #8b95a1; } }
body { background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.dim { color: var(--dim); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; }
.card b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin-right: .4em; }
.legend span { margin-right: 1rem; white-space: nowrap; }
"""


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Write the page beside the timeline, or where ``-o`` says, and say where."""
    paths = list(arguments)
    output = ""
    if "-o" in paths[:-1]:
        at = paths.index("-o")
        output = paths[at + 1]
        del paths[at : at + 2]
    if len(paths) != 1 or paths[0].startswith("-"):
        fail("report takes the file of one timeline, and -o PAGE for another name of the page")
    (path,) = paths
    output = output or f"{os.path.splitext(path)[0]}.html"
    if os.path.abspath(output) == os.path.abspath(path):
        fail(f"report would overwrite {path}: name another page with -o")
    try:
        text = page(os.path.basename(path), read_timeline(path))
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, TimelineError) as error:
        print(f"anyfork report: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(output)


def page(title: str, timeline: Timeline) -> str:
    """Return the page of a timeline."""
    functions = timeline.functions()
    colours = {one.name: f"var(--c{min(number, COLOURS - 1)})" for number, one in enumerate(functions)}
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{seconds_text(timeline.seconds)}, {len(timeline.lanes)} tracks</p>',
        cards(timeline),
        "<h2>Workers</h2>",
        legend(functions, colours),
        f'<div class="scroll">{lanes_picture(timeline, colours)}</div>',
        *curves(timeline),
        "<h2>Durations</h2>",
        table(functions, colours),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def cards(timeline: Timeline) -> str:
    """Return the figures at the top."""
    workers = sum(any(one.kind == "fork" for one in lane.slices) for lane in timeline.lanes.values())
    figures = [
        ("jobs", f"{timeline.jobs:,}"),
        ("workers", f"{workers}"),
        ("utilisation", f"{timeline.utilisation:.0%}"),
    ]
    figures += [
        (what, f"{count}")
        for what in ("died", "killed", "timed out", "retired", "retry")
        if (count := timeline.marked(what))
    ]
    figures += (
        [("not started", f"{failed}")] if (failed := sum(what == "not started" for _, what in timeline.marks)) else []
    )
    return (
        f'<div class="cards">{"".join(f"<div class=card><b>{value}</b>{what}</div>" for what, value in figures)}</div>'
    )


def legend(functions: Sequence[FunctionTimes], colours: dict[str, str]) -> str:
    """Return what the colours mean."""
    names = [(one.name, colours[one.name]) for one in functions[: COLOURS - 1]]
    names += [("other functions", f"var(--c{COLOURS - 1})")] if len(functions) >= COLOURS else []
    names += [(kind, f"var(--{kind})") for kind in ("fork", "load", "idle", "died")]
    return f'<p class="legend">{"".join(f"<span>{swatch(colour)}{escape(name)}</span>" for name, colour in names)}</p>'


def swatch(colour: str) -> str:
    """Return a small field of a colour."""
    return f'<i class="swatch" style="background:{colour}"></i>'


# --- Pictures ---


def lanes_picture(timeline: Timeline, colours: dict[str, str]) -> str:
    """Return a picture with a row for each worker."""
    lanes = list(timeline.lanes.values())
    shown, parts = lanes[:MOST_LANES], []
    scale = (WIDTH - LEFT) / timeline.seconds
    left = MOST_SLICES
    for row, lane in enumerate(shown):
        drawn = list(lane_picture(lane, row * ROW, scale, colours, left))
        left -= len(drawn)
        parts += drawn
    bottom = len(shown) * ROW
    parts += axis(timeline.seconds, bottom)
    text = "".join(parts)
    more = f"<p class=dim>{len(lanes) - len(shown)} more workers are not shown.</p>" if len(lanes) > len(shown) else ""
    more += "<p class=dim>Not all jobs are shown.</p>" if left <= 0 else ""
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 18}" role="img" aria-label="Workers over time">{text}</svg>{more}'


def lane_picture(lane: Lane, top: int, scale: float, colours: dict[str, str], most: int) -> Iterator[str]:
    """Yield the parts of a worker's row: its name, what it did, and what happened to it."""
    yield f'<text x="0" y="{top + 13}">{escape(lane.name)}</text>'
    last = 0.0
    for one in sorted(lane.slices, key=lambda one: one.begin)[: max(0, most)]:
        width = one.seconds * scale
        left = LEFT + one.begin * scale
        if left + width < last + 0.2:  # too narrow to be seen beside the one before
            continue
        last = left + max(width, 0.5)
        colour = colours[one.name] if one.kind == "job" else f"var(--{one.kind})"
        edge = ' stroke="var(--died)" stroke-width="1.5"' if one.outcome == "died" else ""
        what = f"{one.name}, {one.jobs} jobs" if one.jobs > 1 else one.name
        yield (
            f'<rect x="{left:.1f}" y="{top + 3}" width="{max(width, 0.5):.2f}" height="{ROW - 5}"'
            f' fill="{colour}"{edge}>'
            f"<title>{escape(what)}: {seconds_text(one.seconds)} {escape(one.outcome)}</title></rect>"
        )
    for at, what in lane.marks:
        colour = "var(--dim)" if what in ORDINARY else "var(--died)"
        yield (
            f'<circle cx="{LEFT + at * scale:.1f}" cy="{top + ROW / 2}" r="3" fill="{colour}" stroke="var(--page)">'
            f"<title>{escape(what)} at {seconds_text(at)}</title></circle>"
        )


def axis(seconds: float, bottom: float) -> list[str]:
    """Return the scale of time below a picture."""
    parts = [f'<line x1="{LEFT}" x2="{WIDTH}" y1="{bottom}" y2="{bottom}" stroke="var(--line)"/>']
    for tenth in range(0, 11, 2):
        at = LEFT + (WIDTH - LEFT) * tenth / 10
        anchor = "end" if tenth == 10 else "middle" if tenth else "start"
        time = seconds_text(seconds * tenth / 10)
        parts.append(f'<text x="{at:.0f}" y="{bottom + 14}" text-anchor="{anchor}">{time}</text>')
    return parts


def curves(timeline: Timeline) -> Iterator[str]:
    """Yield the curves over time: workers that are busy, the queue, and memory."""
    busy = [(timeline.seconds * (part + 0.5) / POINTS, value) for part, value in enumerate(timeline.busy(POINTS))]
    yield curve("Busy workers", timeline.seconds, {"busy": busy}, number_text)
    queues = {
        f"queue {pid}": [(at, values.get("jobs", 0)) for at, values in found]
        for (pid, name), found in timeline.counters.items()
        if name == "queue"
    }
    yield curve("Jobs that wait", timeline.seconds, queues, number_text)
    memory = {
        name: [(at, values.get("private", 0)) for at, values in found]
        for (_, name), found in timeline.counters.items()
        if name.startswith("memory of ")
    }
    yield curve("Private memory of workers", timeline.seconds, memory, bytes_text)


def curve(title: str, seconds: float, lines: dict[str, list[tuple[float, float]]], text: Callable[[float], str]) -> str:
    """Return a picture of several values over time."""
    if not any(lines.values()):
        return ""
    most = max(value for points in lines.values() for _, value in points) or 1.0
    parts = axis(seconds, HEIGHT)
    parts.append(f'<text x="0" y="12">{text(most)}</text><text x="0" y="{HEIGHT}">0</text>')
    for number, (name, points) in enumerate(lines.items()):
        path = " ".join(steps(points, seconds, most))
        colour = f"var(--c{number % COLOURS})"
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5">'
            f"<title>{escape(name)}</title></polyline>"
        )
    box = f'viewBox="0 0 {WIDTH} {HEIGHT + 18}" role="img" aria-label="{title}"'
    return f"<h2>{title}</h2><svg {box}>{''.join(parts)}</svg>"


def steps(points: Iterable[tuple[float, float]], seconds: float, most: float) -> Iterator[str]:
    """Yield the corners of a line that stays at each value until the next one."""
    before = ""
    for at, value in points:
        x, y = LEFT + (WIDTH - LEFT) * at / seconds, HEIGHT - (HEIGHT - 8) * value / most
        if before:
            yield f"{x:.1f},{before}"
        before = f"{y:.1f}"
        yield f"{x:.1f},{before}"
        yield f"{x + 1:.1f},{before}"  # so that a single value can be seen


# --- Text ---


def table(functions: Sequence[FunctionTimes], colours: dict[str, str]) -> str:
    """Return the table of functions."""
    rows = [
        f"<tr><td>{swatch(colours[one.name])}{escape(one.name)}</td><td>{one.jobs:,}</td><td>{seconds_text(one.total)}</td>"
        f"<td>{seconds_text(one.median)}</td><td>{seconds_text(one.longest)}</td><td>{one.died or ''}</td></tr>"
        for one in functions[:MOST_FUNCTIONS]
    ]
    head = "".join(f"<th>{name}</th>" for name in ("function", "jobs", "total", "median", "longest", "died"))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def seconds_text(seconds: float) -> str:
    """Return a time with a unit that suits it."""
    if not seconds:
        return "0"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"


def number_text(number: float) -> str:
    """Return a number of jobs or workers."""
    return f"{number:.1f}".removesuffix(".0") if number < 10 else f"{number:.0f}"


def bytes_text(size: float) -> str:
    """Return a number of bytes with a unit that suits it."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
