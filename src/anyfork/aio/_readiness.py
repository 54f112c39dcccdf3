"""Repeated waits until the same descriptor is readable, at less cost than a new registration in the loop each time."""

from __future__ import annotations

import sys

from anyio import wait_readable

from .._system import this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from select import epoll


class Readiness:
    """An owned epoll object in one event loop. One task at a time waits for it."""

    def __init__(self, events: epoll) -> None:
        self.events = events
        self._fd = events.fileno()
        asyncio = sys.modules.get("asyncio")
        self._loop: AbstractEventLoop | None = None if asyncio is None else asyncio._get_running_loop()
        self._owner = this_process.pid
        self._watched = False  # the loop calls _ready
        self._future: Future[None] | None = None

    async def wait(self) -> None:
        """Wait until the epoll object is readable."""
        loop = self._loop
        if loop is None:
            await wait_readable(self._fd)
            return
        if not self._watched:
            loop.add_reader(self._fd, self._ready)
            self._watched = True
        self._future = future = loop.create_future()
        try:
            await future
        finally:
            self._future = None

    def _ready(self) -> None:
        """Wake the task that waits; if none waits now, stop watching. The loop calls this while data is readable."""
        future = self._future
        if future is None:
            self._ignore()
        elif not future.done():
            future.set_result(None)

    def _ignore(self) -> None:
        if self._watched:
            self._watched = False
            assert self._loop is not None
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Close the epoll object, from any thread.

        The loop has to forget the descriptor first, because its number may soon belong to another file.
        """
        if self._owner != this_process.pid:  # in a forked copy: the owner's loop would forget the descriptor, too
            self.events.close()
            return
        if self._watched and self._loop is not None and not self._loop.is_closed():
            if sys.modules["asyncio"]._get_running_loop() is not self._loop:
                self._loop.call_soon_threadsafe(self._close)
                return
            self._ignore()
        self.events.close()

    def _close(self) -> None:
        self._ignore()
        self.events.close()
