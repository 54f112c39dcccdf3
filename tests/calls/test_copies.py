"""A copy of a worker that a function has made by os.fork is not the worker: it answers nothing and takes no call.

It ends when it leaves the function, as Python ends: with the exit code, and with a traceback on standard error.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import anyio
import copy_functions
import pytest
from call_makers import MAKERS
from deadlines import DEADLINE
from owner_side import connected

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("warm_templates")

CODES = {"exception": 1, "exit": 7, "text": 1, "return": 0}
SAID = {"exception": "ValueError: of the copy\n", "exit": "", "text": "text of the copy\n", "return": ""}


@pytest.fixture
def errors(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "errors").open("w+") as file:
        yield file


def warm_template(errors: Any) -> anyfork.Template:
    """Return a template that has loaded the event loops."""
    return MAKERS["blocking"]._fork().fork(stderr=errors)


@contextlib.contextmanager
def a_worker(errors: Any, **options: Any) -> Iterator[Callable[..., Any]]:
    with anyfork.Worker(warm_template(errors), **options) as worker:
        yield worker.call


@contextlib.contextmanager
def an_executor(errors: Any) -> Iterator[Callable[..., Any]]:
    with anyfork.Executor(anyfork.Template().fork(stderr=errors), max_workers=1) as executor:
        yield lambda function, *args: executor.submit(function, *args).result(DEADLINE)


@contextlib.contextmanager
def a_pool(errors: Any) -> Iterator[Callable[..., Any]]:
    """Yield a function that makes each call in a loop of its own."""

    async def call(function: Callable[..., Any], *args: Any) -> Any:
        async with aio.Pool(aio.Template().fork(stderr=errors), max_workers=1) as pool:
            return await pool.call(function, *args)

    yield lambda function, *args: anyio.run(call, function, *args)


@contextlib.contextmanager
def a_process(errors: Any) -> Iterator[Callable[..., Any]]:
    with anyfork.Template().fork(stderr=errors) as template:
        yield lambda function, *args: anyfork.call(function, *args, template=template)


@contextlib.contextmanager
def a_loop(errors: Any, backend: str) -> Iterator[Callable[..., Any]]:
    with a_worker(errors, concurrency=2, backend=backend) as call:
        yield call


@contextlib.contextmanager
def a_remote_worker(_errors: Any) -> Iterator[Callable[..., Any]]:
    with anyfork.Worker(connected("remote").fork()) as worker:
        yield worker.call


FACES: dict[str, Callable[[Any], Any]] = {
    "Worker": a_worker,
    "Executor": an_executor,
    "Pool": a_pool,
    "call": a_process,
    "asyncio": lambda errors: a_loop(errors, "asyncio"),
    "trio": lambda errors: a_loop(errors, "trio"),
}


def check_said(errors: Any, how: str) -> None:
    errors.seek(0)
    text = errors.read()
    assert text.endswith(SAID[how])
    assert text.count("Traceback") == (how == "exception")


@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize("face", [*FACES, "remote"])
def test_a_copy_ends_without_an_answer_when_it_leaves_the_function(face, how, errors):
    with FACES.get(face, a_remote_worker)(errors) as call:
        assert call(copy_functions.forks, how) == CODES[how]
        assert call(copy_functions.same, 1) == 1
    if face in FACES:
        check_said(errors, how)


@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_copy_of_an_async_function_ends_without_an_answer(backend, how, errors):
    with a_loop(errors, backend) as call:
        assert call(copy_functions.forks_async, how) == CODES[how]
        assert call(copy_functions.same, 1) == 1
    check_said(errors, how)


@pytest.mark.parametrize("how", [*CODES, "item"])
@pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one by one", "asyncio"])
def test_a_copy_of_a_generator_ends_without_an_item(options, how, errors):
    with anyfork.Worker(warm_template(errors), **options) as worker:
        assert list(worker.stream(copy_functions.yields_forks, how)) == ["before", CODES.get(how, 0)]
        assert worker.call(copy_functions.same, 1) == 1


@pytest.mark.parametrize("face", ["Worker", "Executor"])
def test_a_copy_emits_nothing(face, errors):
    events: list[object] = []
    if face == "Worker":
        with anyfork.Worker(on_event=events.append) as worker:
            assert worker.call(copy_functions.emits_in_copy) == 9
    else:
        with anyfork.Executor(max_workers=1, on_event=events.append) as executor:
            assert executor.submit(copy_functions.emits_in_copy).result(DEADLINE) == 9
    assert events == ["of the worker"]


@pytest.mark.parametrize("how", ["exception", "exit", "return"])
@pytest.mark.parametrize("face", ["Worker", "Executor", "asyncio"])
def test_a_copy_that_an_initializer_has_made_takes_no_call(face, how, errors):
    template = warm_template(errors)
    options: dict[str, Any] = {"initializer": copy_functions.initialize, "initargs": (how,)}
    if face == "Executor":
        with anyfork.Executor(template, max_workers=1, **options) as executor:
            assert executor.submit(copy_functions.initialized).result(DEADLINE) == CODES[how]
    else:
        with anyfork.Worker(template, concurrency=2 if face == "asyncio" else None, **options) as worker:
            assert worker.call(copy_functions.initialized) == CODES[how]
    check_said(errors, how)


@pytest.mark.parametrize("how", ["exception", "return"])
@pytest.mark.parametrize("when", ["decoded", "encoded"])
@pytest.mark.parametrize("face", ["Worker", "Executor", "call"])
def test_a_copy_made_while_values_are_encoded_or_decoded_ends_without_an_answer(face, when, how, errors):
    with FACES[face](errors) as call:
        if when == "decoded":
            assert call(copy_functions.same, copy_functions.Forks(how, when)) == CODES[how]
        else:
            assert call(copy_functions.Forks, how, when) == str(CODES[how])
    if when == "decoded":
        check_said(errors, how)


# --- Descriptors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["Worker", "Executor", "call", "asyncio"])
def test_nothing_is_written_to_what_a_job_has_opened_under_the_numbers_of_its_worker(face, errors, tmp_path):
    path = tmp_path / "file"
    with FACES[face](errors) as call, pytest.raises(anyfork.WorkerDiedError) as caught:
        call(copy_functions.replace_descriptors, os.fspath(path))
    assert caught.value.status.code == 1
    assert path.read_bytes() == b""


@pytest.mark.parametrize("face", ["Worker", "Executor", "call"])
def test_a_worker_whose_descriptors_a_job_has_closed_ends_and_says_why(face, errors):
    with FACES[face](errors) as call, pytest.raises(anyfork.WorkerDiedError) as caught:
        call(copy_functions.close_descriptors)
    assert caught.value.status.code == 1
    errors.seek(0)
    assert "a function has closed or replaced its descriptor" in errors.read()
