"""``anyfork run``: what starts through a keeper behaves as the same command line run cold, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cold_and_warm import PLAIN, Place, differences
from conftest import eventually
from deadlines import PROGRAM_DEADLINE
from keepers import COLD, command_line
from owner_side import output_of, run_python

from _anyfork_child.program.cold import PREFIXES
from _anyfork_client import arguments, messages, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keepers import CommandLine

SHOW_WARM = "import sys; print('fractions' in sys.modules)"
WAIT = "import os; os.write(1, b'.'); os.read(0, 1)"


@pytest.fixture(scope="module")
def shared() -> Iterator[CommandLine]:
    """Yield a command line with a keeper whose template has loaded what no program loads by itself."""
    with command_line("--preload", "fractions", "--preload=json.tool") as line:
        line.warm_up()
        yield line


@pytest.fixture
def own() -> Iterator[CommandLine]:
    """Yield a command line with a keeper for one test."""
    with command_line("--preload", "fractions") as line:
        yield line


class CommandRuns(Place):
    """Runs of one command, cold and by the command line."""

    def __init__(self, place, line):
        super().__init__(place, write_files)
        self.line = line

    def both(self, program, stdin=b"", **keywords):
        """Compare a cold run with one by the keeper; return the outcome of the cold one."""
        keywords = {"env": self.line.env, "start_new_session": True, **keywords}
        cold = self.run([sys.executable, *program], stdin, **keywords)
        warm = self.line.until_warm(lambda: self.run(self.line.command(*program), stdin, **keywords))
        assert not list(differences(cold, warm)), program
        return cold


def write_files(directory):
    (directory / "script.py").write_text("import sys\nprint(__name__, __file__, sys.argv, sys.path[0], sys.orig_argv)")
    (directory / "fails.py").write_text("def f():\n    1 / 0\nf()")
    (directory / "wrong.py").write_text("x = (")
    (directory / "data.json").write_text('{"a": 1}')


STATE = """
import os, resource, signal, sys
print(os.getcwd(), os.environ.copy(), oct(os.umask(0)), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0))
print([resource.getrlimit(n) for n in range(16)], sorted(os.listdir("/proc/self/fd"), key=int), os.getgroups())
print([(n, signal.getsignal(n)) for n in sorted(signal.valid_signals())], signal.pthread_sigmask(signal.SIG_BLOCK, ()))
print(sys.flags, sys.stdin, sys.stdout.encoding, sys.stderr.isatty(), os.get_terminal_size.__name__)
"""

PROGRAMS = {
    "state": ["-c", STATE],
    "module": ["-m", "json.tool", "data.json", "--compact"],
    "script": ["script.py", "a", "--cold", "größer"],
    "standard input": ["-c", "import sys; print(sys.stdin.read(), input())"],
    "exit code": ["-c", "import sys; sys.exit(7)"],
    "exit text": ["-c", "import sys; sys.exit('so long')"],
    "traceback": ["fails.py"],
    "syntax error": ["wrong.py"],
    "no script": ["nowhere.py"],
    "no module": ["-m", "nowhere"],
    "interrupt": ["-c", "raise KeyboardInterrupt"],
    "killed": ["-c", "import os; os.kill(os.getpid(), 9)"],
    "fork": ["-c", "import os\nif os.fork(): print(os.wait()[1])\nelse: os._exit(3)"],
}


QUICK = ("module", "exit text", "killed")
MARKS = {"state": pytest.mark.untraced} | dict.fromkeys(QUICK, ())  # a tracer tells its processes by a variable


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in PROGRAMS])
def test_a_program_behaves_as_cold(shared, tmp_path, name):
    CommandRuns(tmp_path / "here", shared).both(PROGRAMS[name], b"typed\n")


@pytest.mark.untraced
def test_a_program_inherits_as_cold(shared, tmp_path):
    """Compare the umask, limits, priority, ignored and blocked signals, and further descriptors."""

    def change():
        import resource

        os.umask(0o027)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])

    read, write = os.pipe()
    done = CommandRuns(tmp_path / "here", shared).both(PROGRAMS["state"], preexec_fn=change, pass_fds=[write])
    os.close(write)
    os.close(read)
    assert b"0o27" in done.stdout


@pytest.mark.slow
def test_the_first_program_starts_cold_and_later_ones_warm(own):
    first = own.run("--verbose", "-c", SHOW_WARM)
    assert (first.stdout, COLD in first.stderr) == ("False\n", True)
    own.warm_up()
    assert own.run("-c", SHOW_WARM).stdout == "True\n"
    assert own.run("--cold", "-c", SHOW_WARM).stdout == "False\n"
    assert "fractions" in own.call("status")
    assert "1" in own.call("stop")
    eventually(lambda: not own.sockets())
    assert "no keeper" in own.call("status")


def test_arguments_of_programs_do_not_control_the_terminal_that_shows_them(shared):
    shared.warm_up()
    source = "import sys; print(flush=True); sys.stdin.read()"
    command = shared.command("-c", source, "\x1b[2J", b"\xff")
    with subprocess.Popen(command, env=shared.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        program.stdout.readline()
        assert "sys.stdin.read() ?[2J ?, for " in shared.call("status")
        program.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"PYTHONHASHSEED": "1"}, "there was no keeper"),
        ({"LANG": "C.UTF-8", "LC_ALL": "C"}, "there was no keeper"),
    ],
)
def test_another_environment_at_the_start_has_another_keeper(own, change, why):
    own.warm_up()
    own.env |= change
    assert why in own.run("--verbose", "-c", "pass").stderr


def test_a_variable_that_no_module_has_read_may_have_any_value(shared):
    for value in ("one", "two"):
        done = shared.run("--verbose", "-c", "import os; print(os.environ['ANY'])", env={**shared.env, "ANY": value})
        assert done.stdout == f"{value}\n"
        assert "differs" not in done.stderr


@pytest.mark.slow
def test_a_module_that_has_read_a_variable_is_loaded_again_for_another_value(tmp_path):
    (tmp_path / "reader.py").write_text("import os\nfound = os.environ.get('ANYTHING')\nos.environ['SET'] = '1'")
    show = "import reader, os; print(reader.found, os.environ['SET'])"
    with command_line("--preload", "reader") as line:
        line.import_from(tmp_path)
        line.env["ANYTHING"] = "one"
        line.warm_up()
        assert line.run("-c", show).stdout == "one 1\n"
        line.env["ANYTHING"] = "two"
        done = line.run("--verbose", "-c", show)
        assert done.stdout == "two 1\n"
        assert "ANYTHING differs" in done.stderr
        line.warm_up()
        assert line.run("-c", show).stdout == "two 1\n"


@pytest.mark.slow
def test_code_older_than_its_file_is_never_run(tmp_path):
    source = tmp_path / "changing.py"
    source.write_text("value = 1")
    show = "import changing; print(changing.value)"
    with command_line("--preload", "changing") as line:
        line.import_from(tmp_path)
        line.env["PYTHONDONTWRITEBYTECODE"] = "1"  # a cold run, too, may take byte code of the same second and size
        line.warm_up()
        for value in range(2, 5):
            source.write_text(f"value = {value}")
            done = line.run("--verbose", "-c", show)
            assert done.stdout == f"{value}\n"
            assert COLD in done.stderr
        line.warm_up()
        assert line.run("-c", show).stdout == "4\n"
        (tmp_path / "fractions.py").write_text("hidden = True")  # it hides the standard module from now on
        assert line.run("-c", "import fractions; print(fractions.hidden)").stdout == "True\n"


@pytest.mark.slow
def test_a_watched_directory_makes_the_template_again(tmp_path):
    (tmp_path / "data").mkdir()
    with command_line("--preload", "fractions", "--watch", str(tmp_path / "data")) as line:
        line.warm_up()
        (tmp_path / "data" / "new").write_text("")
        assert "data has changed" in line.run("--verbose", "-c", "pass").stderr


@pytest.mark.slow
def test_a_command_has_loaded_what_it_imported_before(tmp_path):
    """Check that only installed modules are loaded: the program's own modules may change."""
    (tmp_path / "own.py").write_text("")
    (tmp_path / "tool.py").write_text(
        "import sys\nbefore = {*sys.modules}\nimport own, fractions, anyio\nprint(*sorted({'own', 'fractions', 'anyio'} - before))"
    )
    (tmp_path / "other.py").write_text("import sys; print('fractions' in sys.modules)")
    with command_line() as line:
        line.warm_up()
        first = line.run("tool.py", cwd=tmp_path)
        assert first.stdout == "anyio fractions own\n"
        eventually(lambda: line.run("tool.py", cwd=tmp_path).stdout == "own\n")
        assert line.run("other.py", cwd=tmp_path).stdout == "False\n"
        assert "imported before" in line.call("status")
        settings = "import os; os.environ['A'] = '1'; import sys; print('fractions' in sys.modules); import fractions"
        (tmp_path / "sets.py").write_text(settings)
        for _ in range(3):
            assert line.run("sets.py", cwd=tmp_path).stdout == "False\n"
        line.stop()
        assert line.run("tool.py", cwd=tmp_path).stdout == "anyio fractions own\n"  # cold, as it starts a keeper
        eventually(lambda: "imported before" in line.call("status"))
        eventually(lambda: line.run("tool.py", cwd=tmp_path).stdout == "own\n")


