"""What workers do in the tests of spans. Workers import this module by its name."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()  # of this process


def set_up():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


class FileExporter(SpanExporter):
    def export(self, spans):
        with Path(os.environ["SPANS"]).open("a") as file:
            file.writelines(f"{span.name}\n" for span in spans)
        return SpanExportResult.SUCCESS


def set_up_with_a_thread():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(FileExporter()))
    trace.set_tracer_provider(provider)


def fail_to_set_up():
    raise RuntimeError("no provider")


def finished():
    """Return the spans that have ended in this process, by their names."""
    return {span.name: facts(span) for span in exporter.get_finished_spans()}


def facts(span):
    parent = None if span.parent is None else span.parent.span_id
    return span.context.trace_id, span.context.span_id, parent, span.status.status_code.name


def inner(number):
    with trace.get_tracer("tests").start_as_current_span(f"inner of {baggage.get_baggage('who')}"):
        return number


async def later(number):
    await asyncio.sleep(0)
    return inner(number)


def fail():
    raise ValueError("wrong")


def die():
    os._exit(3)


def count(end):
    for number in range(end):
        yield inner(number)


async def count_later(end):
    for number in range(end):
        await asyncio.sleep(0)
        yield inner(number)


def hold(path):
    """Return the process id, once two processes are here."""
    path.with_suffix(f".{os.getpid()}").touch()
    while len([*path.parent.glob("spans.*")]) < 2:
        time.sleep(0.001)
    return os.getpid()
