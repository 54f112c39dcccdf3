"""The labels of jobs: what the functions that they run are called on timelines, in reports and beside progress."""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def label_of(function: Callable[..., Any] | str) -> str:
    """Return the name of a function for people. Pools with a timeline call this for every job."""
    try:
        return function.__qualname__  # type: ignore[union-attr]  # names and partials have none
    except AttributeError:
        return _label_of_other(function)


def _label_of_other(function: Callable[..., Any] | str) -> str:
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(function, str) else getattr(function, "__qualname__", type(function).__qualname__)
