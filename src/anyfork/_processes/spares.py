"""The spares of a template: forks without attributes, made before anybody asks for them. Their owner keeps the links.

A spare is an ordinary fork, whose process waits for its function, so to hand one out sends nothing. ``fork`` takes one;
the next is made when the function of that one has been entered and its handle is used again, so that it is not in the
way (_processes.start).

A spare is stale when its template was told something since that may change it: it ends then. So each spare is noted
with the number of such changes before it.

How many there are is a number that the user gives, or follows the starts (``maximum`` is None): one, while starts come
one at a time with pauses between them. A burst gains nothing from spares, and starts that are rare are not worth one.
"""

from __future__ import annotations

import os
from collections import deque
from math import inf
from time import monotonic

from .._system.limits import memory_is_short, usable_cpus
from .._system.signatures import Generic
from .undelivered import when_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar

    from .session import Session

    class Kept(Protocol):
        """A link, as far as this module needs to know it."""

        session: Session
        lock: RLock

        @property
        def foreign(self) -> bool: ...
        def flush(self) -> bool: ...
        def unsent_here(self) -> list[int]: ...
        def is_heard(self) -> bool: ...
        def is_reported(self) -> bool: ...
        def ended(self) -> bool: ...
        def read_news(self, done: Callable[[], bool], /) -> bool: ...
        def let_go(self) -> None: ...

    Spare = TypeVar("Spare", bound=Kept)

LOOKS = 1.0  # seconds between two looks at the CPUs and the memory, which cost more than a start
FEWEST_CPUS = 2  # on one, to make the next spare delays the process that has just started
# Seconds between two starts. After less than a pause the next spare would not be there in time; who waits for longer
# than IDLE has less use of a spare than its memory costs.
PAUSE, IDLE = 0.005, 60.0
PAUSES = 2  # in a row, after which there is a spare
# The forks of a template after which there is no spare for two starts: a large heap moves to huge pages if it has been
# forked often enough, and only while the template has no processes.
HEAP_MOVES = range(8, 10)

following: set[Spares[Any]] = set()  # those that follow the starts and have spares now
os.register_at_fork(after_in_child=following.clear)  # they belong to the process that has made them


class Spares(Generic["Spare"]):
    """The spares of one template, as many as its ``maximum`` says; none where CPUs or memory are short."""

    __slots__ = ("_last_start", "_links", "_look_again", "_pauses", "_scarce", "changes", "maximum", "unused")

    def __init__(self) -> None:
        self.maximum: int | None = 0
        self._last_start, self._pauses = -inf, 0
        self.changes = 0  # how often the template was told something that may change it
        self.unused = 0  # how many of its forks were spares that nobody has asked for
        self._links: deque[tuple[int, Spare]] = deque()
        self._look_again, self._scarce = 0.0, False

    def __len__(self) -> int:
        return len(self._links)

    def add(self, spare: Spare, changes: int) -> None:
        """Keep a spare that was asked for after so many changes of its template."""
        self.unused += 1
        self._links.append((changes, spare))
        if self.maximum is None:
            following.add(self)
        else:
            self.end(self.maximum)  # a signal handler may have added others meanwhile

    def wanted(self, forks: int) -> int:
        """Return how many spares there should be now, after so many forks of the template."""
        if self.maximum is not None:
            return self.maximum
        return int(self._pauses >= PAUSES and forks not in HEAP_MOVES)

    def note_start(self, now: float) -> None:
        """Note that a process is asked for. End the spares of other templates that nobody has used for long."""
        pause, self._last_start = now - self._last_start, now
        self._pauses = self._pauses + 1 if PAUSE <= pause <= IDLE else 0
        if following:
            for spares in following.copy():
                if now - spares._last_start > IDLE:
                    spares.end()

    def take(self, template: Spare) -> Spare | None:
        """Remove and return the template's oldest spare; None if it is not forked yet. End stale ones."""
        while self._links:
            try:
                changes, spare = self._links.popleft()
            except IndexError:  # another thread has taken it
                return None
            if changes == self.changes:
                if not spare.is_reported():  # nor forked: starts come faster than spares
                    self._links.appendleft((changes, spare))
                    return None
                if _lives(spare, template):
                    self.unused -= 1
                    return spare
            _end(spare)
        return None

    def end(self, most: int = 0) -> None:
        """End the spares beyond so many."""
        while len(self._links) > most:
            try:
                _, spare = self._links.pop()
            except IndexError:  # another thread has taken it
                break
            _end(spare)
        if not self._links:
            following.discard(self)

    def scarce(self) -> bool:
        """Return whether CPUs or memory are too short for spares."""
        now = monotonic()
        if now >= self._look_again:
            self._look_again = now + LOOKS
            self._scarce = usable_cpus() < FEWEST_CPUS or memory_is_short()
        return self._scarce


def _lives(spare: Kept, template: Kept) -> bool:
    """Return whether neither the spare nor its template, which reports its end, is known to have ended."""
    if spare.is_heard():  # it has failed or ended, though its template may not have reported that yet
        return False
    if not template.is_heard():
        return True
    session = spare.session
    return not (spare.read_news(spare.ended) or session.status_ended or session.protocol_error)


def _end(spare: Kept) -> None:
    """Let a spare end by the end of its socket: told to close, it would report a failure that nobody waited for."""
    when_free(spare, spare.let_go)
