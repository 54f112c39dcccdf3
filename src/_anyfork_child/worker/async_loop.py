"""The call loop of workers that answer several calls at once: async functions, under asyncio or trio.

Runs in workers. AnyIO and its dependencies are imported only for such a worker. Each message is sent whole before the
loop goes on: backpressure from a slow owner stops the worker, as it stops a worker that answers one call at a time.
"""

from __future__ import annotations

from _pickle import loads
from _signal import SIG_IGN
from contextvars import ContextVar
from functools import partial

import anyio

from ..wire.call_messages import (
    BAD_RESULT,
    CALL,
    CANCEL,
    CANCELLED,
    END,
    FORGET,
    FUNCTION,
    HEADER,
    ITEM,
    ITEMS,
    KEYWORDS,
    MEASURE,
    MORE,
    SMALL_CALL,
    SMALL_CALLS,
    SMALL_KEYWORDS,
    STREAM,
    STREAM_WINDOW,
    VALUE,
)
from ..wire.channel import NOWAIT
from .server import WorkerServer, apply, handle_interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from ..wire import call_messages

_number: ContextVar[int] = ContextVar("number of the call", default=0)


class AsyncWorkerServer(WorkerServer):
    """The worker's end of the channel, for calls that run at the same time."""

    @property
    def number(self) -> int:  # type: ignore[override]  # of the call that this task belongs to
        """The number of the call that the current task belongs to."""
        return _number.get()


def serve_concurrently(server: WorkerServer, backend: str) -> None:
    """Answer calls until the owner closes the channel, or a call raises what ends the worker, which is raised here."""
    handle_interrupts(SIG_IGN)  # the owner decides about its workers
    server.__class__ = AsyncWorkerServer
    loop = _Loop(server)
    anyio.run(loop.run, backend=backend)
    if loop.stop is not None:
        raise loop.stop


class _Loop:
    def __init__(self, server: WorkerServer) -> None:
        self._serving = server
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._credits: dict[int, anyio.Semaphore] = {}
        self.stop: SystemExit | None = None

    async def run(self) -> None:
        async with anyio.create_task_group() as self._group:
            server = self._serving
            sock = server.sock
            while True:
                await anyio.wait_readable(sock)
                if server.is_copy:  # a forked copy of the loop, in which a function goes on: the calls are not its own
                    await anyio.sleep_forever()
                server.check_descriptor(server.fd)
                try:
                    messages = server.read(NOWAIT)
                except BlockingIOError:
                    continue
                if messages is None:
                    break
                for message in messages:
                    self._take(message)

    def _take(self, message: call_messages.Message) -> None:
        kind, number, detail, flags, body, fds = message
        server = self._serving
        if kind in (CALL, SMALL_CALL):
            self._begin(number, partial(server.decode, detail, flags, body, fds), self._answer)
        elif kind == STREAM:
            self._credits[number] = anyio.Semaphore(STREAM_WINDOW)
            self._begin(number, partial(server.decode, detail, flags, body, fds), self._answer_by_items)
        elif kind in (KEYWORDS, SMALL_KEYWORDS):
            self._begin(number, partial(self._call_with_keywords, kind, detail, flags, body, fds), self._answer)
        elif kind == ITEMS:
            for place, args in enumerate(loads(body)):
                self._begin(number + place, partial(self._item, detail, args), self._answer)
        elif kind == SMALL_CALLS:
            for one, item in zip(*loads(body), strict=True):
                self._begin(one, partial(self._small_call, detail, item), self._answer)
        elif kind == FUNCTION:
            server.define(number, body)
        elif kind == VALUE:
            server.keep(number, detail, flags, body, fds)
        elif kind == FORGET:
            server.forget(number)
        elif kind == MORE:
            if number in self._credits:
                for _ in range(detail):
                    self._credits[number].release()
        elif kind == CANCEL and number in self._scopes:
            self._scopes[number].cancel()
        elif kind == MEASURE:
            server.send_size(number, detail)

    def _small_call(self, detail: int, item: object) -> list[Any]:
        return [self._serving.function(detail), item]

    def _item(self, detail: int, args: Sequence[Any]) -> list[Any]:
        return [self._serving.function(detail), *args]

    def _call_with_keywords(self, kind: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> list[Any]:
        if kind == SMALL_KEYWORDS:
            return [apply, self._serving.function(detail), *loads(body)]
        return [apply, *self._serving.decode(detail, flags, body, fds)]

    def _begin(
        self, number: int, decode: Callable[[], list[Any]], answer: Callable[[int, list[Any]], Awaitable[None]]
    ) -> None:
        self._scopes[number] = anyio.CancelScope()
        self._group.start_soon(self._within, number, decode, answer)

    async def _within(
        self, number: int, decode: Callable[[], list[Any]], answer: Callable[[int, list[Any]], Awaitable[None]]
    ) -> None:
        """Run one call in a cancel scope of its own, and send its outcome."""
        _number.set(number)
        scope = self._scopes[number]
        try:
            with scope:
                try:
                    call = decode()
                except BaseException as error:
                    self._serving.refuse(number, error)
                    return
                await answer(number, call)
            if scope.cancelled_caught:
                self._serving.send(HEADER.pack(0, number, 0, CANCELLED, 0, 0))
        except SystemExit as stop:
            self.stop = self.stop or stop
            self._group.cancel_scope.cancel()
        finally:
            del self._scopes[number]
            self._credits.pop(number, None)

    async def _answer(self, number: int, call: list[Any]) -> None:
        try:
            result = call.pop(0)(*call)
            if hasattr(result, "__await__"):
                result = await result
        except BaseException as error:
            self._failed(number, error)
            return
        self._serving.send_result(number, result)

    def _failed(self, number: int, error: BaseException) -> None:
        """Send the exception of a call, or raise again what ends the worker, and the cancellation of its scope.

        Call it where the exception was caught. The scope must see its own cancellation.
        """
        self._serving.leave_copy()
        if isinstance(error, self._serving.fatal) or (
            isinstance(error, anyio.get_cancelled_exc_class()) and self._scopes[number].cancel_called
        ):
            raise
        self._serving.send_failure(number, error)

    async def _answer_by_items(self, number: int, call: list[Any]) -> None:
        server = self._serving
        try:
            items = call.pop(0)(*call)
            if not hasattr(items, "__anext__"):
                items = _stepwise(iter(items))
            try:
                async for item in items:
                    server.leave_copy()
                    await self._credits[number].acquire()
                    try:
                        server.send_value(ITEM, number, item)
                    except server.fatal:
                        raise
                    except BaseException as error:
                        server.send_error(number, BAD_RESULT, error)
                        return
            finally:
                server.leave_copy()
                with anyio.CancelScope(shield=True):
                    await items.aclose()
        except BaseException as error:
            self._failed(number, error)
            return
        server.send(HEADER.pack(0, number, 0, END, 0, 0))


async def _stepwise(items: Any) -> Any:
    """Yield the items of a plain generator, and let the loop run other tasks between two items."""
    try:
        for item in items:
            yield item
            await anyio.lowlevel.checkpoint()
    finally:
        if hasattr(items, "close"):
            items.close()
