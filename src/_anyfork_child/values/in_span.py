"""A function within a span of OpenTelemetry: how calls and jobs of an instrumented program travel.

The owner makes it, and it runs in workers. Only an instrumented program imports this module, and OpenTelemetry with it.
"""

from __future__ import annotations

from contextlib import contextmanager
from os import getpid

from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract
from opentelemetry.trace import get_tracer, set_span_in_context, use_span

from .decode import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

END = object()
_process = 0  # that has made its provider
_tracer_here: Tracer


class InSpan:
    """A function that runs within a span of its own. The parent is the span that ``carrier`` tells of.

    ``set_up`` is called once in each process, before its first span. ``label`` is the function's name for people.
    """

    def __init__(
        self,
        function: Callable[..., Any] | str,
        carrier: Mapping[str, str],
        set_up: Callable[[], object] | str | None,
        label: str,
    ) -> None:
        self.function = function
        self.carrier = carrier
        self.set_up = set_up
        self.__qualname__ = self.__name__ = label

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find a function by its name. Raises FunctionNotFoundError."""
        self.__dict__.update(state)
        self.function = named(self.function)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        span, context = self._begin()
        ended = True
        try:
            with _active(span, context):
                result = self.function(*args, **keywords)  # type: ignore[operator]  # no name any more
            ended = not hasattr(result, "__await__")
            return result if ended else _awaited(span, context, result)
        finally:
            if ended:
                span.end()

    def _begin(self) -> tuple[Span, Context]:
        """Start the span; return it with the context of the call."""
        tracer = _tracer(self.set_up)
        context = extract(self.carrier)
        attributes = {"code.function.name": self.__qualname__, "process.pid": getpid()}
        span = tracer.start_span(f"run {self.__qualname__}", context, attributes=attributes)
        return span, set_span_in_context(span, context)


class StreamInSpan(InSpan):
    """A generator function, or an async one, that runs within a span, which ends with the generator."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        span, context = self._begin()
        try:
            with _active(span, context):
                items = self.function(*args, **keywords)  # type: ignore[operator]  # no name any more
                later = hasattr(items, "__anext__")
                return _items_later(span, context, items) if later else _items(span, context, iter(items))
        except BaseException:
            span.end()
            raise


def _tracer(set_up: Callable[[], object] | str | None) -> Tracer:
    """Return the tracer of this process, which makes its provider first: threads of exporters survive no fork."""
    global _tracer_here, _process
    if _process != getpid():
        if set_up is not None:
            named(set_up)()
        _tracer_here, _process = get_tracer("anyfork"), getpid()
    return _tracer_here


@contextmanager
def _active(span: Span, context: Context) -> Iterator[None]:
    """Run a block in the context of a call. An exception that leaves it is the span's."""
    token = attach(context)
    try:
        with use_span(span):
            yield
    finally:
        detach(token)


async def _awaited(span: Span, context: Context, result: Awaitable[Any]) -> Any:
    try:
        with _active(span, context):
            return await result
    finally:
        span.end()


def _items(span: Span, context: Context, items: Iterator[Any]) -> Iterator[Any]:
    """Yield items. Between two of them, the context is that of the reader."""
    try:
        while True:
            with _active(span, context):
                item = next(items, END)
            if item is END:
                return
            yield item
    finally:
        if hasattr(items, "close"):
            with _active(span, context):
                items.close()
        span.end()


async def _items_later(span: Span, context: Context, items: Any) -> AsyncIterator[Any]:
    try:
        while True:
            with _active(span, context):
                item = await anext(items, END)
            if item is END:
                return
            yield item
    finally:
        with _active(span, context):
            await items.aclose()
        span.end()
