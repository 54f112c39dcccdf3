"""``progress`` of maps: a callback, or a display that suits the place."""

from __future__ import annotations

import importlib.util
import io
import logging
import operator
import os
import pty
import sys
import threading

import observed_faces
import pytest
from observed_faces import opened

import anyfork
from anyfork._calls import progress_displays
from anyfork._calls.progress import Callback, Progress
from anyfork._calls.progress_displays import Lines, TerminalLine

DISPLAYS = ["tqdm", "rich", "line"]


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_a_callback_gets_how_many_items_are_done_and_how_many_there_are(kind):
    told = []  # more often on a slow machine

    def last():
        assert told == sorted(told), "counts go up"
        found = told[-1]
        told.clear()
        return found

    with opened(kind) as face:
        face.map(abs, range(300), progress=lambda *counts: told.append(counts))
        assert last() == (300, 300)
        face.map(abs, iter(range(5)), progress=lambda *counts: told.append(counts))
        assert last() == (5, None)
        with pytest.raises(TypeError):
            face.map(abs, [1, None, 2, 3], progress=lambda *counts: told.append(counts))
        assert last()[1] == 4


def test_chunks_count_as_their_items():
    told = []
    with anyfork.Executor(max_workers=1) as executor:
        options = {"chunksize": 4, "progress": lambda *counts: told.append(counts)}
        assert list(executor.map(operator.add, range(10), range(20), **options)) == [*range(0, 20, 2)]
    assert told[-1] == (10, 10)


def test_a_map_of_which_no_result_is_taken_shows_its_end():
    told = []
    with anyfork.Executor(max_workers=1) as executor:
        executor.map(abs, range(10), progress=lambda *counts: told.append(counts))
    assert told[-1] == (10, 10)


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_a_callback_that_raises_does_not_disturb_the_map(kind, caplog):
    def fail(*_):
        raise ValueError("no")

    with opened(kind) as face:
        assert face.map(abs, [-1, -2], progress=fail) == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["the progress of a map is not shown any more"]


def test_a_callback_that_exits_does_not_end_the_thread_of_an_executor(caplog):
    with anyfork.Executor(max_workers=1) as executor:
        assert list(executor.map(abs, [-1, -2], progress=lambda *_: sys.exit(3), timeout=20)) == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["the progress of a map is not shown any more"]


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_what_cannot_show_progress_is_refused(kind):
    with (
        opened(kind) as face,
        pytest.raises(anyfork.ArgumentError, match="progress must be True, False, or a function"),
    ):
        face.map(abs, [1], progress="yes")


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_the_progress_of_a_map_whose_function_cannot_travel_is_shown_to_its_end(kind):
    told = []
    lock = threading.Lock()
    with opened(kind) as face, pytest.raises(anyfork.ArgumentError):
        face.map(lambda _: lock, [1], progress=lambda *counts: told.append(counts))
    assert told == [(0, 1)]


def test_the_display_has_its_own_pace():
    display = Callback(lambda *_: None, None)
    display.pause = 0
    told = []
    display._callback = lambda done, _: told.append(done)
    progress = Progress(display)
    for _ in range(3):
        progress.advance()
    assert told[0] == 1
    progress.close()
    progress.close()
    assert told.count(3) <= 2


@pytest.mark.parametrize("display", DISPLAYS)
def test_progress_is_shown_on_a_terminal_by_what_is_installed(display, monkeypatch, caplog):
    if display != "line":
        pytest.importorskip(display)
    others = {*DISPLAYS} - {display}
    find = importlib.util.find_spec
    monkeypatch.setattr(progress_displays, "find_spec", lambda name: None if name in others else find(name))
    monkeypatch.setenv("TERM", "xterm")  # on a dumb one, nothing is drawn
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, os.fdopen(master, "rb", buffering=0) as shown:
        monkeypatch.setattr(sys, "stderr", terminal)
        with opened("executor") as face:
            assert len(face.map(operator.neg, range(500), progress=True)) == 500
        terminal.write("the end")
        terminal.flush()
        text = ""
        while not text.endswith("the end"):
            text += shown.read(4000).decode()
    assert "neg" in text
    assert "100%" in text
    assert caplog.records == []


@pytest.mark.parametrize("stream", [io.StringIO, lambda: None], ids=["file", "none"])
def test_quick_maps_are_silent_elsewhere(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    with opened("worker") as face:
        assert len(face.map(operator.neg, range(50), progress=True)) == 50
    assert not sys.stderr or sys.stderr.getvalue() == ""


def test_slow_maps_write_lines_elsewhere():
    stream = io.StringIO()
    lines = Lines("job", 200, stream)
    lines.show(50, 12)
    lines.end(200, 48)
    Lines("other", None, stream).end(7, 61)
    Lines("quick", 7, stream).end(7, 1)
    assert stream.getvalue().splitlines() == [
        "job: 25%, 50 of 200 done after 0:12",
        "job: 100%, 200 of 200 done after 0:48",
        "other: 7 done after 1:01",
    ]


@pytest.mark.parametrize(
    ("total", "done", "seconds", "columns", "line"),
    [
        (200, 50, 10, 80, "job  25% [######..................] 50/200 5.0/s 0:10 0:30 left"),
        (None, 50, 10, 80, "job 50 5.0/s 0:10"),
        (0, 0, 0, 80, "job 100% [########################] 0/0 0.0/s 0:00"),
        (10, 10, 7322, 80, "job 100% [########################] 10/10 0.0/s 2:02:02"),
        (None, 123_456, 1, 80, "job 123456 123k/s 0:01"),
        (200, 50, 10, 20, "job  25% [######..."),
    ],
)
def test_what_a_line_looks_like(total, done, seconds, columns, line):
    assert TerminalLine("job", total, io.StringIO()).line(done, seconds, columns) == line


def test_a_terminal_that_is_gone_does_not_disturb_the_map(caplog):
    caplog.set_level(logging.WARNING)
    stream = io.StringIO()
    progress = Progress(TerminalLine("job", 2, stream), 2)
    stream.close()
    progress.advance(2)
    progress.close()
    assert caplog.records == []
