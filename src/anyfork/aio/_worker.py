"""Workers, which answer calls, for async programs."""

from __future__ import annotations

from anyio import Lock, get_current_task

from _anyfork_child.wire.call_messages import CALL, STREAM

from .._calls import flows
from .._calls.call import DONE, State
from .._calls.map import CallMap
from .._calls.progress import UnlessStarted, progress_of
from .._calls.worker_handle import StreamHandle, WorkerHandle
from .._calls.worker_options import WINDOW, Options, check_window
from .._errors import AnyforkError
from .._processes.arguments import Stays, refused_keywords
from .._processes.undelivered import destructor
from .._status import UNKNOWN
from .._system import this_process
from .._system.signatures import Generic, Item, Result, overload
from .._system.timeouts import seconds
from ._process import Process
from ._template import Template
from ._waiting import OneTask, leave, limited, shielded
from ._warm import Warm, WarmWorkerChannel, receiver_of
from ._worker_channel import AsyncWorkerChannel, write_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any, NoReturn, Self, Unpack

    from .._calls.call import Answer, Call, Handler
    from .._calls.known_functions import KnownFunction
    from .._calls.progress import Progress, ProgressCallback
    from .._calls.worker_options import WorkerOptions
    from .._status import ExitStatus
    from .._system.signatures import Arguments, Items, Later


