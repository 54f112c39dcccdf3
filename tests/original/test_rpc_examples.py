"""The examples of AnyEvent::Fork::RPC's manual, each in Python and run for real."""

from __future__ import annotations

import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import rpc_functions

import anyfork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# --- 1 and 1a: a worker that removes files and directories, and reports progress --------------------------------------

NUMBER = 6  # of files, and of directories
# The example for one call at a time, and the same for many at once.
EXAMPLES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "1 sync": (rpc_functions.remove, {}),
    "1a asyncio": (rpc_functions.remove_async, {"concurrency": NUMBER}),
    "1a trio": (rpc_functions.remove_async, {"concurrency": NUMBER, "backend": "trio"}),
}


class Remover:
    """A worker that removes; ``log`` is what it has reported, and what became of the requests, as they were answered."""

    def __init__(self, example: str) -> None:
        self._function, options = EXAMPLES[example]
        self.log: list[Any] = []
        template = anyfork.Template().preload("rpc_functions")
        self.worker = anyfork.Worker(template, on_event=self._progress, **options)

    def _progress(self, count: int) -> None:
        self.log.append(f"{count} requests handled")

    def remove(self, command: str, path: Path) -> None:
        """Ask for one, and wait."""
        try:
            self.log.append(self.worker.call(self._function, command, str(path)))
        except OSError as error:
            self.log.append(f"{error.filename}: {error.strerror}")

    def remove_all(self, command: str, paths: list[Path]) -> list[str]:
        """Ask for all at once; the answers in the order of the requests."""
        return list(self.worker.map(partial(self._function, command), [str(path) for path in paths]))


@pytest.fixture(params=EXAMPLES)
def remover(request: pytest.FixtureRequest) -> Iterator[Remover]:
    """Yield the worker of each example."""
    remover = Remover(request.param)
    with remover.worker:
        yield remover


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    """Return some empty directories."""
    paths = [tmp_path / f"directory {number}" for number in range(1, NUMBER + 1)]
    for path in paths:
        path.mkdir()
    return paths


def test_a_worker_removes_directories_and_reports_each_third_request_before_its_answer(remover, directories):
    for path in directories:
        remover.remove("rmdir", path)
    answers: list[str] = [str(path) for path in directories]
    assert remover.log == [*answers[:2], "3 requests handled", *answers[2:5], "6 requests handled", answers[5]]
    assert not any(path.exists() for path in directories)


def test_a_worker_says_of_each_path_why_it_cannot_be_removed(remover, tmp_path):
    (tmp_path / "not empty").mkdir()
    (tmp_path / "not empty" / "a file").touch()
    remover.remove("rmdir", tmp_path / "not empty")
    remover.remove("unlink", tmp_path / "missing")
    assert remover.log == [
        f"{tmp_path}/not empty: {os.strerror(errno.ENOTEMPTY)}",
        f"{tmp_path}/missing: No such file or directory",
    ]


def test_requests_made_all_at_once_are_all_answered_in_their_order(remover, directories):
    assert remover.remove_all("rmdir", directories) == [str(path) for path in directories]
    assert remover.log == ["3 requests handled", "6 requests handled"]
    assert not any(path.exists() for path in directories)


def test_requests_of_several_threads_are_all_answered(remover, tmp_path):
    files = [tmp_path / f"file {number}" for number in range(1, NUMBER + 1)]
    for file in files:
        file.touch()
    with ThreadPoolExecutor(NUMBER) as pool:
        list(pool.map(partial(remover.remove, "unlink"), files))
    assert set(remover.log) == {*map(str, files), "3 requests handled", "6 requests handled"}
    assert not any(file.exists() for file in files)


def test_an_illegal_command_is_an_error_of_that_request_alone(remover, directories):
    # ! In the original it is fatal.
    with pytest.raises(ValueError, match="illegal command 'format'"):
        remover.remove("format", directories[0])
    remover.remove("rmdir", directories[0])
    assert remover.log == [str(directories[0])]


# --- 2: timers that count, in code that is kept in a string -----------------------------------------------------------

