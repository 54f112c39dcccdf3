"""The tasks that write queues while a loop runs: one for each process whose socket does not take everything at once.

So a plain call never waits for a slow or stopped template, whatever is queued, and a queue is delivered although no
task awaits that. Where no loop runs, the next call on any handle continues the delivery, as in blocking programs.
"""

from __future__ import annotations

import sys

from anyio import Event, sleep, wait_writable
from anyio.lowlevel import checkpoint

from .._processes.undelivered import RETRY, deliver, pending, undelivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any

    from .._processes.link import Link


class _WriterTask:
    """The task that writes the queue of one link. ``done`` is set at its end, for tasks that wait for the delivery."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._task: object = None  # kept here, because its loop holds only a weak reference
        self._loop = _asyncio_loop()
        self.done = Event()
        self.fd = -1
        self.reader: object = self  # see _processes.endpoints.Waiter

    def start(self) -> bool:
        """Start the task in the running loop. Return False if no loop runs."""
        if self._loop is not None:
            self._task = self._loop.create_task(self._run())
        elif _in_trio():
            import trio

            trio.lowlevel.spawn_system_task(self._run)
        else:
            return False
        _writer_tasks[self._link] = self
        return True

    @property
    def stopped(self) -> bool:
        """True if the loop was closed before its tasks had ended."""
        return self._loop is not None and self._loop.is_closed()

    def wake(self) -> None:
        """Do nothing: the task waits until its link can send, even after the handle was closed."""

    async def _run(self) -> None:
        try:
            while self._link.outbox:
                await self._go_on(self._link)
        except OSError:  # the process takes nothing more: tasks that wait for it learn why
            pass
        finally:
            if _writer_tasks.get(self._link) is self:
                del _writer_tasks[self._link]
            self.done.set()

    async def _go_on(self, link: Link) -> None:
        """Write as much as possible now, and wait until more may be possible."""
        with link.lock:
            pollable = link.flush()
            unsent = link.unsent_here()
            filling = link.outbox.filling
            link.begin_wait(self, -1)
        try:
            if filling:
                await checkpoint()
            elif unsent and pollable:
                await wait_writable(unsent[0])
            elif unsent:
                await sleep(RETRY)
        finally:
            with link.lock:
                link.end_wait(self)
                link.close_finished()


_writer_tasks: dict[Link, _WriterTask] = {}


def _asyncio_loop() -> AbstractEventLoop | None:
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def attend() -> None:
    """Deliver queues as far as possible now, and let the running loop, if there is one, deliver the rest."""
    if not pending():
        return
    deliver()
    links: list[Any] = [*undelivered]
    for link in links:
        writer = _writer_tasks.get(link)
        if (writer is None or writer.stopped) and not _WriterTask(link).start():
            return


async def delivered(link: Link) -> None:
    """Wait until the queue of the link is empty, or no task writes it any more."""
    attend()
    while link.outbox and (writer := _writer_tasks.get(link)) is not None:
        await writer.done.wait()
