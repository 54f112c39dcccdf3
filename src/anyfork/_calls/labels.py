"""The labels of jobs: what the functions that they run are called on timelines, in reports and beside progress."""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def label_of(function: Callable[..., Any] | str) -> str:
    """Return the name of a function for people."""
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(function, str) else getattr(function, "__qualname__", type(function).__qualname__)
