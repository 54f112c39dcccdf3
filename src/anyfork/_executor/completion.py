"""Telling those who wait what has become of their jobs. Without any lock: callbacks and handlers are anybody's code."""

from __future__ import annotations

from collections import deque
from math import inf
from time import monotonic

from .._calls.call import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

PAUSE = 0.02  # seconds between attempts to tell somebody whose lock is held
ATTEMPTS = 50  # after which it is told without the lock: an interrupt has left it held


class Telling:
    """Those whose lock was held when they were to be told. ``wake_at`` is when to try again.

    The lock of a future is held for a moment by whoever asks the future something. It may be held for ever, where an
    interrupt has come in the middle of that, or where a signal handler waits in the middle. The thread of an Executor
    never waits for it: all others are told meanwhile.
    """

    def __init__(self) -> None:
        self.wake_at = inf
        self._untold: deque[tuple[Callable[[bool], bool], int]] = deque()  # and how often each was tried

    def later(self, attempt: Callable[[bool], bool]) -> None:
        """Try this again soon, until it returns True. It is called with True when it is not to ask for the lock."""
        self._untold.append((attempt, 0))
        self.wake_at = monotonic() + PAUSE

    def go_on(self) -> None:
        """Try again, if it is time."""
        if monotonic() < self.wake_at:
            return
        self.wake_at = inf
        for _ in range(len(self._untold)):
            attempt, tried = self._untold.popleft()
            if not attempt(tried >= ATTEMPTS):
                self._untold.append((attempt, tried + 1))
                self.wake_at = monotonic() + PAUSE

    def finish(self) -> None:
        """Tell all of them now: nobody will try again."""
        while self._untold:
            self._untold.popleft()[0](True)


def tell(finished: Iterable[tuple[Any, Any]]) -> None:
    """Of each what there is: an answer, an error, or None for what is cancelled. Or an event, and None."""
    for who, what in finished:
        if type(what) is tuple:
            who.finish(what)
        elif type(who) is Event:
            _handle(who)
        elif what is None:
            who.cancel()
        else:
            who.fail(what)


def _handle(event: Event) -> None:
    """Give an event to who wants it."""
    if event.handler is None:
        event.drop()
        return
    try:
        event.handler(event.value())
    except BaseException as error:  # also SystemExit: it ends no thread that all others wait for
        log("anyfork", "the on_event of an Executor has raised", error)


class Record:
    """A log record, which is written where no lock is held: what handles it is anybody's code."""

    __slots__ = ("_name", "_text")
    unwanted = False

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text

    def fail(self, error: BaseException) -> None:
        """Write it."""
        log(self._name, self._text, error)


def log(name: str, text: str, error: BaseException) -> None:
    """Say it where nobody waits for it."""
    import logging

    logging.getLogger(name).critical(text, exc_info=error)
