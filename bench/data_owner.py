"""The owner program of a contender of ``data``: numpy arrays go to a worker, and come back."""

from __future__ import annotations

import sys
from time import perf_counter

from . import callers
from .child import echo
from .copies import FreshCopies, NumpyCopies
from .owner import own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MEGABYTE = 1_000_000
KINDS: dict[str, Callable[[], Any]] = {
    "fresh-copy": FreshCopies,
    "numpy-copy": NumpyCopies,
    "anyfork": lambda: callers.Anyfork("numpy"),
    "executor": callers.executor,
    "mp-pool": callers.Pool,
    "loky": callers.loky,
}


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind."""
    fd, kind = sys.argv[1:]
    own(
        fd,
        lambda: _checked(kind),
        lambda caller, measure, seconds: echoes(caller, int(measure.removesuffix("MB")), seconds),
    )


def _checked(kind: str) -> Any:
    import numpy as np

    caller = KINDS[kind]()
    caller.call(echo, np.zeros(1))
    return caller


def echoes(caller: Any, megabytes: int, seconds: float) -> list[float]:
    """Seconds from the call to the array that came back, of as many calls as fit into so many seconds.

    One more comes first: memory that lay idle meanwhile may be far away, above all that of a virtual machine.
    """
    import numpy as np

    array = np.arange(megabytes * MEGABYTE // 8, dtype=np.float64)
    samples: list[float] = []
    caller.call(echo, array)
    deadline = perf_counter() + seconds
    while not samples or perf_counter() < deadline:
        begin = perf_counter()
        result = caller.call(echo, array)
        samples.append(perf_counter() - begin)
        if result[-1] != array[-1]:
            raise RuntimeError("another array came back")
        del result  # not within the time of the next one
    return samples