def test_a_program_that_systemd_has_given_sockets_starts_cold(shared):
    command = f"export LISTEN_PID=$$; exec {' '.join(shared.command('--verbose', '-c', 'pass'))}"
    done = subprocess.run(
        ["sh", "-c", command],
        env=shared.env,
        start_new_session=True,
        capture_output=True,
        timeout=PROGRAM_DEADLINE,
        check=True,
    )
    assert b"LISTEN_PID" in done.stderr


@pytest.mark.slow
def test_a_module_that_writes_when_it_is_loaded_starts_programs_cold(tmp_path):
    (tmp_path / "loud.py").write_text("print('loud')")
    with command_line("--preload", "loud") as line:
        line.import_from(tmp_path)
        line.run("-c", "pass")
        eventually(lambda: "wrote something" in line.run("--verbose", "-c", "pass").stderr)
        assert line.run("-c", "import loud").stdout == "loud\n"


@pytest.mark.slow
def test_a_template_that_cannot_be_made_makes_no_program_fail():
    with command_line("--preload", "no_such_module") as line:
        line.run("-c", "pass")
        eventually(lambda: "cannot be made" in line.run("--verbose", "-c", "pass").stderr)
        assert line.run("-c", "print(1)").stdout == "1\n"


def begin(line, code, **keywords):
    """Start a program warm, and wait until it runs."""

    def start():
        client = line.start("-c", code, stdout=subprocess.PIPE, **keywords)
        assert client.stdout.read(1) == b"."
        started.append(client)
        return client

    started = []
    try:
        return line.until_warm(start)
    finally:
        for client in started[:-1]:  # they have started cold
            with client:
                client.kill()


