"""The event loop: the tasks and timers of a pool, and repeated waits until a descriptor is readable.

This is the one module that tells asyncio, uvloop and trio apart.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from math import inf
from time import monotonic

from anyio import wait_readable

from .._system import this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Coroutine, Generator
    from select import epoll
    from typing import Any, Protocol, TypeAlias

    class FutureLike(Protocol):
        """An awaitable for one task. The wait ends when ``set_result`` is called."""

        def done(self) -> bool: ...
        def set_result(self, result: None, /) -> None: ...
        def __await__(self) -> Generator[Any, Any, None]: ...

    class Handle(Protocol):
        """A scheduled action that can be cancelled."""

        def cancel(self) -> None: ...

    Loop: TypeAlias = "AsyncioLoop | TrioLoop"


def nothing() -> None:
    """Do nothing: for a loop that only has to look at its tasks."""


class AsyncioLoop:
    """A loop of asyncio, or another loop with the same interface."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: Callable[[], FutureLike] = loop.create_future
        self.soon: Callable[[Callable[[], object]], object] = loop.call_soon
        self._tasks: set[asyncio.Task[None]] = set()
        self._owner = this_process.pid
        self._running = sys.modules["asyncio"]._get_running_loop

    def from_anywhere(self, action: Callable[[], object]) -> None:
        """Run an action soon, unless the loop is closed or this is a forked copy of its process.

        May be called from any thread and at any point, even inside another call.
        """
        if not self.loop.is_closed() and self._owner == this_process.pid:
            self.loop.call_soon_threadsafe(action)

    @property
    def runs(self) -> bool:
        """True if this is the loop that runs in the calling thread."""
        return self._running() is self.loop

    @property
    def has_ended(self) -> bool:
        """True if nothing runs in this loop any more."""
        return self.loop.is_closed()

    def at(self, when: float, action: Callable[[], None]) -> Handle:
        """Run an action at the given time of time.monotonic. Return a handle that cancels it."""
        return self.loop.call_later(max(0.0, when - monotonic()), action)

    @property
    def between_tasks(self) -> bool:
        """True in a signal handler that has interrupted the loop itself; False if nobody can tell."""
        return False

    @property
    def is_cancelled(self) -> bool:
        """True if the current task was cancelled, and not only something that it has awaited."""
        task = sys.modules["asyncio"].current_task(self.loop)
        return task is None or task.cancelling() > 0

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Run a function of this library as a task."""
        task = self.loop.create_task(function(*args))
        self._tasks.add(task)  # the loop holds only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def read(self, fd: int, step: Callable[[], bool]) -> None:
        """Call ``step`` whenever the descriptor is readable, until it returns True. Raises exceptions of ``step``."""
        done = self.loop.create_future()

        def readable() -> None:
            if done.done():
                return
            try:
                if step():
                    done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        self.loop.add_reader(fd, readable)
        try:
            await done
        finally:
            if not self.loop.is_closed():
                self.loop.remove_reader(fd)


class TrioLoop:
    """A loop of trio. The pool's work beside the tasks of the program runs in system tasks."""

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self.soon: Callable[[Callable[[], object]], object] = self._token.run_sync_soon

    def from_anywhere(self, action: Callable[[], object]) -> None:
        """Run an action soon, if the loop still runs.

        May be called from any thread and at any point, even inside another call.
        """
        with suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(action)

    @property
    def runs(self) -> bool:
        """True if this is the loop that runs in the calling thread."""
        return self._trio.lowlevel.in_trio_run() and self._trio.lowlevel.current_trio_token() is self._token

    @property
    def has_ended(self) -> bool:
        """True if nothing runs in this loop any more."""
        try:
            self._token.run_sync_soon(nothing, idempotent=True)
        except self._trio.RunFinishedError:
            return True
        return False

    @property
    def between_tasks(self) -> bool:
        """True in a signal handler that has interrupted the loop itself."""
        return not self._trio.lowlevel.in_trio_task()

    @property
    def is_cancelled(self) -> bool:
        """True if the current task was cancelled."""
        return self._trio.current_effective_deadline() == -inf

    def waiting(self) -> FutureLike:
        """Make an awaitable for one task."""
        return _TrioFuture()

    def at(self, when: float, action: Callable[[], None]) -> Handle:
        """Run an action at the given time of time.monotonic. Return a handle that cancels it."""
        scope = self._trio.CancelScope()
        self._trio.lowlevel.spawn_system_task(self._do_at, when, action, scope)
        return scope

    async def _do_at(self, when: float, action: Callable[[], None], scope: Any) -> None:
        with scope:
            await self._trio.sleep(max(0.0, when - monotonic()))
            action()

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Run a function of this library as a task."""
        self._trio.lowlevel.spawn_system_task(function, *args)

    async def read(self, fd: int, step: Callable[[], bool]) -> None:
        """Call ``step`` whenever the descriptor is readable, until it returns True. Raises exceptions of ``step``."""
        await self._trio.lowlevel.wait_readable(fd)
        while not step():
            await self._trio.lowlevel.wait_readable(fd)


class _TrioFuture:
    __slots__ = ("_done", "_task", "_token")

    def __init__(self) -> None:
        self._done = False
        self._task: Any = None
        self._token: Any = None

    def done(self) -> bool:
        return self._done

    def set_result(self, _: None, /) -> None:
        self._done = True
        if self._task is None:
            return
        trio = sys.modules["trio"]
        if _interrupts(self._task):
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._resume)
        else:
            self._resume()

    def _resume(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            sys.modules["trio"].lowlevel.reschedule(task)

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        lowlevel = sys.modules["trio"].lowlevel
        self._token = lowlevel.current_trio_token()
        self._task = lowlevel.current_task()
        if self._done:  # now: a signal handler that comes later finds the task
            self._task = None
            await lowlevel.cancel_shielded_checkpoint()
            return
        await lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> Any:
        self._task = None
        self._done = True  # as a future that is cancelled
        return sys.modules["trio"].lowlevel.Abort.SUCCEEDED


def _interrupts(task: object) -> bool:
    """Return whether this is a signal handler that has interrupted trio itself or a task, or another thread.

    What it changes in trio may be overwritten, or found only after the next event: it has to ask trio to call it.
    """
    lowlevel = sys.modules["trio"].lowlevel
    return not lowlevel.in_trio_task() or lowlevel.current_task() is task


def running_loop() -> Loop | None:
    """Return the loop that runs in this thread, or None if there is none."""
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    if loop is not None:
        return AsyncioLoop(loop)
    trio = sys.modules.get("trio")
    return TrioLoop() if trio is not None and trio.lowlevel.in_trio_run() else None


def is_cancelled() -> bool:
    """Return whether the current task was cancelled, and not only something that it has awaited."""
    loop = running_loop()
    return loop is None or loop.is_cancelled


class TaskWait:
    """A wait of one task: until ``wake`` is called, or a descriptor is readable.

    It enters no cancel scope. An interrupt could leave a scope entered, and no scope around it could be left then.
    """

    __slots__ = ("_fd", "_future", "_loop", "_readable", "_task", "_token")

    def __init__(self) -> None:
        trio = sys.modules.get("trio")
        self._fd = -1  # watched by asyncio's loop
        self._readable = False
        self._loop: AbstractEventLoop | None = None
        self._token: Any = None
        self._task: Any = None
        self._future: FutureLike
        if trio is not None and trio.lowlevel.in_trio_task():
            self._token = trio.lowlevel.current_trio_token()
            self._task = trio.lowlevel.current_task()
            self._future = _TrioFuture()
        else:
            self._loop = loop = sys.modules["asyncio"].get_running_loop()
            self._future = loop.create_future()

    async def woken(self) -> None:
        """Wait until ``wake`` is called, perhaps before."""
        await self._future

    async def readable(self, fd: int) -> bool:
        """Wait until the descriptor is readable. Return False if ``wake`` was called instead, perhaps before."""
        if self._loop is None:
            return await self._readable_in_trio(fd)
        self._fd = fd
        self._loop.add_reader(fd, self._found)
        await self._future
        return self._readable

    async def _readable_in_trio(self, fd: int) -> bool:
        trio = sys.modules["trio"]
        self._fd = fd
        if self._future.done():
            await trio.lowlevel.checkpoint()
            return False
        try:
            await trio.lowlevel.wait_readable(fd)
        except trio.ClosedResourceError:  # from ``_finish``
            return False
        return True

    def _found(self) -> None:
        self._readable = True
        self._finish()

    def wake(self) -> None:
        """End the wait. May be called from any thread and at any point."""
        if self._loop is None:
            self._wake_in_trio()
        elif sys.modules["asyncio"]._get_running_loop() is not self._loop:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._finish)
        else:
            self._finish()
            if sys.modules["asyncio"].current_task(self._loop) is None:  # a signal handler, and the loop may sleep
                self._loop.call_soon_threadsafe(nothing)

    def _wake_in_trio(self) -> None:
        trio = sys.modules["trio"]
        here = trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token
        if here:  # now: the descriptor may be closed, and its number be another file's, in the next moment
            self._finish()
        if not here or _interrupts(self._task):
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._finish_again)

    def _finish(self) -> None:
        if self._future.done():
            return
        self._future.set_result(None)
        if self._loop is None and self._fd >= 0:
            sys.modules["trio"].lowlevel.notify_closing(self._fd)

    def _finish_again(self) -> None:
        """End a wait of trio that has begun since it was woken."""
        self._finish()
        if self._fd >= 0:
            sys.modules["trio"].lowlevel.notify_closing(self._fd)

    def leave(self) -> None:
        """Stop watching the descriptor. Leaving twice is harmless."""
        if self._fd >= 0 and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._fd = -1


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
