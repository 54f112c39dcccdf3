"""The undelivered: links and actions that could not be finished at once, kept until they can be.

No thread is started for them: the next call on any handle goes on with them, and so does the end of the program.
"""

from __future__ import annotations

import atexit
import sys
from collections import deque
from functools import partial
from select import POLLOUT
from time import monotonic

from .._system.locks import try_locked
from .._system.polling import new_poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable
    from select import poll
    from typing import Protocol, TypeVar

    class Sender(Protocol):
        """A link, as far as this module needs to know it."""

        @property
        def lock(self) -> RLock: ...
        @property
        def foreign(self) -> bool: ...
        def flush(self) -> bool: ...
        def unsent_here(self) -> list[int]: ...

    Handle = TypeVar("Handle")

RETRY = 0.01  # seconds between attempts when the kernel's limit of descriptors in flight is reached
EXIT = 1.0  # seconds at the end of the program for what is still undelivered

undelivered: set[Sender] = set()  # links with a queue, kept alive until it is delivered
_late: deque[tuple[Sender, Callable[[], None]]] = deque()  # actions that had to wait for a lock


def destructor(delete: Callable[[Handle], None]) -> Callable[[Handle], None]:
    """Let a destructor fail in silence if the interpreter, at its end, has already torn down modules that it needs."""
    modules = sys.modules  # emptied before the modules are torn down

    def delete_if_possible(self: Handle) -> None:
        try:
            delete(self)
        except (TypeError, AttributeError):
            if "anyfork" in modules:
                raise

    return delete_if_possible


def pending() -> bool:
    """Return whether anything is undelivered."""
    return bool(undelivered or _late)


def when_free(link: Sender, action: Callable[[], None]) -> None:
    """Run an action on a link now, or soon if another thread holds its lock.

    Never waits for the lock: this may run in the destructor of a handle, so in the middle of anything, with any other
    lock held.
    """
    if not try_locked(link.lock, action):
        _late.append((link, action))


def deliver(timeout: float = 0.0) -> None:
    """Deliver what earlier calls could not, also of handles that are gone; for at most ``timeout`` seconds."""
    _act_late()
    deadline = monotonic() + timeout
    while undelivered:
        poller = new_poll()
        stuck: list[Sender] = []
        for link in list(undelivered):
            try_locked(
                link.lock, partial(_write_on, link, poller, stuck)
            )  # does not wait for the lock, as in when_free
        left = deadline - monotonic()
        if left <= 0 or not undelivered:
            return
        poller.poll((min(left, RETRY) if stuck else left) * 1000)


def _act_late() -> None:
    for _ in range(len(_late)):
        try:
            link, action = _late.popleft()
        except IndexError:  # another thread delivers at the same time
            return
        when_free(link, action)


def _write_on(link: Sender, poller: poll, stuck: list[Sender]) -> None:
    """Write what a link's socket takes, and poll it for more; add the link to ``stuck`` if polling is no use."""
    if link.foreign:
        undelivered.discard(link)
        return
    try:
        pollable = link.flush()
    except OSError:  # that process takes nothing any more, which does not concern the present call
        return
    if not pollable:
        stuck.append(link)
        return
    for fd in link.unsent_here():
        poller.register(fd, POLLOUT)


atexit.register(deliver, EXIT)
