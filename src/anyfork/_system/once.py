"""System calls that are made once each, and whose results are kept, whatever interrupts or re-enters their caller.

An exception of a signal handler may come after any call, and a handler or a destructor may do the same thing in the
middle of it. Then nobody must forget what was sent or received, nor send it twice. No handler runs while a function
written in C runs, and ``list.extend`` calls what a ``map`` stands for and keeps the result in one go; and a ``map``
calls it once. So both, the one that was interrupted and the one that has interrupted it, may go on with the same list.
"""

from __future__ import annotations

from collections import deque
from itertools import chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def in_one_go(*steps: Iterable[object]) -> None:
    """Do these steps, ``map`` objects of functions written in C: all of them, or none, whatever comes in between."""
    deque(chain(*steps), 0)


class Once:
    """Calls that follow each other, and ``results``: what they have returned."""

    __slots__ = ("_steps", "results")

    def __init__(self) -> None:
        self.results: list[Any] = []
        self._steps: dict[int, map[Any]] = {}

    def call(self, number: int, function: Callable[..., object], *args: object) -> None:
        """Make the call with this number, unless it was made. Raises what it raises; it may be made again then.

        The number is how many results there were when the arguments were chosen.
        """
        step = self._steps.setdefault(number, map(function, *((value,) for value in args)))
        try:
            self.results.extend(step)
        finally:
            if len(self.results) <= number and self._steps.get(number) is step:
                self._steps.pop(number, None)

    def finish(self, steps: map[None]) -> None:
        """Do these steps, all in one go, unless it was done."""
        any(self._steps.setdefault(-1, steps))