class Worker(WorkerHandle):
    """A process that answers calls. It takes a template over, as ``run`` does; of a Warm, it is a fork.

    It works like ``anyfork.Worker``; ``on_event`` may be an async function. A call that is cancelled before the worker
    has received it does not run. ``on_cancel`` says what a cancellation does to a running call: "kill" ends the worker;
    with "wait", the call cannot be cancelled. One of several concurrent calls is cancelled in the worker.

    As an async context manager, the worker is closed at the end of the block; if that is cancelled, it is killed.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with aio.Worker() as worker:
                assert await worker.call(pow, 2, 10) == 1024

        anyio.run(main)
    """

    _channel: AsyncWorkerChannel

    def __init__(self, template: Template | Warm | None = None, **options: Unpack[WorkerOptions]) -> None:
        checked = Options(options)
        if isinstance(template, Warm):
            self._channel = WarmWorkerChannel(template, checked, self._prepare(checked, receiver_of(template)))
        else:
            given = Template() if template is None else template
            self._channel = self._take_over(
                given, checked, lambda link, calls: AsyncWorkerChannel(Process._of(link), calls)
            )
        self._closing = Lock()

    async def ready(self) -> Self:
        """Wait until the worker has been started and its initializer has run; raise the error if one of them fails.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Worker() as worker:
                    await worker.ready()

            anyio.run(main)
        """
        self._check("ready")
        await self._channel.run(flows.ready(self._channel, None))
        return self

    @overload
    async def call(
        self,
        function: Callable[[*Arguments], Later[Result]],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        on_event: Handler | None = ...,
    ) -> Result: ...
    @overload
    async def call(
        self,
        function: Callable[[*Arguments], Result],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        on_event: Handler | None = ...,
    ) -> Result: ...
    @overload
    async def call(
        self,
        function: str,
        /,
        *args: object,
        timeout: float | None = ...,
        on_event: Handler | None = ...,
    ) -> Any: ...
    async def call(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        timeout: float | None = None,
        on_event: Handler | None = None,
        **keywords: object,
    ) -> Any:
        """Return the result of ``function(*args)`` in the worker, or raise its error with a remote traceback as cause.

        It works like ``anyfork.Worker.call``. A cancel scope has the same effect as ``timeout``, but only the error of
        ``timeout`` says whether the call may have run.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Worker() as worker:
                    assert await worker.call(pow, 2, 10, timeout=60) == 1024

            anyio.run(main)
        """
        if keywords:
            raise refused_keywords("call", function, keywords, "timeout, on_event")
        channel, call, limit = self._channel, None, seconds(timeout)
        if timeout is None and on_event is None and not (self._closed or self._waits):
            done, found, interrupted = await channel.exchange(function, args)
            if done:
                return found
            call = found
            if interrupted is not None:
                try:
                    self._stop(call, interrupted)
                finally:
                    del interrupted  # see raise_given_up
        scope = limited(limit)
        try:
            with scope:
                if call is None:
                    channel = await self._connected("call")
                    call = channel.calls.make("call", CALL, function, args, on_event)
                    await channel.begin(call)
                if self._waits:
                    await channel.wait(lambda: call.state > State.QUEUED)
                    await shielded(channel.wait_for, call)
                else:
                    await channel.wait_for(call)
        except BaseException as error:
            leave(scope, error)
            if call is not None and call.state == State.DONE:
                call.end_events()
                if isinstance(error, TimeoutError):
                    return call.result()
                call.drop()
                raise
            self._give_up(call, error, timeout)
        assert call is not None  # or its error was raised
        return call.result()

    @overload
    def map(
        self,
        function: Callable[[Item], Later[Result]],
        items: Items[Item],
        /,
        *,
        window: int = ...,
        progress: bool | ProgressCallback = ...,
    ) -> Map[Result]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], Result],
        items: Items[Item],
        /,
        *,
        window: int = ...,
        progress: bool | ProgressCallback = ...,
    ) -> Map[Result]: ...
    @overload
    def map(
        self,
        function: str,
        items: Items[object],
        /,
        *,
        window: int = ...,
        progress: bool | ProgressCallback = ...,
    ) -> Map[Any]: ...
    def map(
        self,
        function: Callable[..., Any] | str,
        items: Items[Any],
        /,
        *,
        window: int = WINDOW,
        progress: bool | ProgressCallback = False,
        **keywords: object,
    ) -> Map[Any]:
        """Call ``function(item)`` for all items. Return an async iterator of results, in the order of the items.

        At most ``window`` items are in progress at a time. The iterator raises the exception of a call, and ends with
        it. Closing the iterator early (by ``aclose``, or at its end as an async context manager) cancels the calls that
        have not begun. ``progress`` shows the progress on stderr, or is called with the number of results that were
        taken and that of all items (None if it is not known), at most ten times a second, and at the end.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Worker() as worker:
                    assert [result async for result in worker.map(abs, [-1, -2])] == [1, 2]

            anyio.run(main)
        """
        if keywords:
            raise refused_keywords("map", function, keywords, "window, progress")
        check_window(window)
        self._check("map")
        with UnlessStarted(progress_of("map", progress, function, (items,))) as shown:
            return Map(self._channel, self._channel.calls.take_function("map", function), items, window, shown)

    @overload
    async def stream(
        self, function: Callable[[*Arguments], Items[Item]], /, *args: *Arguments, on_event: Handler | None = ...
    ) -> Stream[Item]: ...
    @overload
    async def stream(self, function: str, /, *args: object, on_event: Handler | None = ...) -> Stream[Any]: ...
    async def stream(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        on_event: Handler | None = None,
        **keywords: object,
    ) -> Stream[Any]:
        """Run a generator function, or an async one, in the worker. Return an async iterator of the items it yields.

        The worker produces only a limited number of items ahead. Closing the stream closes the generator.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Worker() as worker:
                    async with await worker.stream(iter, "ab") as items:
                        assert [item async for item in items] == ["a", "b"]

            anyio.run(main)
        """
        if keywords:
            raise refused_keywords("stream", function, keywords, "on_event")
        channel = await self._connected("stream")
        call = channel.calls.make("stream", STREAM, function, args, on_event)
        stream: Stream[Any] = Stream(channel, call)  # before: it gives the call up when it is dropped
        await channel.begin(call)
        return stream

    async def wait(self) -> ExitStatus:
        """Wait until the worker has ended, and return its exit status. Events are handled meanwhile.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                worker = await aio.Worker().ready()
                worker.kill()
                assert (await worker.wait()).signal == 9

            anyio.run(main)
        """
        self._channel.check()
        if self._status is not None:
            return self._status
        return await self._channel.run(flows.listen(self._channel, None))

    async def aclose(self) -> None:
        """Let the worker answer its calls, then end it, and wait for its end. Closing twice is harmless.

        Streams that are still open are closed. In a forked copy of the owner, do nothing.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                worker = aio.Worker()
                await worker.call(print, "hello")
                await worker.aclose()

            anyio.run(main)
        """
        if self._channel.foreign:
            return
        self._closed = True
        try:
            try:
                await self._closing.acquire()
                await self._finish()
            finally:
                self._release()
        except BaseException:
            self._release()  # again: an interrupt may have come in the middle of it
            raise

    async def _finish(self) -> None:
        if self._status is not None:
            return
        channel = self._channel
        await channel.prevent()
        try:
            await channel.connect()
        except AnyforkError:  # it was never started
            self._status = UNKNOWN
        else:
            self._status = await channel.run(flows.finish(channel))
        await channel.drop()

    def _release(self) -> None:
        if self._closing.statistics().owner == get_current_task():
            self._closing.release()

    async def _connected(self, call: str) -> AsyncWorkerChannel:
        self._check(call)
        channel = self._channel
        if channel.sock is None:
            await channel.connect()
        return channel

    def _stop(self, call: Call | None, error: BaseException) -> NoReturn:
        """Raise what has interrupted a small call, after giving the call up if it has no answer yet."""
        try:
            if call is not None:
                self._give_up(call, error, None)
            raise error
        finally:
            del error  # see raise_given_up

    def _give_up(self, call: Call | None, error: BaseException, timeout: float | None) -> None:
        """Give up a call that is no longer waited for, and raise the reason. Kill the worker if it may run the call.

        One of several concurrent calls is cancelled in the worker instead.
        """
        try:
            self._raise_given_up(error, timeout, self._withdraw(call))
        finally:
            del error  # see raise_given_up

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.aclose()
        except BaseException:
            if self._status is None:
                await shielded(self._channel.put_down)
                self._status = UNKNOWN
            raise


