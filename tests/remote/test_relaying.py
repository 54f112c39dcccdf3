"""What goes over a connection, how it ends, and what is left then: nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import far_side
import machines
import pytest
from conftest import eventually, owned, wait_for_end
from deadlines import DEADLINE
from owner_side import ended, read_all, stopped
from procfs import parent_of, runs

import anyfork
from _anyfork_child.remote.bootstrap import lines, pack, package, with_boot
from _anyfork_child.remote.local_relay import PARTING
from _anyfork_child.remote.protocol import BYE, EOF, FRAME, STOP, WINDOW_BYTES, message
from _anyfork_child.wire import frames

remote = machines.remote
NODE = os.uname().nodename


def pid_of(process):
    """Return what a process says that its pid is."""
    return int(process.channel.makefile().readline())


def relays(owner=None):
    """Return the pids of near and remote relay."""
    titles = owned(owner or os.getpid())
    near = [pid for pid, title in titles.items() if title.endswith("local_relay:relay")]
    far = [pid for pid, title in titles.items() if title.endswith("anyfork/relay")]
    return near, far


def relays_of(template):
    """Return those two of one template, which is on this machine: others may be there for other tests."""
    pid = template.ready().pid
    near, far = relays()
    while pid not in far:
        pid = parent_of(pid)
    assert parent_of(pid) in near
    return parent_of(pid), pid


@pytest.fixture
def own_relays(remote):
    """Return the relays of this template."""
    return relays_of(remote)


# --- Bytes and bodies -------------------------------------------------------------------------------------------


def test_large_values_travel_whole_in_every_way(remote):
    data = os.urandom(9 << 20)
    remote.send(data).execute("import sys; sys.modules['__main__'].executed = len(args[0])", data)
    with remote.fork().run("far_side:echo", data) as process:
        process.channel.close()
    with anyfork.Worker(remote.fork().execute("import far_side")) as worker:
        assert worker.call(far_side.double, data) == data * 2
        assert worker.call(bytes.hex, data[:100]) == data[:100].hex()
    assert anyfork.call(far_side.double, data, template=remote) == data * 2


def test_one_stalled_channel_stops_no_other(remote):
    stalled = remote.fork().run(far_side.sink)
    flooding = remote.fork().run(far_side.flood)
    assert stalled.channel.recv(1) == b"."
    stalled.channel.setblocking(False)
    sent = 0
    full = 0
    while full < 3:  # until nobody takes anything more, on the way there either
        try:
            sent += stalled.channel.send(bytes(1 << 16))
            full = 0
        except BlockingIOError:
            full += 1
            with remote.fork().run(far_side.echo) as process:  # a round trip by the same way
                process.channel.sendall(b"x")
                assert process.channel.recv(1) == b"x"
    assert sent > 1 << 20
    with anyfork.Worker(remote.fork()) as worker:
        assert list(worker.map(far_side.double, range(500))) == list(range(0, 1000, 2))
        assert worker.call(far_side.double, bytes(4 << 20)) == bytes(8 << 20)
    stalled.send_signal(signal.SIGUSR1)
    stalled.channel.setblocking(True)
    stalled.channel.shutdown(socket.SHUT_WR)
    assert read_all(stalled.channel) == b"%d" % sent
    assert ended(stalled).code == 0
    flooding.kill()
    assert ended(flooding).signal == signal.SIGKILL


def test_a_relay_holds_no_more_than_its_window_of_what_is_not_read(remote):
    remote.ready()
    sizes = {pid: _resident(pid) for pids in relays() for pid in pids}
    flooding = [remote.fork().run(far_side.flood) for _ in range(4)]
    with anyfork.Worker(remote.fork()) as worker:  # by then the others have come as far as they can
        assert list(worker.map(far_side.double, range(500))) == list(range(0, 1000, 2))
    grown = {pid: _resident(pid) - size for pid, size in sizes.items()}
    assert max(grown.values()) < 40 << 20, grown
    for process in flooding:
        process.kill()
        ended(process)


def _resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_the_end_of_either_direction_reaches_the_other_side(remote):
    with remote.fork().run(far_side.echo) as process:
        process.channel.sendall(b"all of it")
        process.channel.shutdown(socket.SHUT_WR)
        assert read_all(process.channel) == b"all of it"
    process = remote.fork().run(far_side.flood)
    process.channel.close()  # it gets EPIPE
    status = process.wait(DEADLINE)
    assert status.code == 1
    assert "BrokenPipeError" in status.error or "ConnectionResetError" in status.error
    process.close()


def test_a_process_that_ends_with_something_unread_is_seen_by_who_writes(remote):
    process = remote.fork().run(far_side.leave, 4)
    with pytest.raises(ConnectionError):  # EPIPE or ECONNRESET
        while True:
            process.channel.sendall(bytes(1 << 16))
    assert ended(process).code == 4


def test_signals_act_on_the_other_side_before_and_after_the_start(remote):
    process = remote.fork().run(far_side.say_pid_and_stay)
    pid = pid_of(process)
    assert process.pid == pid
    process.terminate()
    assert ended(process).signal == signal.SIGTERM
    process = remote.fork().start(far_side.say_pid_and_stay)
    process.kill()
    assert ended(process).signal == signal.SIGKILL


def test_a_start_that_is_too_slow_is_killed_and_says_that_it_may_have_run(remote):
    pid = remote.ready().pid
    with stopped(pid):
        process = remote.fork().start(far_side.say_pid_and_stay)
        with pytest.raises(anyfork.NotReadyError, match="may have entered it meanwhile") as caught:
            process.ready(0.05)
        assert caught.value.may_have_run
    process.wait(DEADLINE)
    process.close()


def test_exit_codes_and_errors_come_from_the_other_side(remote):
    assert ended(remote.fork().run(far_side.leave, 77)).code == 77
    status = ended(remote.fork().run(far_side.fail))
    assert status.code == 1
    assert "TypeError" in status.error or "LookupError" in status.error
    assert status.usage.max_rss > 0


def test_a_program_runs_on_the_other_side(remote):
    with remote.fork(stdout=anyfork.CHANNEL).run_program(["sh", "-c", "echo $0; exit 3"]) as process:
        assert read_all(process.channel) == b"sh\n"
        assert process.wait(DEADLINE).code == 3
    with pytest.raises(anyfork.ProgramError, match=NODE):
        remote.fork().run_program(["no-such-program"], timeout=DEADLINE)


def test_what_is_not_there_is_said_with_the_name_of_the_host(remote):
    with pytest.raises(anyfork.FunctionNotFoundError, match=f"on {NODE}: .*no_such_module"):
        remote.fork().run("no_such_module:function", timeout=DEADLINE)
    with remote.fork().preload("no_such_module") as template, pytest.raises(anyfork.PreloadError, match=f"on {NODE}: "):
        template.ready(DEADLINE)
    with anyfork.Worker(remote.fork()) as worker:
        with pytest.raises(anyfork.FunctionNotFoundError, match=rf"no_such_module.*\(on {NODE}\)"):
            worker.call("no_such_module:function")


# --- Lines ------------------------------------------------------------------------------------------------------


def test_what_is_written_there_arrives_here_as_lines_with_the_name_of_the_host(capfd):
    with anyfork.RemoteTemplate(machines.PYTHON) as template:
        with template.run(far_side.write_lines, "first line", "\x1b[31mred\x07", "größer") as process:
            assert process.channel.recv(1) == b"."
    said = ""

    def all_said():
        nonlocal said
        said += capfd.readouterr().err
        return said.count("\n") >= 4

    eventually(all_said)
    assert f"{NODE}: first line\n" in said
    assert f"{NODE}: \\x1b[31mred\\x07\n" in said  # a terminal is not to obey the other side
    assert f"{NODE}: größer\n" in said
    assert f"{NODE}: by print\n" in said
    assert all(line.startswith(f"{NODE}: ") for line in said.splitlines())


# --- Ends -------------------------------------------------------------------------------------------------------


def test_closing_the_template_lets_its_processes_finish_and_then_nothing_is_left():
    template = anyfork.RemoteTemplate(machines.PYTHON)
    process = template.fork().run(far_side.echo)
    template.close()
    process.channel.sendall(b"still there")
    assert process.channel.recv(100) == b"still there"
    process.channel.close()
    assert ended(process).code == 0


def test_what_a_process_has_sent_arrives_whole_although_the_connection_has_ended_meanwhile():
    size = WINDOW_BYTES - 1000  # more than any socket holds
    template = anyfork.RemoteTemplate(machines.PYTHON)
    _, far = relays_of(template)
    with template.fork().run(far_side.say, size) as process:
        template.close()
        wait_for_end(far)
        assert len(read_all(process.channel)) == size
        assert process.wait(DEADLINE).code == 0


def test_a_step_of_a_closed_template_is_completed_although_another_template_has_answered_since(tmp_path, gate):
    with anyfork.RemoteTemplate(machines.PYTHON) as template:
        code = "import os; os.mkdir(args[1] + open(args[0]).readline())"
        template.fork().execute(code, gate.path, f"{tmp_path}/").close()
        pidfd = os.pidfd_open(relays_of(template)[0])
    with open(pidfd, "rb"):
        assert not select.select([pidfd], [], [], PARTING + 0.2)[0]
    os.write(gate.fileno(), b"done\n")
    eventually((tmp_path / "done\n").exists)


def test_a_template_that_is_closed_as_soon_as_it_is_there_does_what_was_asked_and_all_ends(tmp_path):
    # The test is the local relay: all that the owner has sent arrives at once.
    word = os.urandom(8).hex() + "-"
    mark = b"\n<%s>" % word[::-1].encode()
    control, status = 1, 3
    sent = carried(0, frames.FORK, struct.pack("<II", control, status), 2)
    sent += carried(control, frames.EXECUTE, pickle.dumps(("import os; os.mkdir(args[0])", str(tmp_path / "done"))))
    sent += carried(control, frames.CLOSE)
    sent += b"".join(message(kind, number) for number in (control, status) for kind in (EOF, STOP))
    with subprocess.Popen(with_boot(machines.PYTHON), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as far:
        for data in (lines(word), package(pack(("", mark, os.getpid(), DEADLINE))), sent):
            far.stdin.write(data)
            said = far.stdout.read(1 << 16)
        while data := far.stdout.read(1 << 16):
            said += data
    assert said.endswith(message(BYE, 0))
    assert (tmp_path / "done").exists()


def carried(number, kind, body=b"", streams=0):
    """Return the message with a frame; the body begins with the numbers of the streams that come with it."""
    length = len(body) - 4 * streams
    return message(FRAME, number, frames.HEADER.pack(frames.VERSION, kind, streams, length, 0) + body)


@pytest.mark.parametrize("which", ["local relay", "remote relay"])
def test_the_end_of_a_relay_ends_everything_on_the_other_side(which, own_relays, remote):
    stubborn = remote.fork().run(far_side.stay_whatever_comes)
    pids = [pid_of(stubborn), remote.pid]
    waiting = remote.fork().start(far_side.say_pid_and_stay).ready()
    pids.append(pid_of(waiting))
    os.kill(own_relays[which == "remote relay"], signal.SIGKILL)
    for process in (stubborn, waiting):
        assert not process.wait(DEADLINE).known
        process.close()
    with pytest.raises(anyfork.ConnectionLostError):
        remote.ready(DEADLINE)
    with pytest.raises(anyfork.ConnectionLostError):
        remote.fork().run(far_side.echo, timeout=DEADLINE)
    eventually(lambda: not any(map(runs, [*pids, *own_relays])))


def test_a_lost_connection_is_told_with_its_reason(own_relays, remote):
    process = remote.fork().run(far_side.say_pid_and_stay)
    pid_of(process)
    with anyfork.Worker(remote.fork()) as worker:
        worker.ready()
        os.kill(own_relays[1], signal.SIGKILL)
        with pytest.raises(anyfork.WorkerDiedError, match="the connection is lost"):
            worker.call(far_side.double, 1)
        status = process.wait(DEADLINE)
    assert "the connection is lost" in status.error
    assert read_all(process.channel) == b""
    process.close()
    with pytest.raises(anyfork.ConnectionLostError, match="the connection is lost"):
        remote.ready(DEADLINE)


def test_a_peer_that_says_nothing_any_more_is_given_up_by_both_sides():
    with anyfork.RemoteTemplate(machines.PYTHON, keep_alive=0.5) as template:
        process = template.fork().run(far_side.say_pid_and_stay)
        pid = pid_of(process)
        _, far = relays_of(template)
        with stopped(far):
            status = process.wait(DEADLINE)
            assert "nothing was received over it for 0.5 seconds" in status.error
        process.close()
        eventually(lambda: not runs(pid))


def test_silence_of_the_user_is_no_silence_of_the_connection():
    with anyfork.RemoteTemplate(machines.PYTHON, keep_alive=0.2) as template:
        with template.run(far_side.echo) as process:
            threading.Event().wait(0.8)
            process.channel.sendall(b"x")
            assert process.channel.recv(1) == b"x"


def test_the_death_of_a_remote_template_is_its_own(remote):
    fork = remote.fork()
    os.kill(fork.ready().pid, signal.SIGKILL)
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        fork.ready(DEADLINE)
    assert caught.value.status.signal == signal.SIGKILL
    assert ended(remote.fork().run(far_side.leave, 3)).code == 3
    fork.close()


OWNER = """
import anyfork, far_side, sys
template = anyfork.RemoteTemplate(sys.argv[1:])
processes = [template.fork().run(f) for f in (far_side.say_pid_and_stay, far_side.stay_whatever_comes)]
pids = [p.channel.makefile().readline().strip() for p in processes]
print(template.ready().pid, *pids, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_owner_ends_everything_on_both_sides(number):
    env = {**os.environ, "PYTHONPATH": f"{machines.HERE}:{machines.HERE}/remote"}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *machines.PYTHON],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        text=True,
    ) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 3
        pids += owned(owner.pid)
        owner.send_signal(number)
        owner.wait(DEADLINE)
        with contextlib.suppress(BrokenPipeError):
            owner.stdin.close()
    eventually(lambda: not any(map(runs, pids)), lambda: f"left: {[pid for pid in pids if runs(pid)]}")


