"""Targets: what was wanted, what was measured, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .tables import NONE, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Bound(Enum):
    """On which side of its limit a target lies."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True, slots=True)
class Target:
    """One figure with its limit; ``measured`` is None when it could not be measured."""

    text: str
    bound: Bound
    limit: float
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Whether the figure is within its limit; None when there is none."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.bound is Bound.AT_LEAST else self.measured <= self.limit

    @property
    def verdict(self) -> str:
        """The word for the table."""
        return {True: "pass", False: "MISSED", None: NONE}[self.met]


def at_least(text: str, limit: float, measured: float | None) -> Target:
    """A target that is met from the limit upwards."""
    return Target(text, Bound.AT_LEAST, limit, measured)


def at_most(text: str, limit: float, measured: float | None) -> Target:
    """A target that is met up to the limit."""
    return Target(text, Bound.AT_MOST, limit, measured)


def targets_table(targets: Sequence[Target]) -> str:
    """All targets with their verdicts, and how many are missed."""
    rows = [
        [t.text, f"{t.bound.value} {t.limit:g}", NONE if t.measured is None else f"{t.measured:.3g}", t.verdict]
        for t in targets
    ]
    missed = sum(t.met is False for t in targets)
    measured = sum(t.met is not None for t in targets)
    return table(f"Targets: {missed} of {measured} missed", ["", "wanted", "measured", ""], rows)


def targets_data(targets: Sequence[Target]) -> list[dict[str, object]]:
    """The same for JSON."""
    return [
        {"target": t.text, "bound": t.bound.value, "limit": t.limit, "measured": t.measured, "met": t.met}
        for t in targets
    ]
