"""What processes and workers do that need pandas. The template and the fork server load it once."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pandas  # type: ignore[import-untyped]  # its stubs are a package of their own

from . import jobs

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LOADED_BY = os.getpid()


def do_nothing(*_: object) -> None:
    """The shortest process."""


def report() -> None:
    """The program: a summary of some rows."""
    rows = pandas.DataFrame({"key": [number % 7 for number in range(1000)], "value": range(1000)})
    print(rows.groupby("key").value.sum(), flush=True)


def report_to(connection: Connection) -> None:
    """The program as a process of multiprocessing, with a pipe as its standard output."""
    with connection:
        os.dup2(connection.fileno(), 1)
    report()


def footprint(directory: str, count: int) -> tuple[bool, int]:
    """Collect garbage, and measure while all workers are there. Return whether this one loaded pandas, and its size."""
    gc.collect()
    jobs.wait_for_all(directory, "before", count)
    size = jobs.proportional_memory()
    jobs.wait_for_all(directory, "after", count)
    return os.getpid() == LOADED_BY, size