@pytest.mark.parametrize("more", ["", "t.execute('pass').close()"], ids=["open", "closed"])
def test_the_end_of_the_owner_ends_a_command_that_has_not_connected(tmp_path, more):
    program = f"import anyfork, sys; t = anyfork.RemoteTemplate(sys.argv[1:]); {more or 'pass'}; sys.stdin.read()"
    command = ["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000; python3"]
    with subprocess.Popen([sys.executable, "-c", program, *command], stdin=subprocess.PIPE) as owner:
        eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pids = [int((tmp_path / "pid").read_text()), *owned(owner.pid)]
        owner.kill()
        owner.wait(DEADLINE)
    eventually(lambda: not any(map(runs, pids)))


def test_relays_use_no_time_while_nothing_happens(own_relays, remote):
    stalled = remote.fork().run(far_side.flood)
    half_closed = remote.fork().run(far_side.echo)
    half_closed.channel.shutdown(socket.SHUT_WR)
    assert half_closed.channel.recv(1) == b""
    with anyfork.Worker(remote.fork()) as worker:  # by then the others have come as far as they can
        assert list(worker.map(far_side.double, range(500))) == list(range(0, 1000, 2))
    eventually(lambda: _times(own_relays) == (threading.Event().wait(0.3), _times(own_relays))[1])
    for process in (stalled, half_closed):
        process.kill()
        process.wait(DEADLINE)
        process.close()


