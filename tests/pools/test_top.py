"""``anyfork top`` shows what the pools of a program do, if the program offers it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from screen import Screen

import anyfork
from anyfork._cli.top_screen import lines_of

PROGRAM = """
import os, sys, time
import anyfork
{observe}
def hold(path):
    with open(path, "rb") as pipe:
        pipe.read()

with anyfork.Executor(max_workers=1, name="resize") as executor:
    executor.submit(os._exit, 3).exception()
    future = executor.submit(hold, sys.argv[1])
    gate = open(sys.argv[1], "wb")
    print(executor.pids[0], flush=True)
    sys.stdin.read()
    gate.close()
    future.result()
"""


def top(directory, *arguments):
    env = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    command = [sys.executable, "-m", "anyfork", "top", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.untraced
@pytest.mark.parametrize("way", ["observe", "variable", "off"])
def test_top_shows_what_workers_run(way, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)} | ({"ANYFORK_STATUS": "1"} if way == "variable" else {})
    source = PROGRAM.format(observe="anyfork.observe()" if way == "observe" else "")
    command = [sys.executable, "-c", source, str(gate)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        worker = int(program.stdout.readline())
        shown = title_of(worker)
        states = json.loads(top(tmp_path, "--json").stdout)
        text = top(tmp_path, str(program.pid)).stdout
        program.stdin.close()
        assert program.wait() == 0
    assert shown == (f"{program.pid} resize" + ": hold" * (way != "off"), f"{program.pid}-resize"[:15])
    if way == "off":
        assert states == []
        assert "does not offer its state" in text
        assert not (tmp_path / "anyfork").exists() or not [*(tmp_path / "anyfork").iterdir()]
        return
    (state,) = states
    (pool,) = state["pools"]
    (facts,) = pool["workers"]
    assert (state["pid"], pool["name"], pool["stats"]["running"]) == (program.pid, "resize", 1)
    assert (facts["pid"], facts["running"], facts["calls"]) == (worker, ["hold"], 1)
    assert re.fullmatch(r"has lost worker \d+, with 1 jobs: ended with exit code 3", pool["error"])
    assert re.search(rf"^  template \d+ \[{program.pid} anyfork/exec\]: ", text, re.MULTILINE)
    assert 0 <= facts["seconds"] <= facts["age"]
    assert worker in pids(state["process"])
    assert f"worker of Executor resize {worker} " in text
    assert "working, runs hold for " in text
    assert [*(tmp_path / "anyfork").iterdir()] == [], "the socket is removed at the end"


def title_of(pid):
    """Return what ``ps`` shows of a process: its command line, and its short name."""
    directory = Path(f"/proc/{pid}")
    return (directory / "cmdline").read_text().rstrip("\0"), (directory / "comm").read_text().strip()


TITLES = """
import asyncio, os
from functools import partial
from operator import itemgetter
import anyfork
from anyfork import aio
from observed_functions import own_title
anyfork.observe()

with anyfork.Executor(max_workers=1, name="a b") as executor:
    assert executor.submit(partial(itemgetter(0)), "x").result() == "x"  # which has no name
    found = {executor.submit(own_title).result(), executor.submit(own_title, _=1).result()}
    print(*{*found, *executor.map(own_title, [1, 2]), *executor.map(own_title, [1, 2], chunksize=2)}, sep="\\n")

async def main():
    async with aio.Pool(max_workers=1, name="c") as pool:
        print(*{await pool.call(own_title), *[title async for title in pool.map(own_title, [1, 2])]}, sep="\\n")
        pool_title = f"{os.getpid()} c"
        while open(f"/proc/{pool.pids[0]}/cmdline").read().rstrip("\\0") != pool_title:  # which is at the last job
            await asyncio.sleep(0.001)
        print(pool_title)

