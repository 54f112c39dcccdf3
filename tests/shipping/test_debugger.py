"""debugpy: a breakpoint in a function is reached in whatever process the function runs."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import textwrap

import pytest
from deadlines import PROGRAM_DEADLINE
from shipped import clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Session:
    """A client of the debug adapter protocol: one debugged process."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=PROGRAM_DEADLINE)
        self.file = self.socket.makefile("rb")
        self.sent = 0
        self.events = []
        self.responses = {}

    def send(self, command, **arguments):
        self.sent += 1
        request = {"type": "request", "seq": self.sent, "command": command, "arguments": arguments}
        body = json.dumps(request).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self.sent

    def read(self):
        length = 0
        while (line := self.file.readline()) != b"\r\n":
            assert line, "the adapter has ended"
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message = json.loads(self.file.read(length))
        if message["type"] == "event":
            self.events.append(message)
        elif message["type"] == "response":
            self.responses[message["request_seq"]] = message

    def event(self, name):
        while not (found := [event for event in self.events if event["event"] == name]):
            self.read()
        self.events.remove(found[0])
        return found[0].get("body")

    def response(self, number):
        while number not in self.responses:
            self.read()
        assert self.responses[number]["success"], self.responses[number]
        return self.responses[number].get("body")

    def attach(self, settings, path, lines):
        """Begin, with breakpoints in a file."""
        self.response(self.send("initialize", adapterID="test", clientID="test"))
        attached = self.send("attach", **settings)
        self.event("initialized")
        breakpoints = [{"line": line} for line in lines]
        self.response(self.send("setBreakpoints", source={"path": str(path)}, breakpoints=breakpoints))
        self.response(self.send("configurationDone"))
        self.response(attached)

    def stop(self):
        """Wait for a breakpoint; go on from there. The function, the line, and the value of ``value`` there."""
        thread = self.event("stopped")["threadId"]
        frame = self.response(self.send("stackTrace", threadId=thread))["stackFrames"][0]
        seen = self.response(self.send("evaluate", expression="value", frameId=frame["id"]))["result"]
        self.response(self.send("continue", threadId=thread))
        return frame["name"], frame["line"], seen

    def close(self):
        with contextlib.suppress(OSError):
            self.send("disconnect", terminateDebuggee=False)
        self.file.close()
        self.socket.close()


WORK = """\
def enter(channel, value):
    with channel:
        channel.sendall(b"%d" % (value * 2))

def double(value):
    return value * 2
"""
IN_ENTER, IN_DOUBLE = 3, 6

HEAD = """
import debugpy, os, sys
debugpy.configure(subProcess=SUBPROCESS)
print(debugpy.listen(("127.0.0.1", 0))[1], flush=True)
if "wait" in sys.argv:
    debugpy.wait_for_client()
import anyfork
import work
"""


@pytest.fixture
def debugged(tmp_path):
    """Yield a function that starts a program under the debugger and returns it, and the port of the adapter."""
    (tmp_path / "work.py").write_text(WORK)
    with contextlib.ExitStack() as stack:

        def start(body, *arguments, follow=True):
            source = HEAD.replace("SUBPROCESS", str(follow)) + textwrap.dedent(body)
            (tmp_path / "program.py").write_text(source)
            program = subprocess.Popen(
                [sys.executable, "-X", "frozen_modules=off", "program.py", *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=clean({}),
            )  # fmt: skip
            stack.enter_context(program)  # waits for it
            return program, int(program.stdout.readline())

        yield start


@pytest.fixture
def client(tmp_path):
    """Yield a function that makes sessions, with breakpoints in the functions of the module."""
    with contextlib.ExitStack() as stack:

        def attach(port, settings=None):
            session = Session("127.0.0.1", port)
            stack.callback(session.close)
            settings = settings or {"subProcess": True, "justMyCode": False}
            session.attach(settings, tmp_path / "work.py", [IN_ENTER, IN_DOUBLE])
            return session

        yield attach


@pytest.mark.parametrize(
    ("body", "stops"),
    [
        ("print(anyfork.call(work.double, 21))", [("double", IN_DOUBLE, "21")]),
        (
            "with anyfork.Template().preload('work').run(work.enter, 21) as process: print(process.channel.recv(9).decode())",
            [("enter", IN_ENTER, "21")],
        ),
        (
            "with anyfork.Template.new_exec().run(work.enter, 21) as process: print(process.channel.recv(9).decode())",
            [("enter", IN_ENTER, "21")],
        ),
        (
            "with anyfork.Worker() as worker: print(worker.call(work.double, worker.call(work.double, 21)) // 2)",
            [("double", IN_DOUBLE, "21"), ("double", IN_DOUBLE, "42")],
        ),
        (
            "import asyncio; from anyfork import aio; print(asyncio.run(aio.call(work.double, 21)))",
            [("double", IN_DOUBLE, "21")],
        ),
    ],
    ids=["call", "forked", "execed", "worker", "async"],
)
def test_a_breakpoint_in_a_function_is_reached_in_the_process_that_runs_it(debugged, client, body, stops):
    program, port = debugged(body, "wait")
    session = client(port)
    found = session.event("debugpyAttach")
    inside = client(found["connect"]["port"], found)
    assert [inside.stop() for _ in stops] == stops
    assert found["subProcessId"] != program.pid
    assert program.stdout.readline() == "42\n"
    assert program.wait(PROGRAM_DEADLINE) == 0


def test_a_breakpoint_in_a_function_of_the_main_program_is_reached(debugged, client, tmp_path):
    program, port = debugged("def own(value):\n    return value * 2\nprint(anyfork.call(own, 21))", "wait")
    session = client(port)
    found = session.event("debugpyAttach")
    inside = Session("127.0.0.1", found["connect"]["port"])
    line = (tmp_path / "program.py").read_text().splitlines().index("    return value * 2") + 1
    inside.attach(found, tmp_path / "program.py", [line])
    assert inside.stop() == ("own", line, "21")
    assert program.stdout.readline() == "42\n"
    inside.close()


def test_each_process_is_a_session_of_its_own(debugged, client):
    program, port = debugged(
        "workers = [anyfork.Worker().ready() for _ in range(3)]\nprint(*[w.pid for w in workers])", "wait"
    )
    session = client(port)
    sessions = []
    for _ in range(3):
        found = session.event("debugpyAttach")
        client(found["connect"]["port"], found)
        sessions.append(found["subProcessId"])
    assert program.stdout.readline().split() == [str(pid) for pid in sessions]


@pytest.mark.parametrize("follow", [True, False], ids=["following", "not following"])
def test_a_program_whose_debugger_has_no_client_goes_on(debugged, follow):
    program, _ = debugged("print(anyfork.call(work.double, 21))", follow=follow)
    assert program.stdout.readline() == "42\n"


def test_a_debugger_that_is_not_to_follow_does_not(debugged, client):
    program, port = debugged("print(anyfork.call(work.double, 21))", "wait", follow=False)
    client(port)
    assert program.stdout.readline() == "42\n"


def test_a_program_that_would_copy_itself_has_interpreters_as_templates_under_a_debugger(debugged, client):
    program, port = debugged("import anyfork.early\nprint(anyfork.call(work.double, 21))", "wait")
    session = client(port)
    found = session.event("debugpyAttach")
    inside = client(found["connect"]["port"], found)
    assert inside.stop() == ("double", IN_DOUBLE, "21")
    assert program.stdout.readline() == "42\n"
    assert any("templates are new interpreters" in line for line in program.stderr)
