"""The numbers of pools as text for Prometheus. It needs no other package, and no files."""

from __future__ import annotations

from dataclasses import fields

from .._pools.stats import PoolStats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTENT_TYPE: str = "text/plain; version=0.0.4; charset=utf-8"
GAUGES = {"workers", "idle", "starting", "leaving", "queued", "sent", "running", "spares"}  # the other fields only grow
WHAT = {
    "workers": "Workers that take jobs.",
    "idle": "Workers that take jobs and have none.",
    "starting": "Workers that are not ready yet.",
    "leaving": "Workers that finish their jobs and take no more.",
    "queued": "Jobs that wait in the pool.",
    "sent": "Jobs that wait in a worker.",
    "running": "Jobs that may have begun.",
    "submitted": "Jobs that were submitted.",
    "answered": "Jobs whose answer has come.",
    "failed": "Jobs that ended without an answer.",
    "timed_out": "Jobs that ran for too long.",
    "withdrawn": "Jobs whose caller no longer waited.",
    "moved": "Jobs that were moved to another worker.",
    "run_again": "Jobs that ran again, because their worker had died.",
    "started": "Starts of workers.",
    "not_started": "Starts of workers that failed.",
    "retired": "Workers that have retired.",
    "died": "Workers that died.",
    "starting_seconds": "Time that all starts of workers took.",
    "spares": "Processes that the templates keep ready, which are no workers.",
}
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})  # of the values of labels


def exposition(pools: Mapping[str, PoolStats]) -> str:
    """Return the statistics of pools in Prometheus' text format, with the names of the pools as the label ``pool``.

    Pass the text on in the answer to Prometheus, as ``CONTENT_TYPE``. The memory of the workers is measured now, and
    added up for each pool.

    For example::

        import anyfork
        from anyfork.contrib.prometheus import exposition

        with anyfork.Executor(max_workers=1) as executor:
            executor.submit(abs, -1).result()
            text = exposition({"resize": executor.stats()})
        assert 'anyfork_pool_submitted_total{pool="resize"} 1' in text.splitlines()
    """
    labels = {name: f'{{pool="{name.translate(ESCAPES)}"}}' for name in pools}
    lines: list[str] = []
    for field in [field.name for field in fields(PoolStats) if field.name in WHAT]:
        values = {labels[name]: float(getattr(stats, field)) for name, stats in pools.items()}
        lines += _metric(field, WHAT[field], values, grows=field not in GAUGES)
    memory = {labels[name]: [*stats.memory.values()] for name, stats in pools.items()}
    private = {label: float(sum(each.private for each in found)) for label, found in memory.items()}
    pss = {label: float(sum(each.pss for each in found)) for label, found in memory.items()}
    lines += _metric("private_bytes", "Memory that belongs to single workers.", private, grows=False)
    lines += _metric("pss_bytes", "Memory of workers, with their share of common memory.", pss, grows=False)
    return "".join(f"{line}\n" for line in lines)


def _metric(name: str, what: str, values: Mapping[str, float], *, grows: bool) -> Iterator[str]:
    """Yield the lines of one metric."""
    full = f"anyfork_pool_{name}{'_total' * grows}"
    yield f"# HELP {full} {what}"
    yield f"# TYPE {full} {'counter' if grows else 'gauge'}"
    for label, value in values.items():
        yield f"{full}{label} {value:.15g}"
