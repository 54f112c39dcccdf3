"""``anyfork keep``: programs for a host in any language, which asks by lines of JSON."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
from cold_and_warm import PLAIN
from conftest import eventually
from hosts import host_keeper, is_there

from anyfork._programs.host_requests import LONGEST
from anyfork._programs.owned_program import follow


@pytest.fixture(scope="module")
def keeper():
    with host_keeper("--preload", "fractions") as keeper:
        with keeper.host() as host:  # its template is made before the tests
            host.ask("start", 0, code="pass")
            host.outcome()
        yield keeper


@pytest.fixture
def host(keeper):
    with keeper.host() as host:
        yield host


def test_a_program_that_has_ended_before_it_could_follow_the_keeper_is_no_error():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    with socket.socket() as lifeline:
        follow(lifeline.fileno(), ended.pid)


SHOW = "import os, sys; print('fractions' in sys.modules, sys.argv, os.getcwd(), os.environ.get('OWN'), input())"
WAIT = "import time; time.sleep(1000)"


def test_a_program_has_what_the_host_gives_it(host, tmp_path):
    (tmp_path / "show.py").write_text(SHOW)
    env = {**PLAIN, "OWN": "mine"}
    for program, first in (
        ({"code": SHOW}, "-c"),
        ({"module": "show"}, str(tmp_path / "show.py")),
        ({"script": "show.py"}, "show.py"),
    ):
        host.ask("start", "a", **program, argv=["-x", "é"], env=env, cwd=str(tmp_path), stdin="pipe")
        host.ask("input", "a", data=b"in")
        host.ask("input", "a", data=b"put\n", end=True)
        found = host.outcome()
        assert found["stdout"].decode() == f"True {[first, '-x', 'é']} {tmp_path} mine input\n"
        assert (found["stderr"], found["code"], found["signal"], found["cold"]) == (b"", 0, None, None)


def test_streams_are_descriptors_or_merged_or_nothing(host):
    code = "import os, sys; print(sys.stdin.read(), flush=True); os.write(2, b'error')"
    near, far = socket.socketpair()
    read, write = os.pipe()
    with near, far:
        host.ask("start", 1, [far.fileno(), write], code=code, stdin=0, stdout=1, stderr="stdout")
        os.close(write)
        near.sendall(b"by descriptor")
        near.shutdown(socket.SHUT_WR)
        assert host.outcome()["code"] == 0
    with open(read, "rb") as file:
        assert file.read() == b"by descriptor\nerror"
    host.ask("start", 1, code=code, stdout="null", stderr="null")
    found = host.outcome()
    assert (found["stdout"], found["stderr"], found["code"]) == (b"", b"", 0)


def test_much_input_and_output_pass_and_what_nobody_reads_is_an_error(host):
    host.ask("start", 1, code="import sys, shutil; shutil.copyfileobj(sys.stdin, sys.stdout)", stdin="pipe")
    data = b"0123456789abcdef" * (1 << 16)
    host.ask("input", 1, data=data, end=True)
    assert host.outcome()["stdout"] == data
    host.ask("start", 2, code=WAIT, stdin="pipe")
    host.event("started")
    for _ in range(17):
        host.ask("input", 2, data=data)
    assert "does not read" in host.error(2)
    host.ask("signal", 2, signal=signal.SIGKILL)
    assert host.event("closed", "ended")["id"] == 2


def test_signals_and_exit_statuses_are_told(host):
    for number, given in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, int(signal.SIGINT))):
        host.ask("start", 1, code=f"print('begun', flush=True); {WAIT}", stderr="null")
        started = host.event("started")
        assert host.output() == b"begun\n"
        host.ask("signal", 1, signal=given)
        found = host.outcome(started)
        assert (found["code"], found["signal"]) == (None, number)
    host.ask("start", 2, code="raise SystemExit('why')")
    found = host.outcome()
    assert (found["code"], found["stderr"]) == (1, b"why\n")


# Requests that cannot be carried out, and what the answer says.
BAD = [
    (b"{", "must be a line of JSON"),
    (b"\xff\xfe", "must be a line of JSON"),
    (b"[" * 100_000, "must be a line of JSON"),
    (b"x" * (LONGEST + 10), "at most"),
    (b"[]", "must be a JSON object"),
    (b"{}", 'needs an "id"'),
    (b'{"id": true, "do": "start"}', 'needs an "id"'),
    (b'{"id": 5}', '"do" must be one of'),
    (b'{"id": 5, "do": ["start"]}', '"do" must be one of'),
    (b'{"id": 5, "do": "start"}', "start needs one of module, script, code"),
    (b'{"id": 5, "do": "start", "code": "pass", "module": "x"}', "start needs one of"),
    (b'{"id": 5, "do": "start", "code": "pass", "argc": 1}', 'start has no field "argc"'),
    (b'{"id": 5, "do": "start", "code": 5}', '"code" must be a string'),
    (b'{"id": 5, "do": "start", "code": "\\u0000"}', "without null characters"),
    (b'{"id": 5, "do": "start", "code": "\\ud800"}', "surrogates not allowed"),
    (b'{"id": 5, "do": "start", "code": "pass", "argv": "x"}', '"argv" must be a list'),
    (b'{"id": 5, "do": "start", "code": "pass", "env": {"a=b": "x"}}', '"env" must be an object'),
    (b'{"id": 5, "do": "start", "code": "pass", "stdin": "stdout"}', '"stdin" must be'),
    (b'{"id": 5, "do": "start", "code": "pass", "stdout": 0}', "stdout is descriptor 0, and 0 came"),
    (b'{"id": 5, "do": "start", "code": "pass", "cwd": "/no/such/directory"}', "No such file or directory"),
    (b'{"id": 5, "do": "input", "data": "eA=="}', "no program with this id"),
    (b'{"id": 5, "do": "input", "data": "?"}', "base64"),
    (b'{"id": 5, "do": "signal", "signal": "SIGNONE"}', '"signal" must be'),
    (b'{"id": 5, "do": "signal", "signal": 9999}', '"signal" must be'),
]


def test_bad_requests_get_an_error_as_their_answer_and_end_nothing(host):
    host.ask("start", "good", code=WAIT, stdin="null")
    pid = host.event("started")["pid"]
    for line, said in BAD:
        host.send(line + b"\n")
        assert said in host.event("error")["message"], line[:80]
    read, write = os.pipe()
    host.send(b'{"id": 5, "do": "start", "code": "pass", "stdin": 1}\n', [read])
    os.close(read)
    assert "1 came with the request" in host.error(5)
    with pytest.raises(BrokenPipeError):  # nobody has kept the descriptor
        os.write(write, b"x")
    os.close(write)
    host.ask("start", "good", code="pass")
    assert "runs already" in host.error("good")
    host.ask("input", "good", data=b"x")
    assert 'no "pipe"' in host.error("good")
    assert is_there(pid)


def test_programs_end_with_the_connection_and_other_hosts_are_not_concerned(keeper, host):
    host.ask("start", 1, code=WAIT)
    other = host.event("started")["pid"]
    with keeper.host() as second:
        second.ask("start", 1, code=f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}")
        pid = second.event("started")["pid"]
        second.ask("start", 2, code=WAIT)  # it ends although it may not have started yet
    eventually(lambda: not is_there(pid))
    assert is_there(other)


def test_only_the_user_of_the_keeper_may_connect(keeper):
    assert stat.S_IMODE(os.stat(keeper.path).st_mode) == 0o600
    if os.geteuid() != 0:
        return  # what follows needs another user
    for path, mode in ((keeper.path.parent, 0o755), (keeper.path, 0o666)):
        path.chmod(mode)
    code = """if True:
        import os, socket, sys
        sock = socket.socket(socket.AF_UNIX)
        os.setuid(65534)
        sock.connect(sys.argv[1])
        print(sock.recv(100))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, keeper.path], capture_output=True, text=True, env=PLAIN, check=False
    )
    keeper.path.chmod(0o600)
    assert done.stdout == "b''\n", done.stderr


