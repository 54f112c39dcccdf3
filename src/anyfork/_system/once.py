"""System calls that are made once each, and whose results are kept, whatever interrupts or re-enters their caller.

A signal handler may raise an exception after any call, and a handler or a destructor may make the same calls in the
middle of them. Data that was sent or received must not be forgotten then, nor sent twice. No handler runs while a
function written in C runs: ``list.extend`` makes the call of a ``map`` and keeps its result in one step, and a ``map``
makes the call only once. So the interrupted caller and the one that has interrupted it may both go on with the same
list.
"""

from __future__ import annotations

from collections import deque
from itertools import chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def in_one_go(*steps: Iterable[object]) -> None:
    """Run steps, which are ``map`` objects of functions written in C: all of them or none, despite interrupts."""
    deque(chain(*steps), 0)


class Once:
    """A sequence of calls. ``results`` are the values that they have returned."""

    __slots__ = ("_steps", "results")

    def __init__(self) -> None:
        self.results: list[Any] = []
        self._steps: dict[int, map[Any]] = {}

    def call(self, number: int, function: Callable[..., object], *args: object) -> None:
        """Make the call with this number, unless it was made. Raises its exception; the call may be made again then.

        The number is how many results there were when the arguments were chosen.
        """
        step = self._steps.setdefault(number, map(function, *((value,) for value in args)))
        try:
            self.results.extend(step)
        finally:
            if len(self.results) <= number and self._steps.get(number) is step:
                self._steps.pop(number, None)

    def finish(self, steps: map[None]) -> None:
        """Run the final steps, all in one go, unless that was done."""
        any(self._steps.setdefault(-1, steps))
