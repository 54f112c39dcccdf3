"""How the async face waits: through the loop, with many tasks on one process.

Of the tasks that wait for the same descriptor one watches it, and reads what comes; the others wait for their turn. It
may read what they wait for, and then nothing more would come.
"""

from __future__ import annotations

from anyio import CancelScope, Event, move_on_after, sleep, wait_readable
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ._writer_task import attend, delivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._processes.endpoints import Source
    from .._processes.flows import Dialogue, Result
    from .._processes.link import Link

MOMENT = 0.01  # seconds between looks at what nothing wakes for


async def run(dialogue: Dialogue[Result]) -> Result:
    """Go through a dialogue, waiting for all that it needs. Raises what it raises.

    Cancelled, it leaves the link as it is: the same dialogue can be begun anew.
    """
    await checkpoint_if_cancelled()
    attend()
    try:
        need = next(dialogue)
        while True:
            need = dialogue.send(await _wait(*need))
    except StopIteration as stop:
        await cancel_shielded_checkpoint()
        return stop.value  # type: ignore[no-any-return]  # StopIteration does not know its type
    finally:
        dialogue.close()


def run_now(dialogue: Dialogue[Result]) -> Result:
    """Go through a dialogue without waiting: with what has come already."""
    try:
        link, done, source, _ = next(dialogue)
        while True:
            link, done, source, _ = dialogue.send(_look(link, done, source))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # as above


def _look(link: Link, done: Callable[[], bool], source: Callable[[], Source | None]) -> bool:
    before = None
    while not done() and (watched := source()) is not None and link.news() != before:
        before = link.news()
        if not link.waiters:  # or somebody would wait for what is read here
            with link.lock:
                watched[1]()
    return done()


async def _wait(
    link: Link, done: Callable[[], bool], source: Callable[[], Source | None], timeout: float | None
) -> bool:
    """Read the source whenever it is readable, until it is done; False when the timeout, in seconds, is over before."""
    with move_on_after(timeout) if timeout is not None else CancelScope():
        while not done():
            watched = source()
            if watched is None:
                await delivered(link)
            elif watched[0] < 0:  # it was closed in between: who has read its end is about to note it
                await sleep(MOMENT)
            else:
                await _read(link, *watched)
    return done()


async def _read(link: Link, fd: int, read: Callable[[], None]) -> None:
    """Wait for the descriptor and read it, or wait until another task has."""
    waiter = _Waiter()
    try:
        with link.lock:  # a handle, of another process too, may be dropped by any thread
            reads = link.begin_wait(waiter, fd)
        if reads:
            waiter.scope = CancelScope()
            with waiter.scope:
                if link.has_read(fd):  # by somebody whom an interrupt has stopped
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


class _Waiter:
    """One wait of one task for the descriptor ``fd``."""

    __slots__ = ("fd", "reader", "scope", "turn")

    def __init__(self) -> None:
        self.fd = -1
        self.reader: object = self  # no other task waits in the middle of it
        self.scope: CancelScope | None = None  # of the one that reads
        self.turn: Event | None = None  # of another one

    def wake(self) -> None:
        """Let it look again."""
        if self.scope is not None:
            self.scope.cancel()
        if self.turn is not None:
            self.turn.set()