def test_programs_end_with_a_keeper_that_is_killed_and_the_next_one_takes_its_place():
    with host_keeper() as keeper:
        with keeper.host() as host:
            host.ask("start", 1, code="import os; print(os.getppid(), flush=True); " + WAIT)
            pid = host.event("started")["pid"]
            template = int(host.output())
            os.kill(template, signal.SIGKILL)  # which would have ended the program
            eventually(lambda: not is_there(template))
            host.ask("start", 2, code="print('new')")
            while host.event("started", "output", "closed", "ended", "finished")["event"] != "finished":
                pass
            assert is_there(pid)
            again = [sys.executable, "-m", "_anyfork_client", "keep", "--socket", str(keeper.path)]
            done = subprocess.run(again, env=PLAIN, stderr=subprocess.PIPE, text=True, check=False)
            assert (done.returncode, "Address already in use" in done.stderr) == (1, True)
            keeper.process.kill()
            keeper.process.wait()
            eventually(lambda: not is_there(pid))
        assert keeper.path.is_socket()
        other = type(keeper)(keeper.path)
        assert other.said == f"anyfork: listening at {keeper.path}\n"
        other.process.terminate()
        assert (other.end(), keeper.path.exists()) == (0, False)


def test_programs_start_without_modules_that_cannot_be_preloaded_and_end_with_the_keeper():
    with host_keeper("--preload", "no_such_module") as keeper, keeper.host() as host:
        host.ask("start", 1, code="print(1)", env={**PLAIN, "PYTHONUTF8": "1"})  # a template without modules has not
        found = host.outcome()
        assert (found["stdout"], found["code"]) == (b"1\n", 0)
        assert "no_such_module" in found["cold"]
        host.ask(
            "start",
            2,
            code=f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); {WAIT}",
        )
        pid = host.event("started")["pid"]
        assert host.output() == b"1\n"
        assert (keeper.end(), keeper.path.exists()) == (0, False)
    eventually(lambda: not is_there(pid))
