"""Waiting in async programs: through the event loop, with many tasks for one process.

Of the tasks that wait for the same descriptor, one watches and reads it; the others wait for their turn. The reader may
read the data that another task waits for, which then would wait in vain: so the reader wakes it.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress

from anyio import CancelScope, fail_after, move_on_after
from anyio.lowlevel import checkpoint

from .._errors import HandleError
from ._loop import TaskWait
from ._writer_task import attend, delivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractContextManager
    from typing import Any, TypeVarTuple

    from .._processes.endpoints import Source
    from .._processes.flows import Flow, Result
    from .._processes.link import Link

    Args = TypeVarTuple("Args")


def limited(limit: float | None) -> AbstractContextManager[object]:
    """Return a context manager that raises TimeoutError after so many seconds; without a limit, it has no scope.

    ``leave`` has to follow an exception.
    """
    return nullcontext() if limit is None else fail_after(limit)


def leave(scope: AbstractContextManager[object], error: BaseException) -> None:
    """Leave a cancel scope after an exception, unless that was done.

    An interrupt at the exit of a scope leaves it entered, and no scope around it can be left then.
    """
    with suppress(RuntimeError):  # it was left, or never entered
        scope.__exit__(type(error), error, error.__traceback__)


async def within(
    scope: AbstractContextManager[object], function: Callable[[*Args], Awaitable[Result]], *args: *Args
) -> Result | None:
    """Await the result of a function in a cancel scope. Return None if the scope ends the wait."""
    try:
        with scope:
            return await function(*args)
    except BaseException as error:
        leave(scope, error)
        raise
    return None


async def shielded(function: Callable[[*Args], Awaitable[Result]], *args: *Args) -> Result:
    """Await the result of a function, which no cancellation reaches."""
    return await within(CancelScope(shield=True), function, *args)  # type: ignore[return-value]  # it ends no wait


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


async def wait_for_process(
    link: Link, done: Callable[[], bool], source: Callable[[], Source | None], timeout: float | None
) -> bool:
    """Read the source whenever it is readable, until ``done()`` is true. Return False after ``timeout`` seconds."""
    if timeout is None:
        await _wait_long(link, done, source)
    elif timeout <= 0:  # a scope without time would be cancelled before anything is read
        return _look(link, done, source)
    else:
        await within(move_on_after(timeout), _wait_long, link, done, source)
    return done()


async def run(flow: Generator[Any, bool, Result], wait: Callable[..., Awaitable[bool]] = wait_for_process) -> Result:
    """Run a flow to its end, and wait for everything that it needs, by ``wait``. Raises the exceptions of the flow.

    A cancellation leaves the link as it is: the same flow can be started again.
    """
    await checkpoint()  # none follows: asyncio's own cancellation comes even to a shielded one, and drops the result
    attend()
    return await follow(flow, wait)


async def follow(flow: Generator[Any, bool, Result], wait: Callable[..., Awaitable[bool]]) -> Result:
    """Run a flow to its end, as ``run`` does, without a checkpoint before."""
    try:
        need = next(flow)
        while True:
            need = flow.send(await wait(*need))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # StopIteration does not know its type
    finally:
        flow.close()


async def _wait_long(link: Link, done: Callable[[], bool], source: Callable[[], Source | None]) -> None:
    while not done():
        watched = source()
        if watched is None:
            await delivered(link)
        elif watched[0] < 0:  # its template is gone and there is no pidfd: nothing will ever report its end
            with link.lock:
                watched[1]()
        else:
            await _read(link, *watched)


async def _read(link: Link, fd: int, read: Callable[[], None]) -> None:
    """Wait for the descriptor and read it, or wait until another task has read it."""
    waiter = _TaskWaiter()
    try:
        try:
            with link.lock:  # any thread may drop a handle, also of another process
                reads = link.begin_wait(waiter, fd)
            if not reads:
                await waiter.woken()
            elif not _was_read(link, fd, read) and await waiter.readable(fd):
                with link.lock:
                    read()
        finally:
            waiter.leave_link(link)
    except BaseException:
        waiter.leave_link(link)  # again: an interrupt may have come in the middle of it
        raise


def _was_read(link: Link, fd: int, read: Callable[[], None]) -> bool:
    """Return whether a reader that an interrupt has stopped has read data: nothing more may become readable."""
    if not link.has_read(fd):
        return False
    with link.lock:
        read()
    return not link.has_read(fd)


class _TaskWaiter(TaskWait):
    """A wait of one task for the descriptor ``fd``."""

    __slots__ = ("fd", "reader")

    def __init__(self) -> None:
        super().__init__()
        self.fd = -1
        self.reader: object = self  # unique, because no other wait is nested in this one

    def leave_link(self, link: Link) -> None:
        """End the wait. Leaving twice is harmless."""
        self.leave()
        with link.lock:
            link.end_wait(self)
            link.close_finished()


class OneTask:
    """The right to wait for the next result of a map, which one task has at a time."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False

    def check(self) -> None:
        """Raise HandleError if a task waits: the next result is for that one."""
        if self.taken:
            raise HandleError(
                "__anext__() on the results of a map while another task waits for the next one: let one task take "
                "them, and pass them on"
            )

    def __enter__(self) -> None:
        self.check()
        self.taken = True

    def __exit__(self, *_: object) -> None:
        self.taken = False
