"""Spans of OpenTelemetry around calls and jobs, whose context travels to the workers."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial, wraps

from ._engine import require

require("opentelemetry-sdk", "1.25", "opentelemetry")

from opentelemetry.propagate import inject
from opentelemetry.trace import Status, StatusCode, get_tracer, use_span

from _anyfork_child.values.in_span import END, InSpan, StreamInSpan

from .. import aio
from .._blocking import call as blocking_call
from .._blocking.worker import Worker
from .._calls.known_functions import label_of
from .._executor.executor import Submitter
from .._processes.arguments import check_function
from ..aio import _call as async_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from typing import Any, Self

    from opentelemetry.trace import Span

    Function = Callable[..., Any] | str
    Method = Callable[..., Any]

_undo: list[Callable[[], None]] = []  # what takes the present instrumentation back


def instrument(set_up: Callable[[], object] | str | None = None) -> None:
    """Make a span for each call and each job from now on, and one in its worker, which is a child of that.

    The calls of Worker, Executor and aio.Pool, ``call``, maps and streams of both faces have spans, under the tracer
    ``anyfork``. The context of the caller travels with them, as the global propagator tells, so that spans of functions
    are children too. ``set_up`` is a function without arguments, or its name; each worker calls it before its first
    span to make its tracer provider, as no thread of an exporter survives a fork. Calling ``instrument`` again takes
    another ``set_up``. Raises ArgumentError if that is not a function.

    For example::

        import anyfork
        from anyfork.contrib.opentelemetry import instrument, uninstrument

        instrument()
        with anyfork.Executor(max_workers=1) as executor:
            executor.submit(pow, 2, 10).result()
        uninstrument()
    """
    if set_up is not None:
        check_function("instrument", set_up)
    uninstrument()
    spans = _Spans(set_up)
    for place, name, wrap in (
        (Submitter, "submit", spans.around_submit),
        (Submitter, "map", spans.around_map),
        (Worker, "call", spans.around_call),
        (Worker, "map", spans.around_map),
        (Worker, "stream", spans.around_stream),
        (aio.Pool, "call", spans.around_async_call),
        (aio.Pool, "map", spans.around_async_map),
        (aio.Worker, "call", spans.around_async_call),
        (aio.Worker, "map", spans.around_async_map),
        (aio.Worker, "stream", spans.around_async_stream),
        (blocking_call, "run_alone", spans.around_call),
        (async_call, "run_alone", spans.around_async_call),
    ):
        original = getattr(place, name)
        setattr(place, name, wraps(original)(wrap(original)))
        _undo.append(partial(setattr, place, name, original))


def uninstrument() -> None:
    """Make no more spans. Calling it without ``instrument`` is harmless.

    For example::

        from anyfork.contrib.opentelemetry import uninstrument

        uninstrument()
    """
    while _undo:
        _undo.pop()()


class _Spans:
    """The wrappers of the methods that make calls, one for each shape of a method."""

    def __init__(self, set_up: Function | None) -> None:
        self._set_up = set_up
        self._tracer = get_tracer("anyfork")  # of the provider that is set, or will be

    def around_call(self, call: Method) -> Method:
        def in_span(target: Any, function: Function, /, *args: Any, **options: Any) -> Any:
            with self._current("call", function):
                return call(target, self._carried(InSpan, function), *args, **options)

        return in_span

    def around_async_call(self, call: Method) -> Method:
        async def in_span(target: Any, function: Function, /, *args: Any, **options: Any) -> Any:
            with self._current("call", function):
                return await call(target, self._carried(InSpan, function), *args, **options)

        return in_span

    def around_submit(self, submit: Method) -> Method:
        def in_span(target: Any, function: Function, /, *args: Any, **keywords: Any) -> Future[Any]:
            span = self._start("call", function)
            with _ended_by_errors(span):
                future: Future[Any] = submit(target, self._carried(InSpan, function), *args, **keywords)
            future.add_done_callback(partial(_end_with, span))
            return future

        return in_span

    def around_map(self, map_: Method) -> Method:
        return self._around_items("map", InSpan, map_)

    def around_stream(self, stream: Method) -> Method:
        return self._around_items("stream", StreamInSpan, stream)

    def _around_items(self, kind: str, carried: type[InSpan], method: Method) -> Method:
        def in_span(target: Any, function: Function, /, *args: Any, **options: Any) -> Items:
            span = self._start(kind, function)
            with _ended_by_errors(span):
                return Items(span, method(target, self._carried(carried, function), *args, **options))

        return in_span

    def around_async_map(self, map_: Method) -> Method:
        def in_span(target: Any, function: Function, /, *args: Any, **options: Any) -> AsyncItems:
            span = self._start("map", function)
            with _ended_by_errors(span):
                return AsyncItems(span, map_(target, self._carried(InSpan, function), *args, **options))

        return in_span

    def around_async_stream(self, stream: Method) -> Method:
        async def in_span(target: Any, function: Function, /, *args: Any, **options: Any) -> AsyncItems:
            span = self._start("stream", function)
            with _ended_by_errors(span):
                return AsyncItems(span, await stream(target, self._carried(StreamInSpan, function), *args, **options))

        return in_span

    # --- Spans ---

    def _start(self, kind: str, function: Function) -> Span:
        """Start the span of a call. Raises ArgumentError."""
        check_function(kind, function)
        label = label_of(function)
        return self._tracer.start_span(f"{kind} {label}", attributes={"code.function.name": label})

    def _current(self, kind: str, function: Function) -> AbstractContextManager[Span]:
        span: AbstractContextManager[Span] = use_span(self._start(kind, function), end_on_exit=True)
        return span

    def _carried(self, kind: type[InSpan], function: Function) -> InSpan:
        """Return a function as it travels, with the current context."""
        carrier: dict[str, str] = {}
        inject(carrier)
        return kind(function, carrier, self._set_up, label_of(function))


class Items:
    """The results of a map or the items of a stream, whose span ends with them."""

    def __init__(self, span: Span, items: Any) -> None:
        self._span = span
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with _ended_by_errors(self._span):
            item = next(self._items, END)
        if item is END:
            _end(self._span)
            raise StopIteration
        return item

    def close(self) -> None:
        """Take no more items, as the method of the results and of the stream does."""
        self._items.close()
        _end(self._span)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        _end(self._span)


class AsyncItems:
    """The results of a map or the items of a stream of the async face, whose span ends with them."""

    def __init__(self, span: Span, items: Any) -> None:
        self._span = span
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        with _ended_by_errors(self._span):
            item = await anext(self._items, END)
        if item is END:
            _end(self._span)
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Take no more items, as the method of the results and of the stream does."""
        await self._items.aclose()
        _end(self._span)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        _end(self._span)


@contextmanager
def _ended_by_errors(span: Span) -> Iterator[None]:
    """Run a block within a span, which goes on unless an exception leaves the block."""
    try:
        with use_span(span):
            yield
    except BaseException:
        _end(span)
        raise


def _end_with(span: Span, future: Future[Any]) -> None:
    """End the span of a job with its outcome."""
    error = None if future.cancelled() else future.exception()
    if error is not None:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
    span.end()


def _end(span: Span) -> None:
    if span.is_recording():  # it may have ended before
        span.end()
