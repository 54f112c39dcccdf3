"""The spares of a template: forks without attributes, made before anybody asks for them. Their owner keeps the links.

A spare is an ordinary fork, whose process waits for its function, so to hand one out sends nothing. ``fork`` takes one;
the next is made when the function of that one has been entered and its handle is used again, so that it is not in the
way (_processes.start).

A spare is stale when its template was told something since that may change it: it ends then. So each spare is noted
with the number of such changes before it.
"""

from __future__ import annotations

from collections import deque
from time import monotonic

from .._system.cpus import usable_cpus
from .._system.memory import memory_is_short
from .._system.signatures import Generic
from .undelivered import when_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable
    from typing import Protocol, TypeVar

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


class Spares(Generic["Spare"]):
    """The spares of one template: at most ``maximum``, none where CPUs or memory are short."""

    __slots__ = ("_links", "_look_again", "_scarce", "changes", "maximum", "unused")

    def __init__(self) -> None:
        self.maximum = 0
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
        self.end(self.maximum)  # a signal handler may have added others meanwhile

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
                return
            _end(spare)

    def scarce(self) -> bool:
        """Return whether CPUs or memory are too short for spares."""
        now = monotonic()
        if now >= self._look_again:
            self._look_again = now + LOOKS
            self._scarce = usable_cpus() < FEWEST_CPUS or memory_is_short()
        return self._scarce


def _lives(spare: Kept, template: Kept) -> bool:
    """Return whether neither the spare nor its template, which reports its end, is known to have ended."""
    if not (spare.is_heard() or template.is_heard()):  # a spare says nothing, and a socket hangs up with its process
        return True
    session = spare.session
    return not (spare.read_news(spare.ended) or session.status_ended or session.protocol_error)


def _end(spare: Kept) -> None:
    """Let a spare end by the end of its socket: told to close, it would report a failure that nobody waited for."""
    when_free(spare, spare.let_go)