def program_of(line) -> int:
    eventually(lambda: line.ask()["programs"])  # it may have said its first word before the keeper has noted it
    [(pid, _, _)] = line.ask()["programs"]
    return pid


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGRTMIN])
def test_the_program_gets_the_signals_of_the_client(shared, number):
    code = f"import signal, os, sys, time; signal.signal({int(number)}, lambda n, _: sys.exit(n + 100)); os.write(1, b'.')\nwhile True: time.sleep(0.1)"
    with begin(shared, code) as client:
        client.send_signal(number)
        assert client.wait(PROGRAM_DEADLINE) == number + 100


def test_the_client_ends_by_the_signal_that_ends_the_program(shared):
    with begin(shared, WAIT, stdin=subprocess.PIPE) as client:
        client.terminate()
        assert client.wait(PROGRAM_DEADLINE) == -signal.SIGTERM


def test_a_program_ends_with_a_client_that_is_killed(shared):
    with begin(shared, WAIT, stdin=subprocess.PIPE) as client:
        pid = program_of(shared)
        client.kill()
        eventually(lambda: is_gone(pid))


def test_a_cold_run_tells_its_time_beside_that_of_the_last_warm_run(shared):
    line = "-c", "import sys; print('fractions' in sys.modules); sys.exit(3)"
    first = shared.run("--cold", *line)
    assert (first.stdout, first.returncode) == ("False\n", 3)
    assert re.fullmatch(rf"anyfork: {COLD_TIME}, and no warm run of this command is known\n", first.stderr)
    assert shared.until_warm(lambda: shared.run(*line)).stdout == "True\n"
    second = shared.run("--cold", *line)
    assert re.fullmatch(rf"anyfork: {COLD_TIME}, and its last warm run took [\d.]+ m?s\n", second.stderr)


