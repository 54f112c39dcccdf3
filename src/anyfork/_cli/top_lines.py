"""The lines of ``anyfork top``: what programs, their pools and their processes do, as a tree of text."""

from __future__ import annotations

from dataclasses import dataclass, field

from .foreign_text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, TypeAlias

    # The workers of pools by their process ids, each with the name of its pool.
    Workers: TypeAlias = Mapping[int, tuple[str, dict[str, Any]]]

NONE = "no program offers its state: call anyfork.observe() in it, or set ANYFORK_STATUS=1"
INDENT = "  "
TEMPLATES = ("anyfork", "anyfork/exec")  # titles behind the pid of the owner; spares are templates, too


@dataclass(slots=True)
class Line:
    """A line with those below it.

    ``kind`` is what it is about: program, pool, template, process, worker, job, idle or error.
    """

    kind: str
    text: str
    below: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text = printable(self.text)


def lines_of(answers: Iterable[dict[str, Any]], wanted: int | None) -> list[Line]:
    """Return the lines of programs, or one that says that there is none."""
    missing = NONE if wanted is None else f"program {wanted} does not offer its state: {NONE.partition(': ')[2]}"
    return [_program(answer) for answer in answers] or [Line("error", missing)]


def as_text(lines: Iterable[Line]) -> str:
    """Return lines as plain text."""
    return "\n".join(_indented(lines, ""))


def _indented(lines: Iterable[Line], indent: str) -> Iterator[str]:
    for line in lines:
        yield indent + line.text
        yield from _indented(line.below, indent + INDENT)


def _program(answer: dict[str, Any]) -> Line:
    process, workers, pools = answer["process"], {}, []
    for pool in answer["pools"]:
        name = f"{pool['kind']} {pool['name']}".rstrip()
        pools.append(_pool(name, pool))
        workers.update({worker["pid"]: (name, worker) for worker in pool["workers"]})
    children = process["children"] if process else ()
    text = f"program {_process(process)}" if process else f"program {answer['pid']}"
    return Line("program", text, pools + [_below(child, workers) for child in children])


def _pool(name: str, pool: dict[str, Any]) -> Line:
    stats = pool["stats"]
    text = (
        f"{name}: workers {stats['workers']} ({stats['idle']} idle), starting {stats['starting']}, "
        f"queued {stats['queued']}, running {stats['running']}, "
        f"submitted {stats['submitted']}, died {stats['died']}, spares {stats['spares']}"
    )
    errors = [Line("error", f"last error: {pool['error'].splitlines()[0]}")] if pool["error"] else []
    return Line("pool", text, errors)


def _below(process: dict[str, Any], workers: Workers) -> Line:
    """Return the line of a process, with its descendants."""
    children = [_below(child, workers) for child in process["children"]]
    if process["pid"] not in workers:
        kind = "template" if process["title"].partition(" ")[2] in TEMPLATES else "process"
        return Line(kind, f"{kind} {_process(process)}", children)
    name, worker = workers[process["pid"]]
    return Line("worker", f"worker of {name} {_process(process)}", [_work(worker), *children])


def _work(worker: dict[str, Any]) -> Line:
    running = f"runs {', '.join(worker['running'])}" if worker["running"] else "idle"
    since = "" if worker["seconds"] is None else f" for {worker['seconds']:.1f} s"
    text = f"{worker['state']}, {running}{since}, calls {worker['calls']}, generation {worker['generation']}"
    return Line("job" if worker["running"] else "idle", text)


def _process(process: dict[str, Any]) -> str:
    mebibytes = [process[name] / (1 << 20) for name in ("private", "pss") if process[name] is not None]
    memory = ", private {:.1f} MiB, PSS {:.1f} MiB".format(*mebibytes) if mebibytes else ""
    share = f" ({process['share']:.0%})" if "share" in process else ""
    cpu = f"CPU {process['cpu']:.1f} s{share}"
    return f"{process['pid']} [{process['title'][:60]}]: age {process['age']:.1f} s, {cpu}{memory}"
