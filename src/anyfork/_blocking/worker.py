"""Workers, which answer calls, in the blocking face."""

from __future__ import annotations

from _thread import RLock
from sys import is_finalizing

from _anyfork_child.wire.call_messages import CALL, STREAM

from .._calls import flows
from .._calls.call import DONE
from .._calls.map import CallMap
from .._calls.progress import UnlessStarted, progress_of
from .._calls.worker_handle import StreamHandle, WorkerHandle
from .._calls.worker_options import WINDOW, Options, check_window
from .._errors import AnyforkError, HandleError
from .._processes.arguments import refused_keywords
from .._processes.undelivered import destructor
from .._status import UNKNOWN
from .._system import this_process
from .._system.locks import locked
from .._system.signatures import Item, overload
from .._system.timeouts import deadline as deadline_of
from .process import Process
from .template import Template, fork_of
from .worker_channel import BlockingWorkerChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Self, Unpack

    from .._calls.call import Call, Handler
    from .._calls.progress import ProgressCallback
    from .._calls.worker_options import WorkerOptions
    from .._status import ExitStatus
    from .._system.signatures import Arguments, Items, Later, Result
    from .warm import Warm


class Worker(WorkerHandle):
    """A process that answers calls. It takes a template over, as ``run`` does.

    ``template`` cannot be used afterwards, unless it is a Warm; without one, the worker is a fork of the default
    template.
    ``initializer(*sent, *initargs)`` is called in the worker before anything else, with the arguments given to
    ``Template.send``. ``on_event`` is called with the values that ``emit`` sends, in a thread that waits for this
    worker. ``serializer`` is "pickle", "json", "msgpack" (needs msgspec), "raw", or an object with ``name``, ``dumps``
    and ``loads``.

    A worker runs one call after the other, in their order. With ``concurrency`` it runs that many calls at once: async
    functions, under asyncio or the ``backend``. ``on_cancel`` says what happens to a running call that is given up (by
    a timeout, or an interrupt): "kill" ends the worker, or with ``concurrency`` cancels the call in the worker instead;
    "wait" waits for the call nevertheless, and returns its result. ``trace`` names a file for a timeline in Chrome's
    trace format. With ``logs``, log records of the worker come to the loggers of this program.

    As a context manager it is closed at the end. Every method may be used from any thread. Raises ArgumentError.

    For example::

        import anyfork

        with anyfork.Worker() as worker:
            assert worker.call(pow, 2, 10) == 1024
            assert list(worker.map(abs, [-1, -2])) == [1, 2]
    """

    _channel: BlockingWorkerChannel

    def __init__(self, template: Template | Warm | None = None, **options: Unpack[WorkerOptions]) -> None:
        checked = Options(options)
        given = template if isinstance(template, Template) else fork_of("Worker", template)
        self._channel = self._take_over(
            given, checked, lambda link, calls: BlockingWorkerChannel(Process._of(link), calls)
        )
        self.lock: RLock = RLock()  # held by the thread that closes the worker

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until the worker has been started, and its initializer has run; raise what failed.

        Raises TimeoutError when the timeout, in seconds, is over; the worker goes on.

        For example::

            import anyfork

            with anyfork.Worker() as worker:
                worker.ready(timeout=60)
        """
        deadline = deadline_of(timeout)
        try:
            self._check("ready")
            self._channel.run(flows.ready(self._channel, deadline), deadline)
        except TimeoutError:
            raise TimeoutError(
                f"worker {self.pid} was not ready within {timeout} seconds; it goes on: wait again"
            ) from None
        return self

    @overload
    def call(
        self,
        function: Callable[[*Arguments], Later[Result]],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        on_event: Handler | None = ...,
    ) -> Result: ...
    @overload
    def call(
        self,
        function: Callable[[*Arguments], Result],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        on_event: Handler | None = ...,
    ) -> Result: ...
    @overload
    def call(
        self,
        function: str,
        /,
        *args: object,
        timeout: float | None = ...,
        on_event: Handler | None = ...,
    ) -> Any: ...
    def call(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        timeout: float | None = None,
        on_event: Handler | None = None,
        **keywords: object,
    ) -> Any:
        """Call ``function(*args)`` in the worker, and return the result.

        Raises what the function raises, with the remote traceback as cause. Raises ArgumentError at once if the
        function or an argument cannot travel, CallTimeoutError after the timeout, in seconds, WorkerDiedError, and the
        other kinds of CallError. ``on_event`` gets the values that this call emits.

        For example::

            import anyfork

            with anyfork.Worker() as worker:
                assert worker.call(pow, 2, 10, timeout=60) == 1024
                assert worker.call("math:gcd", 12, 18) == 6
        """
        if keywords:
            raise refused_keywords("call", function, keywords, "timeout, on_event")
        call = None
        if timeout is None and on_event is None and not self._closed:
            done, found = self._channel.exchange(function, args, self._give_up)
            if done:
                return found
            call = found
        channel, deadline = self._channel, deadline_of(timeout)
        try:
            if call is None:
                channel = self._connected("call", deadline)
                call = channel.calls.make("call", CALL, function, args, on_event)
                channel.begin(call, deadline)
            channel.wait(lambda: channel.is_done(call), deadline)
        except BaseException as error:
            if call is None or call.state is not DONE:
                self._give_up(call, error, timeout)
            else:
                call.end_events()
                if not isinstance(error, TimeoutError):
                    call.drop()
                    raise
        assert call is not None  # or its error was raised
        return call.result()

    @overload
    def map(
        self,
        function: Callable[[Item], Later[Result]],
        items: Iterable[Item],
        /,
        *,
        window: int = ...,
        progress: bool | ProgressCallback = ...,
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        /,
        *,
        window: int = ...,
        progress: bool | ProgressCallback = ...,
    ) -> Iterator[Result]: ...
    @overload
    def map(
        self,
        function: str,
        items: Iterable[object],
        /,
        *,
        window: int = ...,
        progress: bool | ProgressCallback = ...,
    ) -> Iterator[Any]: ...
    def map(
        self,
        function: Callable[..., Any] | str,
        items: Iterable[Any],
        /,
        *,
        window: int = WINDOW,
        progress: bool | ProgressCallback = False,
        **keywords: object,
    ) -> Iterator[Any]:
        """Call ``function(item)`` in the worker for all items; return an iterator of the results, in their order.

        At most ``window`` items are on their way at a time. The iterator raises what a call raises, and ends with that;
        closing it early cancels the items that have not begun. ``progress`` shows the progress on stderr, or is called
        with the number of results that were taken and that of all items (None if it is not known), at most ten times a
        second, and at the end.

        For example::

            import anyfork

            with anyfork.Worker() as worker:
                assert list(worker.map(abs, [-1, -2])) == [1, 2]
        """
        if keywords:
            raise refused_keywords("map", function, keywords, "window, progress")
        check_window(window)
        channel = self._connected("map")
        with UnlessStarted(progress_of("map", progress, function, (items,))) as shown:
            given = channel.calls.take_function("map", function)
            return _results(channel, CallMap(channel, given, iter(items), window, shown))

    @overload
    def stream(
        self, function: Callable[[*Arguments], Items[Item]], /, *args: *Arguments, on_event: Handler | None = ...
    ) -> Stream[Item]: ...
    @overload
    def stream(self, function: str, /, *args: object, on_event: Handler | None = ...) -> Stream[Any]: ...
    def stream(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        on_event: Handler | None = None,
        **keywords: object,
    ) -> Stream[Any]:
        """Return an iterator of the items that a generator function, or an async one, yields in the worker.

        The items come one by one; the worker produces only a limited number ahead. Closing the stream closes the
        generator.

        For example::

            import anyfork

            def count(end):
                yield from range(end)

            with anyfork.Worker() as worker, worker.stream(count, 3) as numbers:
                assert list(numbers) == [0, 1, 2]
        """
        if keywords:
            raise refused_keywords("stream", function, keywords, "on_event")
        channel = self._connected("stream")
        call = channel.calls.make("stream", STREAM, function, args, on_event)
        stream: Stream[Any] = Stream(channel, call)  # before: it gives the call up when it is dropped
        channel.begin(call)
        return stream

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait until the worker has ended, and return its exit status. Events are handled meanwhile.

        Raises TimeoutError when the timeout, in seconds, is over.

        For example::

            import anyfork

            worker = anyfork.Worker().ready()
            worker.kill()
            assert worker.wait().signal == 9
        """
        self._channel.check()
        if self._status is not None:
            return self._status
        deadline = deadline_of(timeout)
        try:
            return self._channel.run(flows.listen(self._channel, deadline), deadline)
        except TimeoutError:
            raise TimeoutError(
                f"worker {self.pid} has not ended within {timeout} seconds: close() lets it end, kill() ends it"
            ) from None
        except HandleError:
            if self._status is None:
                raise
            return self._status  # a signal handler has closed the worker meanwhile

    def close(self) -> None:
        """Let the worker answer all calls, then end it, and wait for its end. Closing twice is harmless.

        Streams that are still open are closed. In a forked copy of the owner nothing happens.

        For example::

            import anyfork

            worker = anyfork.Worker()
            worker.call(print, "hello")
            worker.close()
        """
        if self._channel.foreign:
            return
        self._closed = True
        try:
            self._close()
        except Exception:  # of any kind: what this waited with may be closed
            if self._status is None:  # otherwise a handler of a signal or an event has closed the worker meanwhile
                raise

    @locked
    def _close(self) -> None:
        if self._status is not None:
            return
        channel = self._channel
        try:
            channel.connect()
        except HandleError:
            raise
        except AnyforkError:  # it was never started
            self._status = UNKNOWN
            channel.process.close()
            return
        status = channel.run(flows.finish(channel))
        if self._status is None:
            self._status = status
        channel.drop()

    def _connected(self, call: str, deadline: float | None = None) -> BlockingWorkerChannel:
        self._check(call)
        self._channel.connect(deadline)
        return self._channel

    def _give_up(self, call: Call | None, error: BaseException, timeout: float | None) -> None:
        """Give a call up, and raise why, unless the call has a result that is wanted nevertheless."""
        try:
            started = self._withdraw(call, self._waits)
            if call is None or self._channel.torn or not self._has_result(call, error, started):
                self._raise_given_up(error, timeout, started)
        finally:
            del error  # see raise_given_up

    def _has_result(self, call: Call, error: BaseException, started: bool) -> bool:
        """Return whether a call that was given up has a result that is wanted.

        With ``on_cancel="wait"``, wait for a running call; then raise the error, unless it is a timeout.
        """
        try:
            if started and self._waits and call.state is not DONE:
                self._channel.wait(lambda: call.state is DONE)
                if not isinstance(error, TimeoutError):
                    raise error
            return started and call.state is DONE
        finally:
            del error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _results(channel: BlockingWorkerChannel, work: CallMap) -> Iterator[Any]:
    """Yield the results of a map, one by one."""
    ends = is_finalizing  # modules may be gone when the generator is closed
    try:
        channel.check()
        ahead, low, plain = work.ahead, work.low, work.progress is None
        while True:
            if ahead and ahead[0].state is DONE and not (work.more and len(ahead) <= low):  # by far the most
                call = ahead.popleft()
            else:
                found = channel.run(flows.next_call(work))
                if found is None:
                    return
                call = found
            yield call.result() if plain else work.result(call)
            if channel.torn or channel.owner != this_process.pid:
                channel.check()
    finally:
        if not ends():
            work.close()


class Stream(StreamHandle[Item]):
    """An iterator of the items of a generator in a worker. As a context manager it is closed at the end.

    For example::

        import anyfork

        with anyfork.Worker() as worker:
            for item in worker.stream(iter, "ab"):
                print(item)
    """

    _channel: BlockingWorkerChannel

    def __init__(self, channel: BlockingWorkerChannel, call: Call) -> None:
        self._channel = channel
        self._call = call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        self._channel.check()
        if not self._there():
            self._channel.wait(self._there)
        item = self._next()
        if item is None:
            raise StopIteration
        return self._call.decode(item)  # type: ignore[no-any-return]  # an item may have any type

    def close(self) -> None:
        """Close the generator in the worker, without waiting for it. Closing twice is harmless.

        For example::

            import anyfork

            with anyfork.Worker() as worker:
                endless = worker.stream("itertools:count")
                assert next(endless) == 0
                endless.close()
        """
        if not self._channel.foreign:
            self._channel.do(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @destructor
    def __del__(self) -> None:
        if hasattr(self, "_call"):  # otherwise an interrupt has stopped ``__init__``
            self._channel.when_free(self._close)