COLD_TIME = r"the cold run took [\d.]+ m?s"


def test_a_cold_run_gets_the_signals_of_its_client_stops_it_and_ends_with_it(shared):
    code = "import os, signal; os.write(1, b'%d\\n' % os.getpid()); signal.pause()"
    for number in (signal.SIGTERM, signal.SIGKILL):
        with shared.start("--cold", "-c", code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            pid = int(client.stdout.readline())
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, client.pid, os.WSTOPPED)
            client.send_signal(signal.SIGCONT)
            client.send_signal(number)
            assert client.wait(PROGRAM_DEADLINE) == -number
            eventually(lambda pid=pid: is_gone(pid))


@pytest.mark.slow
def test_a_keeper_that_is_killed_leaves_nothing(own):
    own.warm_up()
    with begin(own, WAIT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        pids = [program_of(own)]
        answer = own.ask()
        pids += [answer["pid"], *(template["pid"] for template in answer["templates"] if "pid" in template)]
        os.kill(answer["pid"], signal.SIGKILL)
        assert client.wait(PROGRAM_DEADLINE) == 255
        assert b"the keeper has ended" in client.stderr.read()
        eventually(lambda: all(map(is_gone, pids)))
    assert own.run("-c", "print(1)").stdout == "1\n"


@pytest.mark.slow
def test_a_keeper_that_hangs_is_passed_by(own):
    own.warm_up()
    pid = own.ask()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        done = own.run("--verbose", "-c", "print(1)")
        assert done.stdout == "1\n"
        assert "does not answer within" in done.stderr
        assert "keepers stopped: 1" in own.call("stop")  # and so kills it
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_programs_go_on_when_the_keeper_is_stopped(own):
    own.warm_up()
    with begin(own, f"{WAIT}; print('done')", stdin=subprocess.PIPE) as client:
        own.call("stop")
        eventually(lambda: not own.sockets())
        assert client.communicate(b"x", PROGRAM_DEADLINE)[0] == b"done\n"
        assert client.returncode == 0


ONCE = "import os; os.write(int(os.environ['COUNT']), b'.'); os.read(0, 1)"


def test_a_program_never_runs_twice_when_its_client_cannot_follow_it(own):
    """Kill the keeper while standard error is full."""
    own.warm_up()
    read, write = os.pipe()
    keywords = {"env": {**own.env, "COUNT": str(write)}, "pass_fds": [write], "stdin": subprocess.PIPE}
    with open(read, "rb") as count, open("/dev/full", "wb") as full:

        def start():
            client = own.start("-c", ONCE, stderr=full, **keywords)
            assert count.read(1) == b"."
            return client

        with own.until_warm(start) as client:
            os.close(write)
            os.kill(own.ask()["pid"], signal.SIGKILL)
            assert client.wait(PROGRAM_DEADLINE) == 255
        assert count.read() == b""


LATE = """
import os, signal, socket
from _anyfork_client import messages, run
from _anyfork_client.signals import Signals
near, far = socket.socketpair()
signals = Signals()
os.kill(os.getpid(), signal.SIGTERM)
messages.send(far, ("ended", 7))
far.close()
print(run._answer(near, signals, None))
"""


def test_the_exit_status_is_read_though_a_signal_comes_as_the_program_ends():
    assert output_of("-c", LATE, env=PLAIN) == "('ended', 7)\n"


RESTORED = """
import faulthandler, os, signal
from _anyfork_client.signals import Signals
faulthandler.enable()
faulthandler.register(signal.SIGUSR1)
signals = Signals()
os.kill(os.getpid(), signal.SIGTERM)
os.write(1, b"noted ")
signals.restore()
os.write(1, b"not reached")
"""


def test_a_client_that_starts_cold_gets_the_signals_that_came_meanwhile():
    done = run_python("-c", RESTORED, env=PLAIN)
    assert (done.stdout, done.returncode) == ("noted ", -signal.SIGTERM), done.stderr


def pipe_above_the_limit():
    """Return a pipe's ends, the options that pass its writing end on, and limit descriptors to less than that."""
    read, write = os.pipe()
    high = fcntl.fcntl(write, fcntl.F_DUPFD, 90)
    os.close(write)

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    return read, high, {"pass_fds": [high], "preexec_fn": limit}


def test_a_program_with_descriptors_near_the_limit_starts_cold(shared):
    """Check that they are passed on all the same."""
    read, high, options = pipe_above_the_limit()
    with open(read, "rb") as said:
        done = shared.run("--verbose", "-c", f"import os; os.write({high}, b'.')", **options)
        os.close(high)
        assert (said.read(), done.returncode) == (b".", 0), done.stderr
    assert "near its limit or above" in done.stderr


@pytest.mark.slow
def test_a_keeper_holds_no_descriptor_of_its_first_client_not_even_above_the_limit(own):
    read, high, options = pipe_above_the_limit()
    with open(read, "rb") as said:
        own.run("-c", "pass", **options)
        own.warm_up()
        os.close(high)
        assert said.read() == b""


def test_a_program_starts_cold_when_the_keeper_has_no_descriptor_for_it(shared):
    pid = shared.ask()["pid"]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def is_refused():
        used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
        _for_the_client, too_few = islice((fd for fd in count() if fd not in used), 2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (too_few + 1, before[1]))
        done = shared.run("--verbose", "-c", "print(1)")
        assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
        return "the keeper cannot start it" in done.stderr

    try:
        eventually(is_refused)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_script_from_a_pipe_is_read_once(shared):
    command = ["bash", "-c", f"{' '.join(shared.command('--verbose'))} <(echo 'x = (')"]
    keywords = {"env": shared.env, "start_new_session": True, "capture_output": True}
    done = shared.until_warm(lambda: subprocess.run(command, timeout=PROGRAM_DEADLINE, check=False, **keywords))
    assert done.returncode == 1
    assert b"no regular file, which can be read only once" in done.stderr
    assert b"SyntaxError" in done.stderr


ANOTHER_KEY = """
from _anyfork_client.place import inheritance
from _anyfork_client.place import key, read_status
def found():
    return key([], read_status(), inheritance(read_status()))
before = found()
assert found() == before
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("999")
print(found() == before)
"""


def test_a_client_that_the_kernel_would_end_earlier_has_another_keeper():
    assert output_of("-c", ANOTHER_KEY, env=PLAIN) == "False\n"


def test_a_client_of_another_version_has_another_keeper(monkeypatch, tmp_path):
    def key():
        return place.key([], place.read_status(), place.inheritance(place.read_status()))

    found = {key()}
    monkeypatch.setattr(place, "__file__", str(tmp_path / "place.py"))  # installed there
    found.add(key())
    os.utime(tmp_path, (1, 1))  # and there anew
    found.add(key())
    monkeypatch.setattr(sys, "version", f"{sys.version} (another)")
    found.add(key())
    assert len(found) == 4


AUDITOR = """
import os, sys
def hold(event, arguments):
    if event == "cpython.run_command" and arguments[0] == "held":
        with open(os.environ["SAYS"], "w") as file:
            file.write(f"{os.getpid()}")
        os.read(0, 1)
sys.addaudithook(hold)
"""


@pytest.mark.slow
def test_a_program_that_hangs_before_it_begins_gets_signals_and_ends_with_its_client(tmp_path):
    (tmp_path / "auditor.py").write_text(AUDITOR)
    os.mkfifo(tmp_path / "says")
    with command_line("--preload", "auditor") as line:
        line.import_from(tmp_path)
        line.env["SAYS"] = str(tmp_path / "says")
        line.warm_up()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with line.start("-c", "held", stdin=subprocess.PIPE) as client:
                pid = int((tmp_path / "says").read_text())
                client.send_signal(number)
                assert client.wait(PROGRAM_DEADLINE) == -number
                eventually(lambda pid=pid: is_gone(pid))


def test_a_pipe_ends_when_the_program_closes_it(shared):
    code = "import os; os.write(1, b'.'); os.close(1); os.read(0, 1)"
    with begin(shared, code, stdin=subprocess.PIPE) as client:
        assert client.stdout.read() == b""
        client.communicate(b"x", PROGRAM_DEADLINE)


@pytest.mark.slow
def test_a_keeper_without_programs_leaves(own):
    own.options = ("--idle", "0.0001", *own.options)
    own.run("-c", "pass")
    eventually(lambda: not own.left())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(shared, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", shared.env["XDG_RUNTIME_DIR"])
    shared.directory.parent.chmod(0o755)
    shared.directory.chmod(0o755)
    try:
        [path] = shared.sockets()
        path.chmod(0o777)  # the permissions of the directory are one guard, the check of the peer is another one
        pid = os.fork()
        if pid == 0:
            _ask_as_nobody(str(shared.directory), path.stem)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        with pytest.raises(place.UnusableError, match="not private"):
            os.close(place.open_directory())
    finally:
        path.chmod(0o700)
        shared.directory.chmod(0o700)
        shared.directory.parent.chmod(0o700)


def _ask_as_nobody(directory, name):
    try:
        fd = os.open(directory, place.PATH)
        os.setuid(65534)
        sock = place.connect(fd, name, PROGRAM_DEADLINE)
        messages.send(sock, ("status", {}))
        messages.receive(sock)
    except (messages.LostError, ConnectionError):
        os._exit(7)
    finally:
        os._exit(1)


def test_the_client_knows_the_variables_that_only_a_start_reads():
    assert tuple(prefix.decode() for prefix in PREFIXES) == place.START_VARIABLES


WRONG = {
    "": "needs a script",
    "-m": "needs a script",
    "-x script.py": "needs a script",
    "--preload": "lacks its value",
    "--preload a-b x": "name of a module",
    "--idle never x": "number of minutes",
    "--fast x": "no option --fast",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_arguments_are_explained(line):
    with pytest.raises(arguments.ArgumentsError, match=WRONG[line]):
        arguments.RunArguments(line.split())


def test_the_doctor_says_what_works_and_what_keeps_programs_from_starting_warm(tmp_path):
    env = {**PLAIN, "XDG_RUNTIME_DIR": str(tmp_path)}

    def examine(**changes):
        done = run_python("-m", "anyfork", "doctor", env={**env, **changes})
        assert done.stderr == ""
        return done.returncode, dict(line[6:].split(": ", 1) for line in done.stdout.splitlines())

    code, found = examine()
    assert (code, found["warm programs"]) == (0, "nothing keeps `anyfork run` from starting them")
    assert "a program ran" in found["template"]
    assert found["keepers"] == f"have the directory {tmp_path}/anyfork"
    code, found = examine(PYTHONPATH=f"{env.get('PYTHONPATH', '/')}:beside", ANYFORK_PYTHON="/nowhere")
    assert code == 1
    assert "PYTHONPATH has relative" in found["warm programs"]
    assert "/nowhere" in found["interpreter"]


def examples_of(page):
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    return re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


EXAMPLES = examples_of("run.md")


@pytest.mark.parametrize(("command", "said"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_the_examples_of_the_page_do_what_they_say(shared, tmp_path, command, said):
    (tmp_path / "data.json").write_text('{"a": [1, 2]}')
    function = f'anyfork() {{ {sys.executable} -m _anyfork_client "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", f"{function}\n{command}"],
        cwd=tmp_path,
        env=shared.env,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PROGRAM_DEADLINE,
        check=True,
    )
    assert done.stdout == said


@pytest.mark.slow
def test_commands_of_a_django_project_start_warm_by_the_line_of_the_page(tmp_path):
    pytest.importorskip("django")
    output_of("-m", "django", "startproject", "project", tmp_path)
    [(command, said)] = examples_of("replace-your-zygote.md")
    begin, line = shlex.split(command)[:2], shlex.split(command)[2:]
    assert begin == ["anyfork", "run"]
    with command_line(*line[:-2]) as django:
        django.warm_up()
        assert django.until_warm(lambda: django.run(*line[-2:], cwd=tmp_path)).stdout == said