def _times(pids):
    """Return the processor time that processes have used, in ticks."""
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]


def test_a_program_that_ends_leaves_nothing_and_says_nothing():
    env = {**os.environ, "PYTHONPATH": f"{machines.HERE}:{machines.HERE}/remote"}
    done = subprocess.run(
        [sys.executable, "-c", OWNER, *machines.PYTHON],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=env,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pids = [int(pid) for pid in done.stdout.split()]
    eventually(lambda: not any(map(runs, pids)))


def test_a_pool_of_threads_may_start_processes_at_once(remote):
    from concurrent.futures import ThreadPoolExecutor

    def one(number):
        with remote.fork().run(far_side.leave, number) as process:
            return process.wait(DEADLINE).code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == list(range(40))


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_relay_without_descriptors_fails_one_fork_and_nothing_else(room, own_relays, remote):
    near = own_relays[0]
    before = resource.prlimit(near, resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir(f"/proc/{near}/fd"))) + 1
    resource.prlimit(near, resource.RLIMIT_NOFILE, (used + room, before[1]))
    with remote.fork() as refused, pytest.raises(anyfork.ForkError, match="too many open files"):
        refused.ready(DEADLINE)
    resource.prlimit(near, resource.RLIMIT_NOFILE, before)
    assert ended(remote.fork().run(far_side.leave, 3)).code == 3


def test_many_processes_at_once_are_no_trouble(remote):
    processes = [remote.fork().start(far_side.say_pid_and_stay) for _ in range(150)]
    assert len({pid_of(process) for process in processes}) == 150
    for process in processes:
        process.channel.close()
    assert {ended(process).code for process in processes} == {0}
