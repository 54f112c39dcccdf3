"""What workers of the benchmark ``pool`` do. Workers import this by its name, so it needs little itself."""

from __future__ import annotations

import os
from json import dumps
from time import perf_counter, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy import ndarray

PAGE = 50  # customers


def busy(seconds: float) -> float:
    """Be occupied for so long; return for how long it was."""
    begin = perf_counter()
    sleep(seconds)
    return perf_counter() - begin


def pid() -> int:
    """Which worker this is."""
    return os.getpid()


def same(array: ndarray) -> ndarray:
    """What came."""
    return array


def heavy() -> float:
    """A result that takes numpy and pandas."""
    from . import frames

    return float(len(frames.work.__name__) and frames.pd.Series([1.0, 2.0]).sum())


def request(number: int) -> int:
    """Serve a request: look up a page of customers, and render it."""
    from . import heavy

    begin = number * 37 % (len(heavy.records) - PAGE)
    page = [{**record, "rank": rank} for rank, record in enumerate(heavy.records[begin : begin + PAGE])]
    return len(dumps(page))
