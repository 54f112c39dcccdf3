"""What could not be sent or done at once, and who keeps it until it can.

No thread is started for it: whatever call on a handle comes next goes on with it, and so does the end of the program.
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
    from collections.abc import Callable
    from select import poll
    from typing import TypeVar

    from .link import Link

    Handle = TypeVar("Handle")

EXIT = 1.0  # seconds at the end of the program for what could not be delivered before

# Links that hold sockets. Handles may be collected as part of a cycle, and then the collector must not come to the
# sockets before the handle has said its last word on them.
open_links: set[Link] = set()
undelivered: set[Link] = set()  # links with a queue, kept alive until it is delivered
_late: deque[tuple[Link, Callable[[], None]]] = deque()  # what could not be done at once


def destructor(delete: Callable[[Handle], None]) -> Callable[[Handle], None]:
    """Let a destructor fail in silence where the interpreter, at its end, has taken modules apart that it would use."""
    modules = sys.modules  # which is emptied before

    def delete_if_possible(self: Handle) -> None:
        try:
            delete(self)
        except (TypeError, AttributeError):
            if "anyfork" in modules:
                raise

    return delete_if_possible


def pending() -> bool:
    """Whether there is something to go on with."""
    return bool(undelivered or _late)


def when_free(link: Link, action: Callable[[], None]) -> None:
    """Do something to a link now, or soon, if another thread holds its lock. Never waits for that: this may run in the
    destructor of a handle, so in the middle of anything, with any other lock held."""
    if not try_locked(link.lock, action):
        _late.append((link, action))


def deliver(timeout: float = 0.0) -> None:
    """Go on with what earlier calls could not deliver, of handles that may be gone; for at most ``timeout`` seconds."""
    for _ in range(len(_late)):
        when_free(*_late.popleft())
    deadline = monotonic() + timeout
    while undelivered:
        poller = new_poll()
        for link in list(undelivered):
            try_locked(link.lock, partial(_write_on, link, poller))  # as in when_free
        left = deadline - monotonic()
        if left <= 0 or not undelivered:
            return
        poller.poll(left * 1000)


def _write_on(link: Link, poller: poll) -> None:
    if link.foreign:
        undelivered.discard(link)
        return
    try:
        link.flush()
    except OSError:  # that process takes nothing any more, which is no concern of this call
        return
    for fd in link.unsent_here():
        poller.register(fd, POLLOUT)


atexit.register(deliver, EXIT)