COUNTER = '''
"""Counts by a timer. All that have been asked for begin together: the clock then says which ends first."""

import anyio
from anyfork import emit

TOGETHER = 3
begun = 0
finished = []
all_there = anyio.Event()

async def count_up(number):
    global begun
    begun += 1
    if begun == TOGETHER:
        all_there.set()
    emit(f"starting to count up to {number}")
    await all_there.wait()
    for n in range(1, number + 1):
        await anyio.sleep(0.05)
        emit(f"count {n} of {number}")
    finished.append(number)
    return list(finished)
'''
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def count_three(backend: str) -> tuple[list[str], dict[int, list[int]]]:
    """Return what three timers report, and the result of each."""
    events: list[str] = []
    template = anyfork.Template().execute(COUNTER)
    with (
        anyfork.Worker(template, concurrency=3, backend=backend, on_event=events.append) as worker,
        ThreadPoolExecutor(3) as pool,
    ):
        numbers = [3, 2, 1]
        results = dict(zip(numbers, pool.map(partial(worker.call, "count_up"), numbers), strict=True))
    return events, results


@BACKENDS
def test_three_timers_asked_for_from_3_to_1_end_from_1_to_3(backend):
    # 2. Each result says which timers had ended by then.
    _, results = count_three(backend)
    assert results == {1: [1], 2: [1, 2], 3: [1, 2, 3]}


@BACKENDS
def test_all_three_timers_report_while_the_others_run_each_in_its_order(backend):
    # 2.
    events, _ = count_three(backend)
    assert sorted(events[:3]) == [f"starting to count up to {number}" for number in (1, 2, 3)]
    for number in (1, 2, 3):
        own = [event for event in events if event.endswith(f"of {number}")]
        assert own == [f"count {n} of {number}" for n in range(1, number + 1)]
    assert events[-1] == "count 3 of 3"


# --- 3: what the original needs Coro for: ordinary functions, and progress of a single job ----------------------------

COUNT_AT_ONCE = """
from anyfork import emit

def count_up(number):
    for n in range(1, number + 1):
        emit(f"count {n} of {number}")
    return number
"""


def test_an_ordinary_function_counts_in_a_process_of_its_own():
    events: list[str] = []
    with anyfork.Template().execute(COUNT_AT_ONCE) as template:
        assert anyfork.call("count_up", 3, template=template, on_event=events.append) == 3
    assert events == ["count 1 of 3", "count 2 of 3", "count 3 of 3"]


# --- 4: log messages are forwarded by events --------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "sync": {},
    "asyncio": {"concurrency": 2},
    "trio": {"concurrency": 2, "backend": "trio"},
}


@pytest.fixture(params=KINDS)
def logged(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what a worker has logged, as it has come to the log of its owner."""

    def forward(record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)

    with caplog.at_level(logging.DEBUG):
        options = KINDS[request.param]
        with anyfork.Worker(on_event=forward, initializer=rpc_functions.forward_log, **options) as worker:
            assert worker.call(rpc_functions.log_much, "worker.log") == "done"
            assert {record.process for record in caplog.records if record.name == "worker.log"} == {worker.pid}
    return [record for record in caplog.records if record.name == "worker.log"]


def test_log_records_of_a_worker_are_logged_by_its_owner_with_level_and_text(logged):
    # 4.
    assert [(record.levelno, record.message.splitlines()[0]) for record in logged] == [
        (logging.DEBUG, "began with 'worker.log'"),
        (logging.ERROR, "1 thing went wrong"),
    ]


def test_the_traceback_of_an_exception_that_a_worker_logs_is_in_the_log_of_its_owner(logged):
    # 4.
    assert "KeyError: 'lost'" in logged[-1].message


def test_the_owner_decides_by_logger_what_it_keeps_of_the_records_of_a_worker(caplog):
    # 4: levels and handlers are those of its own loggers.
    def forward(record: logging.LogRecord) -> None:
        log = logging.getLogger(record.name)
        if log.isEnabledFor(record.levelno):
            log.handle(record)

    with caplog.at_level(logging.ERROR, "worker.log"):
        with anyfork.Worker(on_event=forward, initializer=rpc_functions.forward_log) as worker:
            worker.call(rpc_functions.log_much, "worker.log")
    assert [record.levelno for record in caplog.records if record.name == "worker.log"] == [logging.ERROR]
