"""Spans around calls and jobs: the owner's, and those of its workers, which are children of them."""

from __future__ import annotations

import asyncio

import observed_faces
import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

import spans
from observed_faces import opened
from opentelemetry import baggage, context, trace

import anyfork
from anyfork import aio
from anyfork.contrib.opentelemetry import instrument, uninstrument


@pytest.fixture(scope="session")
def _provider():
    spans.set_up()  # once: a program cannot set another one


@pytest.fixture
def here(_provider):
    """Instrument this process; return what has ended here."""
    spans.exporter.clear()
    instrument(spans.set_up)
    yield spans.finished
    uninstrument()
    assert not hasattr(anyfork.Worker.call, "__wrapped__")


def check_child(child, parent):
    assert (child[0], child[2]) == (parent[0], parent[1]), "the same trace, and the parent"


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_a_call_and_a_map_have_spans_and_what_runs_in_the_worker_is_below_them(kind, here):
    with trace.get_tracer("tests").start_as_current_span("request"), opened(kind) as face:
        token = context.attach(baggage.set_baggage("who", "me"))
        assert face.call(spans.inner, 1) == 1
        assert face.map(spans.inner, [2, 3]) == [2, 3]
        context.detach(token)
        there = face.call(spans.finished)
    ours = here()
    for call in ("call inner", "map inner"):
        check_child(ours[call], ours["request"])
    assert ours["call inner"][3] == "UNSET"
    check_child(there["run inner"], ours["map inner"])
    check_child(there["inner of me"], there["run inner"])


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_what_fails_is_an_error_of_its_spans(kind, here):
    with opened(kind) as face:
        with pytest.raises(ValueError, match="wrong"):
            face.call(spans.fail)
        assert face.call(spans.finished)["run fail"][3] == "ERROR"
        with pytest.raises(anyfork.WorkerDiedError):
            face.call(spans.die)
        with pytest.raises(anyfork.ArgumentError, match=r"needs a function or 'module:name', not int"):
            face.call(5)
    assert {name: span[3] for name, span in here().items() if name != "call finished"} == {
        "call fail": "ERROR",
        "call die": "ERROR",
    }


@pytest.mark.parametrize("function", [spans.count, spans.count_later])
def test_the_span_of_a_stream_ends_with_it(function, here):
    name = function.__name__
    with anyfork.Worker(concurrency=2) as worker:
        with worker.stream(function, 3) as items:
            assert next(items) == 0
            assert f"stream {name}" not in here()
            assert list(items) == [1, 2]
        there = worker.call(spans.finished)
    check_child(there[f"run {name}"], here()[f"stream {name}"])
    check_child(there["inner of None"], there[f"run {name}"])


def test_results_that_nobody_takes_end_the_span_of_their_map(here):
    with anyfork.Executor(max_workers=1) as executor:
        executor.map(abs, [-1])
    assert "map abs" in here()


def test_spans_of_the_async_face(here):
    async def main():
        with trace.get_tracer("tests").start_as_current_span("request"):
            async with aio.Worker(concurrency=2) as worker:
                assert await asyncio.gather(worker.call(spans.later, 1), worker.call(spans.later, 2)) == [1, 2]
                async with await worker.stream(spans.count, 2) as items:
                    assert [item async for item in items] == [0, 1]
                return await worker.call(spans.finished), await aio.call(spans.inner, 3), anyfork.call(spans.finished)

    there, alone, in_fresh_process = asyncio.run(main())
    ours = here()
    for call in ("call later", "stream count", "call inner", "call finished"):
        check_child(ours[call], ours["request"])
    check_child(there["run count"], ours["stream count"])
    check_child(there["inner of None"], there["run count"])
    assert (alone, in_fresh_process) == (3, {})


def test_each_worker_makes_its_exporter_and_exports_its_spans_at_its_end(tmp_path, here, monkeypatch):
    path = tmp_path / "spans"
    monkeypatch.setenv("SPANS", str(path))
    instrument("spans:set_up_with_a_thread")
    with anyfork.Template.new_exec() as template, anyfork.Executor(template, max_workers=2) as executor:
        first, second = executor.submit(spans.hold, path), executor.submit(spans.hold, path)
        assert first.result() != second.result()
    assert path.read_text().splitlines() == ["run hold", "run hold"]


def test_a_provider_that_cannot_be_made_is_the_error_of_the_call(here):
    instrument(spans.fail_to_set_up)
    with anyfork.Worker() as worker, pytest.raises(RuntimeError, match="no provider"):
        worker.call(abs, -1)
    with pytest.raises(anyfork.ArgumentError, match=r"instrument\(\) needs a function or 'module:name', not int"):
        instrument(5)