asyncio.run(main())
"""


def test_the_title_of_an_observed_worker_has_the_function_while_it_runs(tmp_path):
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", TITLES], env=env, stdout=subprocess.PIPE, text=True) as program:
        said = program.communicate(timeout=50)[0]
    own = program.pid
    assert said.splitlines() == [f"{own} a b: own_title", f"{own} c: own_title", f"{own} c"]


def pids(process):
    return {process["pid"]}.union(*(pids(child) for child in process["children"]))


WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from anyfork._cli.command_line import main; main(sys.argv[1:])"
LEAVES_THE_SCREEN = "\x1b[?25h\x1b[?1049l"


@pytest.mark.parametrize(
    ("command", "ending"),
    [(["-m", "anyfork"], "ctrl-c"), (["-m", "anyfork"], "end of program"), (["-c", WITHOUT_RICH], "terminated")],
)
def test_a_terminal_shows_the_state_again_and_again_and_is_as_it_was_afterwards(command, ending, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TERM": "xterm"}
    program = [sys.executable, "-c", PROGRAM.format(observe="anyfork.observe()"), str(gate)]
    with subprocess.Popen(program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watched:
        watched.stdout.readline()
        with Screen([sys.executable, *command, "top", str(watched.pid)], env=env) as screen:
            screen.expect("runs hold for ")
            screen.resize(5, 30)
            screen.expect(f"program {watched.pid} [")
            if ending == "ctrl-c":
                screen.type("\x03")
            elif ending == "terminated":
                screen.process.terminate()
            else:
                watched.stdin.close()
            status = screen.end()
            assert screen.attributes() == screen.attributes_before
        watched.stdin.close()
        assert watched.wait() == 0
    after = screen.shown.decode().rpartition(LEAVES_THE_SCREEN)
    assert after[1], after[2]
    expected = {
        "ctrl-c": (0, ""),
        "terminated": (143, ""),
        "end of program": (0, f"program {watched.pid} has ended\r\n"),
    }
    assert (status, after[2]) == expected[ending]


ENTERS_THE_SCREEN = "\x1b[?1049h"
# What a shell with job control does with a command that is stopped: it goes on in the foreground.
SHELL = """
import os, signal, sys
job = os.fork()
if not job:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
print("stopped:", os.WIFSTOPPED(os.waitpid(job, os.WUNTRACED)[1]), flush=True)
os.kill(job, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
"""


@pytest.mark.parametrize("command", [["-m", "anyfork"], ["-c", WITHOUT_RICH]], ids=["rich", "plain"])
def test_a_terminal_is_as_it_was_while_the_command_is_stopped_and_when_it_quits(command, tmp_path):
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TERM": "xterm"}
    source = "import sys, anyfork; anyfork.observe(); print(flush=True); sys.stdin.read()"
    program = [sys.executable, "-c", source]
    with subprocess.Popen(program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watched:
        watched.stdout.readline()
        with Screen([sys.executable, "-c", SHELL, *command, "top"], env=env) as screen:
            screen.expect(f"program {watched.pid} [")
            screen.type("\x1a")  # Ctrl-Z
            while b"stopped: True" not in screen.shown:
                screen.shown += screen._read()
            assert LEAVES_THE_SCREEN.encode() + b"stopped" in screen.shown
            screen.expect(ENTERS_THE_SCREEN)
            screen.expect(f"program {watched.pid} [")
            screen.type("\x1c")  # Ctrl-backslash
            assert (screen.end(), LEAVES_THE_SCREEN.encode() in screen.shown) == (131, True)
        watched.stdin.close()


def test_what_programs_are_called_does_not_control_the_terminal():
    pool = {"kind": "Executor", "name": "\x1b[2J", "error": "", "workers": [], "stats": defaultdict(int)}
    (line,) = lines_of([{"pid": 7, "pools": [pool], "process": None}], None)
    assert line.below[0].text.startswith("Executor ?[2J: workers 0 ")


def test_a_terminal_that_has_not_all_characters_shows_the_others(tmp_path, monkeypatch):
    source = "import sys, anyfork; anyfork.observe(); e = anyfork.Executor(name='\\xfc'); print(flush=True); sys.stdin.read()"
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", source], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        program.stdout.readline()
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        done = top(tmp_path, "--once")
        program.stdin.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert "Executor ?: workers 0" in done.stdout


def test_the_socket_of_a_killed_program_is_removed(tmp_path):
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    source = "import os, anyfork; anyfork.observe(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", source], env=env, timeout=50, check=False)
    assert len([*(tmp_path / "anyfork").iterdir()]) == 1
    assert top(tmp_path, "--once").stdout.startswith("no program offers its state")
    assert [*(tmp_path / "anyfork").iterdir()] == []


def test_a_program_that_cannot_offer_its_state_goes_on_and_says_why(tmp_path):
    (tmp_path / "anyfork").mkdir(mode=0o755)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "ANYFORK_STATUS": "1"}
    source = "import anyfork\nfor _ in range(2): print(anyfork.Executor(max_workers=1).submit(abs, -1).result())"
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "1\n1\n"
    assert done.stderr.count("ANYFORK_STATUS has no effect in this program: ") == 1


def test_an_answer_that_breaks_off_is_told(tmp_path):
    (tmp_path / "anyfork").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "anyfork" / "1.status"))
        listener.listen()

        def answer():
            with listener.accept()[0] as client:
                client.sendall(b'{"pid": 1, "po')

        thread = threading.Thread(target=answer)
        thread.start()
        done = top(tmp_path, "--once")
        thread.join()
    assert (done.returncode, done.stderr.startswith("anyfork top: program 1 does not answer: ")) == (0, True)


STARVED = """
import os, resource, select, socket, sys
import anyfork
anyfork.observe()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
path = f"{os.environ['XDG_RUNTIME_DIR']}/anyfork/{os.getpid()}.status"
clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
for client in clients:
    client.connect(path)  # the first one may get the descriptor that accept() has waited with
select.select(clients[:1], [], [], 0.1)  # it never answers if there was none
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
answers = [client.makefile().read() for client in clients[1:]]
print(answers[-1])
"""


def test_a_program_without_free_descriptors_answers_later(tmp_path):
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", STARVED], env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert (json.loads(done.stdout)["pools"], done.stderr) == ([], "")


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(anyfork.ArgumentError, match="name must be a string"):
        anyfork.Executor(name=5)
