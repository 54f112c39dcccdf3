"""Timelines: what ``trace`` and ANYFORK_TRACE write, and the page that ``anyfork report`` makes of it."""

from __future__ import annotations

import html.parser
import itertools
import json
import os
import signal
import subprocess
import sys
from functools import partial
from operator import attrgetter
from time import monotonic

import observed_faces
import pytest
from deadlines import PROGRAM_DEADLINE
from observed_faces import opened

import anyfork
from anyfork._calls.known_functions import label_of
from anyfork._calls.trace_file import TraceFile
from anyfork._calls.track import NEXT_LANE, Track
from anyfork._cli.command_line import main


def events(path, **wanted):
    """Return the events of a timeline that has its end, with these members."""
    found = json.loads(path.read_text())
    return [event for event in found if all(event.get(name) == value for name, value in wanted.items())]


def names(path, **wanted):
    return [event["name"] for event in events(path, **wanted)]


def end_for_good(flag):
    """End this worker, if no other worker has done so before."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "again"


def call_in_another_worker():
    """Use a worker of this worker, whose timeline is that of the environment."""
    with anyfork.Worker() as worker:
        return worker.call(os.getpid)


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_a_timeline_has_a_track_for_each_worker_with_its_start_and_its_jobs(kind, tmp_path):
    path = tmp_path / "run.json"
    with opened(kind, trace=path) as face:
        pid = face.call(os.getpid)
        assert face.map(abs, range(-3, 0)) == [3, 2, 1]
    drawn = events(path, ph="X", tid=pid)
    assert [event["cat"] for event in drawn[:3]] == ["fork", "load", "job"]
    assert {"getpid", "abs"} <= {event["name"] for event in drawn}
    assert all(event["dur"] >= 0 and event["pid"] == os.getpid() for event in drawn)
    assert sum(event["args"]["jobs"] for event in drawn if event["name"] == "abs") == 3
    assert "ended" in names(path, ph="i", tid=pid)


@pytest.mark.parametrize("kind", ["worker", "aio-worker"])
def test_each_quick_call_of_a_worker_is_counted_once_beside_other_calls(kind, tmp_path):
    path = tmp_path / "run.json"
    with opened(kind, trace=path) as face:
        for _ in range(30):
            assert face.call(abs, -1) == 1
            assert face.call(abs, -1) == 1
            assert face.call(len, "ab") == 2
        assert face.map(abs, range(-3, 0)) == [3, 2, 1]
        assert face.call(abs, -1) == 1
    jobs = events(path, cat="job")
    counted = {name: sum(job["args"]["jobs"] for job in jobs if job["name"] == name) for name in ("abs", "len")}
    assert counted == {"abs": 64, "len": 30}
    assert all(job["ts"] + job["dur"] <= later["ts"] + 1 for job, later in itertools.pairwise(jobs)), "none overlap"


@pytest.mark.parametrize("kind", observed_faces.POOLS)
def test_the_death_of_a_worker_and_the_second_run_of_its_job_are_on_the_timeline(kind, tmp_path):
    path = tmp_path / "run.json"
    with opened(kind, trace=str(path)) as face:
        assert face.call_again(end_for_good, tmp_path / "flag") == "again"
    (died,) = events(path, name="died")
    assert "SIGKILL" in died["args"]["status"]
    first, second = events(path, name="end_for_good")
    assert (first["args"].get("outcome"), second["args"].get("outcome")) == ("died", None)
    assert first["tid"] == died["tid"] != second["tid"]
    (retry,) = events(path, name="retry")
    assert retry["args"]["job"] == "end_for_good"


def test_workers_of_workers_write_to_the_file_of_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    monkeypatch.setenv("ANYFORK_TRACE", str(path))
    with anyfork.Template.new_exec() as template, anyfork.Executor(template, max_workers=1) as executor:
        inner = executor.submit(call_in_another_worker).result()
        (middle,) = executor.pids
    assert {event["pid"] for event in events(path, ph="X")} == {os.getpid(), middle}
    assert "getpid" in names(path, pid=middle, tid=inner)


def test_a_file_is_begun_anew_unless_this_program_has_begun_it_or_others_write_to_it(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('[\n{"name":"old","ph":"i","ts":1}\n]\n')
    for number in range(2):
        file = TraceFile(str(path))
        file.instant(f"event {number}", 0, monotonic())
        file.open_track()
        file.close_track()
    assert [name for name in names(path) if name.startswith(("old", "event"))] == ["event 0", "event 1"]
    first, second = TraceFile(str(path)), TraceFile(str(path))
    for file in (first, second):
        file.open_track()
        file.instant("at once", 0, monotonic())
        file.flush(monotonic() + 1)
    first.close_track()
    assert not path.read_text().endswith("]\n"), "the second one still writes"
    second.close_track()
    assert names(path).count("at once") == 2


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(anyfork.ArgumentError, match=r"Executor\(\): the timeline .* cannot be written: .*No such file"):
        anyfork.Executor(trace=tmp_path / "missing" / "run.json")


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (events, "events"),
        (abs, "abs"),
        (partial(partial(events, 1), 2), "events"),
        ("os:getpid", "os:getpid"),
        (TraceFile, "TraceFile"),
        (Track.close, "Track.close"),
        (attrgetter("x"), "attrgetter"),
    ],
)
def test_a_function_has_a_label(function, label):
    assert label_of(function) == label


def test_quick_jobs_share_an_event_and_jobs_at_the_same_time_have_tracks_of_their_own(tmp_path):
    path = tmp_path / "run.json"
    file = TraceFile(str(path))
    plain, concurrent = Track(file, "worker", False, 0.0), Track(file, "worker", True, 0.0)
    for track, pid in ((plain, 7), (concurrent, 8)):
        track.entered(pid, 0.1)
        track.ready(0.1)
    for number in range(100):
        plain.job("quick", 0.1 + number * 1e-5, 0.1 + (number + 1) * 1e-5)
    plain.job("other", 0.2, 0.3, outcome="died")
    concurrent.job_in_lane("one", 0.2, 0.4)
    concurrent.job_in_lane("two", 0.3, 0.5)
    concurrent.job_in_lane("three", 0.4, 0.5)
    plain.close(0.3)
    concurrent.close(0.5)
    jobs = {event["name"]: (event["tid"], event["args"]) for event in events(path, cat="job")}
    assert jobs["quick"] == (7, {"jobs": 100})
    assert jobs["other"] == (7, {"jobs": 1, "outcome": "died"})
    assert [jobs[name][0] for name in ("one", "two", "three")] == [8, 8 + NEXT_LANE, 8]
    assert [round(event["dur"], -4) for event in events(path, cat="idle")] == [100_000]


KILLED = """
import os, signal, sys, anyfork
executor = anyfork.Executor(max_workers=1, trace=sys.argv[1])
executor.submit(pow, 2, 3).result()
executor.submit(int, "<x>").exception()
executor.submit(os._exit, 3).exception()
while not all(part in open(sys.argv[1], "rb").read() for part in (b"divmod", b"private")):  # written twice a second
    executor.submit(divmod, 7, 2).result()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.untraced
def test_the_report_of_a_program_that_was_killed_is_one_page_that_needs_nothing_else(tmp_path, capsys):
    path = tmp_path / "run.json"
    subprocess.run([sys.executable, "-c", KILLED, path], timeout=PROGRAM_DEADLINE, check=False)
    assert path.read_bytes().endswith(b",\n"), "the array has no end"
    with path.open("a") as file:
        file.write('{"name":"half a li')
    main(["report", str(path)])
    written = tmp_path / "run.html"
    assert capsys.readouterr().out == f"{written}\n"
    page = written.read_text()
    assert all(part in page for part in ("pow", "_exit", "Busy workers", "Jobs that wait", "Private memory"))
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page, "it loads nothing"
    assert "<script" not in page
    Balanced().check(page)


class Balanced(html.parser.HTMLParser):
    """Checks that every element of a page is closed."""

    def check(self, page: str) -> None:
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, _):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "report takes the file of one timeline"),
        (["missing.json"], 1, "No such file"),
        ([__file__], 1, "is not a timeline"),
        (["run.json", "-o", "run.json"], 2, "would overwrite"),
    ],
)
def test_what_is_no_timeline_has_no_report(arguments, code, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    assert ended.value.code == code
    assert said in capsys.readouterr().err
