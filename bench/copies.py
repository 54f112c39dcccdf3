"""The floors of ``data``: the bytes are copied twice into new memory, as they are on their way out and back."""

from __future__ import annotations

import mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import numpy as np


class FreshCopies:
    """Into memory that the system has just given, in its usual pages: no allocator hands out used memory again."""

    def call(self, _function: Callable[..., Any], array: np.ndarray) -> memoryview[float]:
        """Copy twice."""
        return memoryview(_fresh_copy(_fresh_copy(array.data.cast("B")))).cast("d")

    def close(self) -> None:
        """Nothing is left."""


class NumpyCopies:
    """As numpy copies: it asks for huge pages, which are few page faults, or wait until there are some."""

    def call(self, _function: Callable[..., Any], array: np.ndarray) -> np.ndarray:
        """Copy twice."""
        first = array.copy()
        return first.copy()  # the first one is there until then, as it is in every other contender

    def close(self) -> None:
        """Nothing is left."""


def _fresh_copy(source: memoryview | mmap.mmap) -> mmap.mmap:
    fresh = mmap.mmap(-1, len(source), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    fresh[:] = source
    return fresh
