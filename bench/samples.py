"""Samples of one run, by contender, measure and round; and the figures made of them."""

from __future__ import annotations

from statistics import median

from .contenders import LATENCIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def figure(measure: str, numbers: Sequence[float]) -> float:
    """The figure of one slice: median seconds of a latency, or how many a second."""
    if measure in LATENCIES:
        return median(numbers)
    count, seconds = numbers
    return count / seconds


class Samples:
    """Raw numbers of every slice."""

    def __init__(self) -> None:
        self._slices: dict[str, dict[str, dict[int, list[float]]]] = {}

    def add(self, name: str, measure: str, turn: int, numbers: list[float]) -> None:
        """Take the numbers of one slice."""
        self._slices.setdefault(name, {}).setdefault(measure, {})[turn] = numbers

    def _figures(self, name: str, measure: str) -> dict[int, float]:
        slices = self._slices.get(name, {}).get(measure, {})
        return {turn: figure(measure, numbers) for turn, numbers in slices.items()}

    def median(self, name: str, measure: str) -> float | None:
        """The median of all slices, or None where there are none."""
        figures = self._figures(name, measure)
        return median(figures.values()) if figures else None

    def ratio(self, name: str, other: str, measure: str) -> float | None:
        """One contender's figure over another's: the median of the ratios within each round.

        Slices of one round are seconds apart, those of different rounds may be minutes apart; so what disturbs the
        machine for a while falls out of the ratio.
        """
        ours, theirs = self._figures(name, measure), self._figures(other, measure)
        ratios = [ours[turn] / theirs[turn] for turn in ours.keys() & theirs.keys()]
        return median(ratios) if ratios else None

    def data(self) -> dict[str, dict[str, dict[int, list[float]]]]:
        """Everything, for JSON."""
        return self._slices
