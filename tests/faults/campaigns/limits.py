"""What campaigns find and what cannot be otherwise: each kind with its reason.

A row holds for failures of one campaign whose place, operation or text the patterns match. A run of all operations of a
face fails for rows of that face that no failure needed: what has been mended leaves the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from .supervisor import Outcome


@dataclass(frozen=True, slots=True)
class Limit:
    """A kind of failures that is known, of one face or of all. The patterns are searched for; an empty one matches
    everything."""

    campaign: str
    reason: str
    face: str = ""
    operation: str = ""
    variant: str = ""
    place: str = ""
    text: str = ""

    def covers(self, campaign: str, outcome: Outcome) -> bool:
        """Return whether a failure is of this kind."""
        return (
            campaign == self.campaign
            and bool(re.search(self.operation, outcome.operation))
            and bool(re.search(self.variant, outcome.variant))
            and bool(re.search(self.place, outcome.place))
            and bool(re.search(self.text, outcome.text))
        )


LIMITS: tuple[Limit, ...] = (
    Limit(
        "interrupt",
        "The descriptors of an answer are numbers in a message, which an interrupt on their way to the decoder may lose.",
        face="worker",
        operation="call with large data",
        text=r"descriptor \d+ is left: /memfd:anyfork",
    ),
    Limit(
        "reenter",
        "The interrupted call holds a lock that the Executor's thread needs: a wait there could not end, and is refused.",
        variant="executor",
        text="the Executor cannot go on before that call does",
    ),
    Limit(
        "failure",
        "What fails is a call of Trio for its own descriptor, which wakes its loop. It ends the loop, and asks no task.",
        face="trio",
        variant="owner",
        text="TrioInternalError",
    ),
    Limit(
        "failure",
        "A worker reads its pipe of permits without waiting. No permit means that its jobs were taken back, and the "
        "kernel never says so of a pipe that has some.",
        variant="child EAGAIN",
        place="^read$",
        text="TimeoutError|the next operation hangs",
    ),
    Limit(
        "failure",
        "multiprocessing takes its resource tracker for dead when a write to it fails, and waits for its end.",
        face="context",
        variant="owner",
        place="^write$",
        text="the program hangs",
    ),
    Limit(
        "failure",
        "EPIPE says that the other side has gone. The kernel never says so of one that lives, so it is believed.",
        variant="EPIPE",
    ),
)


def judge(campaign: str, outcome: Outcome) -> str:
    """Return the reason why a failure cannot be otherwise; empty for one that is a fault."""
    return next((limit.reason for limit in LIMITS if limit.covers(campaign, outcome)), "")


def stale(campaign: str, faces: Container[str], failures: Iterable[Outcome]) -> list[Limit]:
    """Return the rows of a campaign that no failure belongs to, after a run of all operations of these faces."""
    found = list(failures)
    return [
        limit
        for limit in LIMITS
        if limit.campaign == campaign
        and limit.face in faces
        and not any(limit.covers(campaign, outcome) for outcome in found)
    ]
