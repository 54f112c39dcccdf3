"""Waiting in async programs: through the event loop, with many tasks for one process.

Of the tasks that wait for the same descriptor, one watches and reads it; the others wait for their turn. The reader may
read the data that another task waits for, which then would wait in vain: so the reader wakes it.
"""

from __future__ import annotations

from anyio import CancelScope, Event, move_on_after, wait_readable
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ._writer_task import attend, delivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._processes.endpoints import Source
    from .._processes.flows import Flow, Result
    from .._processes.link import Link


async def run(flow: Flow[Result]) -> Result:
    """Run a flow to its end, and wait for everything that it needs. Raises the exceptions of the flow.

    A cancellation leaves the link as it is: the same flow can be started again.
    """
    await checkpoint_if_cancelled()
    attend()
    try:
        need = next(flow)
        while True:
            need = flow.send(await _wait(*need))
    except StopIteration as stop:
        await cancel_shielded_checkpoint()
        return stop.value  # type: ignore[no-any-return]  # StopIteration does not know its type
    finally:
        flow.close()


def run_now(flow: Flow[Result]) -> Result:
    """Run a flow to its end without waiting, with the data that has arrived already."""
    try:
        link, done, source, _ = next(flow)
        while True:
            link, done, source, _ = flow.send(_look(link, done, source))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # as above


def _look(link: Link, done: Callable[[], bool], source: Callable[[], Source | None]) -> bool:
    before = None
    while not done() and (watched := source()) is not None and link.news() != before:
        before = link.news()
        if not link.waiters:  # otherwise a waiting task might miss the data that is read here
            with link.lock:
                watched[1]()
    return done()


async def _wait(
    link: Link, done: Callable[[], bool], source: Callable[[], Source | None], timeout: float | None
) -> bool:
    """Read the source whenever it is readable, until ``done()`` is true. Return False after ``timeout`` seconds."""
    with move_on_after(timeout) if timeout is not None else CancelScope():
        while not done():
            watched = source()
            if watched is None:
                await delivered(link)
            elif watched[0] < 0:  # its template is gone and there is no pidfd: nothing will ever report its end
                with link.lock:
                    watched[1]()
            else:
                await _read(link, *watched)
    return done()


async def _read(link: Link, fd: int, read: Callable[[], None]) -> None:
    """Wait for the descriptor and read it, or wait until another task has read it."""
    waiter = _TaskWaiter()
    try:
        with link.lock:  # any thread may drop a handle, also of another process
            reads = link.begin_wait(waiter, fd)
        if reads:
            waiter.scope = CancelScope()
            with waiter.scope:
                if link.has_read(fd):  # by a reader that an interrupt has stopped: nothing more becomes readable
                    with link.lock:
                        read()
                    if not link.has_read(fd):
                        return
                await wait_readable(fd)
                with link.lock:
                    read()
        else:
            waiter.turn = Event()
            await waiter.turn.wait()
    finally:
        with link.lock:
            link.end_wait(waiter)
            link.close_finished()


class _TaskWaiter:
    """A wait of one task for the descriptor ``fd``."""

    __slots__ = ("fd", "reader", "scope", "turn")

    def __init__(self) -> None:
        self.fd = -1
        self.reader: object = self  # unique, because no other wait is nested in this one
        self.scope: CancelScope | None = None  # of a task that reads
        self.turn: Event | None = None  # of a task that waits for its turn

    def wake(self) -> None:
        """Let the task check again."""
        if self.scope is not None:
            self.scope.cancel()
        if self.turn is not None:
            self.turn.set()
