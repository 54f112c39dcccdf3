"""Waiting for descriptors, also in a program that gevent or eventlet patches, before or after it imports anyfork.

These libraries replace functions of the select module by others that let greenlets run meanwhile, and remove functions
for which they have no replacement: epoll, and with eventlet also poll. A thread of such a program is a greenlet, so a
wait in an original function would stop all greenlets. Therefore the names are looked up when they are used, and a wait
for an epoll object is a wait for its descriptor.
"""

from __future__ import annotations

import select
import sys
from select import POLLIN, POLLOUT

from _anyfork_child.wire.descriptors import FIRST, duplicate
from _anyfork_child.wire.platform import epoll as _epoll
from _anyfork_child.wire.platform import poll as _poll

from .._errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def patched_by() -> str:
    """Return the name of the library that has replaced this program's threads and waits; empty for none."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and any(map(gevent.is_module_patched, ("select", "threading"))):
        return "gevent"
    if eventlet is not None and any(map(eventlet.is_monkey_patched, ("select", "thread"))):
        return "eventlet"
    return ""


def check_threads(call: str) -> None:
    """Raise StartError in a patched program, for a call that needs threads that may block."""
    library = patched_by()
    if library:
        raise StartError(
            f"{call}() needs real threads, and {library} has replaced those of this program: its pool would stop all "
            "of the program; use anyfork.Executor"
        )


class SelectPoll:
    """A substitute for a poll object that uses the function ``select``, which eventlet leaves in place."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, fd: Any, events: int) -> None:
        """Watch a descriptor, or an object that has one."""
        self._wanted[fd if isinstance(fd, int) else fd.fileno()] = events

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Wait; return the descriptors that are ready, and their events."""
        readers = [fd for fd, events in self._wanted.items() if events & POLLIN]
        writers = [fd for fd, events in self._wanted.items() if events & POLLOUT]
        seconds = None if milliseconds is None else milliseconds / 1000
        readable, writable, _ = select.select(readers, writers, (), seconds)
        return [(fd, POLLIN * (fd in readable) | POLLOUT * (fd in writable)) for fd in {*readable, *writable}]


def new_poll() -> select.poll:
    """Return a poll object that waits as the program does: by the patched functions, if there are any."""
    if hasattr(select, "poll"):
        return select.poll()
    return SelectPoll()  # type: ignore[return-value]  # it has the methods that are used


def is_ready(fd: int, events: int = POLLIN) -> bool:
    """Return whether a descriptor is ready, without waiting."""
    poller: select.poll = _poll()
    poller.register(fd, events)
    return bool(poller.poll(0))


def new_epoll() -> select.epoll:
    """Return an epoll object, for waits by ``wait_for`` only. Raises OSError, and StartError without epoll."""
    if _epoll is None:
        raise StartError("workers need epoll, which only Linux has: use processes and their channels on this system")
    events: select.epoll = _epoll()
    if events.fileno() >= FIRST:
        return events
    with events:
        return _epoll.fromfd(duplicate(events.fileno()))  # type: ignore[no-any-return]  # a module without types


def wait_for(events: select.epoll, seconds: float | None) -> list[tuple[int, int]]:
    """Wait for an epoll object, as the program waits, for at most ``seconds``; return its events."""
    if not hasattr(select, "epoll"):
        poller = new_poll()
        poller.register(events.fileno(), POLLIN)
        poller.poll(None if seconds is None else seconds * 1000)
        seconds = 0.0
    return events.poll(seconds)
