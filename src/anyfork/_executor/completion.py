"""Delivery of events and log records, and of results to futures whose lock is held. No other lock is held."""

from __future__ import annotations

from collections import deque
from math import inf
from time import monotonic

from .._system.log import CRITICAL, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._calls.events import Event

PAUSE = 0.02  # seconds between attempts to notify a future whose lock is held
ATTEMPTS = 50  # afterwards the future is notified without the lock, which an interrupt has left held


class Completion:
    """The futures that could not be notified because their lock was held. ``wake_at`` is the time of the next attempt.

    A thread that queries a future holds its lock for a moment. The lock may stay held for ever if an interrupt stops
    the query, or if a signal handler waits in the middle of it. The thread of an Executor never waits for the lock:
    it notifies all other futures meanwhile.
    """

    def __init__(self) -> None:
        self.wake_at = inf
        self._untold: deque[tuple[Callable[[bool], bool], int]] = deque()  # attempts, and their number so far

    def later(self, attempt: Callable[[bool], bool]) -> None:
        """Repeat the attempt soon, until it returns True. The argument True tells it to go on without the lock."""
        self._untold.append((attempt, 0))
        self.wake_at = monotonic() + PAUSE

    def go_on(self) -> None:
        """Make the attempts that are due."""
        if monotonic() < self.wake_at:
            return
        self.wake_at = inf
        for _ in range(len(self._untold)):
            attempt, tried = self._untold.popleft()
            if not attempt(tried >= ATTEMPTS):
                self._untold.append((attempt, tried + 1))
                self.wake_at = monotonic() + PAUSE

    def finish(self) -> None:
        """Notify all futures now, because there will be no further attempt."""
        while self._untold:
            self._untold.popleft()[0](True)


def handle_event(event: Event) -> None:
    """Call the handler of an event. An error of a job's handler fails the job."""
    try:
        event.handle()
    except BaseException as error:  # SystemExit too: it must not end the thread that all jobs depend on
        event.not_handled(error)


class LogEntry:
    """A log record that is written where no lock is held, because log handlers are arbitrary user code."""

    __slots__ = ("_level", "_name", "_text")
    unwanted = False

    def __init__(self, name: str, text: str, level: int = CRITICAL) -> None:
        self._name = name
        self._text = text
        self._level = level

    def fail(self, error: BaseException | None) -> None:
        """Write the record, with the error."""
        write_record(self._level, "%s", self._text, error=error, name=self._name)

    def cancel(self) -> None:
        """Write the record, which has no error."""
        self.fail(None)
