"""The report on what a copy of this process would break."""

from __future__ import annotations

import io
import os
import pickle
import random
import socket
import threading

import pytest
from owner_side import output_of

import anyfork
from anyfork import Audit, OpenDescriptor

SOCKET = OpenDescriptor(7, "socket", "inet stream listening on 127.0.0.1:80", False)
OURS = OpenDescriptor(8, "socket", "unix stream", True)
STDIN = OpenDescriptor(0, "socket", "unix stream", False)


def said_of(**found):
    """Return a report on these findings."""
    return Audit(1, **found)


def test_a_process_with_nothing_found_can_be_copied():
    report = said_of()
    assert (report.obstacles, report.hazards) == ((), ())
    assert "can be made here" in str(report)


OBSTACLES = {
    "threads": ({"threads": ["pump", "MainThread"]}, "pump, MainThread"),
    "a loop": ({"loops": ["trio"]}, "trio"),
    "a subinterpreter": ({"main_interpreter": False}, "main interpreter"),
    "the end": ({"finalizing": True}, "the interpreter is ending"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_obstacles_name_the_culprit(case):
    found, name = OBSTACLES[case]
    (why,) = said_of(**found).obstacles
    assert name in why
    assert "cannot be made here" in str(said_of(**found))


def test_another_thread_is_named_once_and_not_as_another_interpreter():
    assert len(said_of(threads=["MainThread"], main_interpreter=False).obstacles) == 1


HAZARDS = {
    "native threads": ({"native_threads": ["decoder"]}, "decoder"),
    "sockets": ({"descriptors": [STDIN, SOCKET, OURS]}, "closed: 7 (inet stream listening on 127.0.0.1:80)"),
    "gpus": ({"gpus": ["/dev/nvidia0"]}, "has opened a GPU, which a copy cannot use: /dev/nvidia0"),
    "modules": ({"modules": {"grpc": "it has threads"}}, "the module grpc is loaded: it has threads"),
}


@pytest.mark.parametrize("case", HAZARDS)
def test_hazards_name_the_culprit(case):
    found, name = HAZARDS[case]
    (what,) = said_of(**found).hazards
    assert name in what
    assert said_of(**found).obstacles == ()


def test_a_report_is_a_frozen_value():
    report = said_of(threads=["pump"], descriptors=[SOCKET])
    assert pickle.loads(pickle.dumps(report)) == report
    with pytest.raises(AttributeError, match="frozen"):
        report.pid = 2


def test_it_prints_what_it_returns():
    written = io.StringIO()
    report = anyfork.audit(written)
    assert written.getvalue() == f"{report}\n"
    assert report.pid == os.getpid()


def test_threads_are_listed_by_name():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="the one")
    thread.start()
    try:
        assert "the one" in anyfork.audit(io.StringIO()).threads
    finally:
        stop.set()
        thread.join()


def test_descriptors_are_listed_by_kind_and_path(tmp_path):
    path = tmp_path / "file"
    with (
        open(path, "w") as file,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        directory = os.open(tmp_path, os.O_RDONLY)
        read, write = os.pipe()
        event = os.eventfd(0) if hasattr(os, "eventfd") else read
        try:
            found = {one.fd: one for one in anyfork.audit(io.StringIO()).descriptors}
        finally:
            for fd in {directory, read, write, event}:
                os.close(fd)
        address = "{}:{}".format(*listener.getsockname())
        assert (found[file.fileno()].kind, found[file.fileno()].target) == ("file", str(path))
        assert (found[directory].kind, found[directory].target) == ("directory", str(tmp_path))
        assert found[read].kind == "pipe"
        assert found[event].kind in ("eventfd", "pipe")
        assert found[listener.fileno()].target == f"inet stream listening on {address}"
        assert found[client.fileno()].target.endswith(f"to {address}")
        assert str(found[client.fileno()]).startswith(f"{client.fileno()} socket inet stream on")


def test_what_belongs_to_handles_is_said_to():
    with anyfork.Worker(anyfork.Template()) as worker:
        worker.call(len, "")
        channel = worker._channel.sock.fileno()
        found = {one.fd: one.own for one in anyfork.audit(io.StringIO()).descriptors}
    assert found[channel]


def test_generators_that_copies_would_share_are_counted():
    mine = random.Random(1), random.Random(2)
    random.SystemRandom()
    report = anyfork.audit(io.StringIO())
    (line,) = [line for line in report.generators if line.endswith("random.Random")]
    assert int(line.split()[0]) >= len(mine)


ELSEWHERE = {
    "a bare process": ("", "'generators': (), 'loops': (), 'modules': {}"),
    "generators of numpy": (
        "import numpy; mine = numpy.random.default_rng()",
        "1 of numpy.random._generator.Generator",
    ),
    "a loop": ("", "asyncio"),
    "a module": ("import types; sys.modules['grpc'] = sys", "'grpc': "),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_program_is_told_what_is_in_it(case):
    head, expected = ELSEWHERE[case]
    run = "asyncio.run(main())" if case == "a loop" else "show()"
    said = output_of(
        "-c",
        f"import sys, anyfork\n{head}\n"
        "def show():\n    report = anyfork.audit()\n"
        "    print({name: getattr(report, name) for name in ('generators', 'loops', 'modules')})\n"
        "async def main(): show()\n" + (f"import asyncio\n{run}" if case == "a loop" else run),
    )
    assert expected in said