class Map(Stays, Generic[Result]):
    """An async iterator over the results of the calls for many items. ``aclose`` cancels calls that have not begun.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with aio.Worker() as worker:
                async for result in worker.map(abs, [-1, -2]):
                    print(result)

        anyio.run(main)
    """

    _instead = "pass on its results"

    def __init__(
        self,
        channel: AsyncWorkerChannel,
        function: Callable[..., Any] | str | KnownFunction,
        items: Items[object],
        window: int,
        progress: Progress | None,
    ) -> None:
        self._channel = channel
        self._later = items.__aiter__() if hasattr(items, "__aiter__") else None
        now = iter(items) if self._later is None else iter(())  # type: ignore[arg-type]  # it is one of the two
        self._work = CallMap(channel, function, now, window, progress)
        self._turn = OneTask()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        channel, work = self._channel, self._work
        if channel.owner != this_process.pid:
            channel.check()
        self._turn.check()
        ahead = work.ahead
        if ahead and ahead[0].state is DONE and not (work.more and len(ahead) <= work.low):  # by far the most
            call = ahead.popleft()
        else:
            with self._turn:
                found = await self._wait()
            if found is None:
                work.close()
                raise StopAsyncIteration
            call = found
        try:
            return call.result() if work.progress is None else work.result(call)  # type: ignore[no-any-return]  # anything
        except StopAsyncIteration as error:
            work.close()
            raise RuntimeError("the function of map() raised StopAsyncIteration") from error
        except BaseException:
            work.close()
            raise

    async def _wait(self) -> Answer | None:
        """Return the next call once it is done; None at the end."""
        channel, work = self._channel, self._work
        if channel.sock is None:
            await channel.connect()
        if self._later is None:
            return await channel.follow(flows.next_call(work))
        if work.wants_more:
            await self._fill(self._later)
        return await channel.follow(flows.next_call(work, filled=True))

    async def _fill(self, items: AsyncIterator[object]) -> None:
        """Do the same as ``flows.fill`` for items that have to be awaited."""
        batch = self._work.new_batch()
        try:
            while not batch.full:
                try:
                    item = await items.__anext__()
                except StopAsyncIteration:
                    self._work.more = False
                    break
                message = batch.add(item)
                if message is not None:
                    await write_files(message)
        except BaseException:
            self._work.stop(batch)
            raise
        self._work.send(batch)

    async def aclose(self) -> None:
        """Collect no more items, and cancel the calls that have not begun.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Worker() as worker:
                    results = worker.map(abs, [-1, -2])
                    assert await anext(results) == 1
                    await results.aclose()

            anyio.run(main)
        """
        self._work.close()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_work"):
            self._work.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Stream(StreamHandle[Item]):
    """An async iterator over the items of a generator in a worker. As a context manager, it is closed at the end.

    For example::

        import anyio
        from anyfork import aio

        async def main():
            async with aio.Worker() as worker:
                async with await worker.stream(iter, "ab") as items:
                    async for item in items:
                        print(item)

        anyio.run(main)
    """

    _channel: AsyncWorkerChannel

    def __init__(self, channel: AsyncWorkerChannel, call: Call) -> None:
        self._channel = channel
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        self._channel.check()
        if not self._there():
            await self._channel.wait(self._there)
        item = self._next()
        if item is None:
            raise StopAsyncIteration
        return self._call.decode(item)  # type: ignore[no-any-return]  # what came has any type

    async def aclose(self) -> None:
        """Close the generator in the worker, without waiting for it. Closing twice is harmless.

        For example::

            import anyio
            from anyfork import aio

            async def main():
                async with aio.Worker() as worker:
                    endless = await worker.stream("itertools:count")
                    assert await anext(endless) == 0
                    await endless.aclose()

            anyio.run(main)
        """
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_call"):  # otherwise an interrupt has stopped ``__init__``
            self._close()
