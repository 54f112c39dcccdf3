"""Handlers of events that are awaited, and the events that wait for them in an async pool.

The handlers of each call of a pool run in a task of their own. The pool goes on reading from the worker meanwhile: a
handler may wait for a call that is in the same worker. What comes after such an event for the same call or map waits
for the handler: further events, and the answers.
"""

from __future__ import annotations

from collections import deque

from anyio import CancelScope, get_cancelled_exc_class, get_current_task

from .._calls.events import Event
from .._errors import CallCancelledError
from .._pools.jobs import deliver
from ._loop import is_cancelled
from ._waiting import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from anyio import TaskInfo


class AwaitedEvents:
    """An event whose handler is awaited, and what has come after it for the same call or map, in order.

    The pairs are those of ``deliver``. Only the first one may have something to await in place of None.
    """

    __slots__ = ("_cancelled", "_pairs", "_scope", "_task")

    def __init__(self, event: Event, answer: Awaitable[object]) -> None:
        self._pairs: deque[tuple[Any, Any]] = deque([(event, answer)])
        self._cancelled = False
        self._scope: CancelScope | None = None
        self._task: TaskInfo | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def is_current(self) -> bool:
        """True in a handler that is awaited here."""
        return self._task is not None and self._task == get_current_task()

    @property
    def _is_cancelled(self) -> bool:
        """True if no further handler should run: also at the end of the loop, when a handler has caught that."""
        return self._cancelled or is_cancelled()

    def add(self, pair: tuple[Any, Any]) -> None:
        """Deliver a pair once the handlers of the events before it are done."""
        self._pairs.append(pair)

    def cancel(self) -> None:
        """Cancel the handler, drop the events after it, and deliver the answers."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Deliver all pairs, and await the handlers."""
        try:
            self._task, self._scope = get_current_task(), CancelScope()
            await within(self._scope, self._run)
        finally:
            self._end()

    async def _run(self) -> None:
        while self._pairs and not self._is_cancelled:
            who, what = self._pairs[0]
            if type(who) is Event:
                self._pairs.popleft()
                answer = who.handle() if what is None else what
                if hasattr(answer, "__await__"):
                    await await_handler(who, answer, lambda: self._is_cancelled)
            else:
                deliver(deque(((who, what),)))
                self._pairs.popleft()  # afterwards: an interrupt may come in between, see ``deliver``

    def _end(self) -> None:
        """Drop the events that are left, and deliver the answers."""
        pairs, self._pairs = self._pairs, deque()
        deliver(deque(pair for pair in pairs if type(pair[0]) is not Event))
        for who, what in pairs:
            if type(who) is not Event:
                continue
            if what is None:
                who.drop()
            elif hasattr(what, "close"):  # a coroutine that was not started
                what.close()


async def await_handler(
    event: Event, answer: Awaitable[object], is_cancelled: Callable[[], bool] = is_cancelled
) -> None:
    """Await what the handler of an event has returned. Exceptions are reported as the event's.

    A cancellation is raised if ``is_cancelled()``. Otherwise only what the handler has returned was cancelled.
    """
    try:
        await answer
    except get_cancelled_exc_class():
        if is_cancelled():
            raise
        event.not_handled(CallCancelledError("the task that an on_event returned was cancelled"))
    except Exception as error:
        event.not_handled(error)
    except BaseExceptionGroup as group:  # of trio: what tasks have raised when they were cancelled
        cancelled, raised = group.split(get_cancelled_exc_class())
        if not isinstance(raised, Exception):
            raise
        event.not_handled(raised)
        if cancelled is not None:
            raise cancelled from None
