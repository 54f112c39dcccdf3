"""Remote templates over a real OpenSSH server, and over what else leads to a Python."""

from __future__ import annotations

import contextlib
import getpass
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import far_side
import machines
import pytest
from conftest import descendants, eventually, owned, wait_for_end
from deadlines import DEADLINE
from owner_side import ended, read_all

import anyfork
from anyfork import aio

server = machines.server


def identified(template, *values):
    """Return who a process of this template is."""
    with template.send(*values).fork().run(far_side.identify) as process:
        version, pid, parent, sent = pickle.loads(read_all(process.channel))
        assert process.pid == pid
    assert parent == template.ready().pid
    assert sent == values
    return version


def ssh_python(server, *more):
    return server.ssh("env", machines.MODULES, *more, sys.executable)


# --- A real server ----------------------------------------------------------------------------------------------


def test_processes_run_at_the_other_end_of_ssh(server):
    with anyfork.RemoteTemplate(ssh_python(server)) as template:
        assert identified(template, 1, "größer") == sys.version_info[:2]


def test_a_worker_answers_at_the_other_end_of_ssh(server):
    with anyfork.RemoteTemplate(ssh_python(server)) as template, anyfork.Worker(template) as worker:
        assert worker.call(far_side.double, 21) == 42
        assert list(worker.map(far_side.double, range(200))) == list(range(0, 400, 2))
        with pytest.raises(LookupError, match="not there"):
            worker.call(far_side.fail, "not there")


def test_many_processes_share_one_login(server):
    with anyfork.RemoteTemplate(ssh_python(server, "A=B")) as template:
        template.ready()
        log = server.directory / "log"
        logins = log.read_text().count("Accepted publickey")
        processes = [template.fork().start(far_side.say_pid_and_stay) for _ in range(20)]
        pids = {int(process.channel.makefile().readline()) for process in processes}
        assert len(pids) == 20
        assert log.read_text().count("Accepted publickey") == logins
        for process in processes:
            process.channel.close()
            assert ended(process).code == 0


def test_the_async_face_works_over_ssh(server):
    import anyio

    async def main():
        async with aio.RemoteTemplate(ssh_python(server)) as template:
            async with await template.fork().run(far_side.echo) as process:
                await process.channel.send(b"there and back")
                assert await process.channel.receive() == b"there and back"
            async with aio.Worker(template.fork()) as worker:
                assert await worker.call(far_side.double, 4) == 8

    anyio.run(main)


def test_a_refused_login_is_a_connect_error_with_what_ssh_says(server, tmp_path):
    other = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    command = server.ssh("python3")
    command[1:1] = ["-i", str(other), "-o", "IdentityFile=none"]
    client = (server.directory / "client").read_text().replace(f"{server.directory}/user_key", str(other))
    (tmp_path / "client").write_text(client)
    command = ["ssh", "-F", str(tmp_path / "client"), machines.sshd.HOST, "python3"]
    with anyfork.RemoteTemplate(command) as template, pytest.raises(anyfork.ConnectError) as caught:
        template.ready(DEADLINE)
    assert "exit code 255" in str(caught.value)
    assert "Permission denied" in caught.value.stderr
    assert caught.value.host == machines.sshd.HOST


def test_no_python_at_the_other_end_of_ssh_is_told_as_that(server):
    with (
        anyfork.RemoteTemplate(server.ssh("no-such-python")) as template,
        pytest.raises(anyfork.RemotePythonError) as caught,
    ):
        template.run(far_side.identify, timeout=DEADLINE)
    assert "no-such-python" in str(caught.value)
    assert machines.sshd.HOST in str(caught.value)


def test_a_server_that_is_not_there_is_a_connect_error(server, tmp_path):
    client = (server.directory / "client").read_text().replace(f"Port {server.port}", "Port 1")
    (tmp_path / "client").write_text(client)
    with anyfork.RemoteTemplate(["ssh", "-F", str(tmp_path / "client"), machines.sshd.HOST, "python3"]) as template:
        with pytest.raises(anyfork.ConnectError, match="Connection refused"):
            template.ready(DEADLINE)


def test_a_banner_and_a_start_up_file_that_talks_are_passed_over(tmp_path_factory):
    directory = tmp_path_factory.mktemp("talking")
    if machines.sshd.missing():
        pytest.skip(f"not installed: {machines.sshd.missing()}")
    (directory / "banner").write_text("Authorised users only!\n" * 20)
    more = f"Banner {directory}/banner"
    with machines.sshd.Sshd(directory, more=more) as server:
        command = server.ssh("bash", "-c", f"'echo; echo Welcome back; echo; {' '.join(machines.PYTHON)}'")
        with anyfork.RemoteTemplate(command) as template:
            assert identified(template) == sys.version_info[:2]


def test_everything_on_the_other_side_ends_with_ssh(server):
    with anyfork.RemoteTemplate(ssh_python(server)) as template:
        process = template.fork().run(far_side.stay_whatever_comes)
        pid = int(process.channel.makefile().readline())
        (ssh,) = [pid for pid, command in descendants().items() if " ssh -F " in command]
        os.kill(ssh, signal.SIGKILL)
        assert not process.wait(DEADLINE).known
        with pytest.raises(anyfork.ConnectionLostError):
            template.ready(DEADLINE)
        process.close()
    wait_for_end(pid)


OWNER = """
import anyfork, far_side, sys
with anyfork.RemoteTemplate(sys.argv[1:]) as template:
    process = template.fork().run(far_side.stay_whatever_comes)
    pid = process.channel.makefile().readline().strip()
    process.close()
    del process
print(pid, flush=True)
sys.stdin.read()
"""


def test_a_process_that_nobody_holds_goes_on_and_ends_with_its_owner(server):
    env = {**os.environ, "PYTHONPATH": f"{machines.HERE}:{machines.HERE}/remote"}
    command = [sys.executable, "-c", OWNER, *ssh_python(server)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as owner:
        pid = int(owner.stdout.readline())
        (root,) = [far for far, title in owned(owner.pid).items() if title.endswith("anyfork/relay")]
        closed = Path(f"/proc/{root}/fd")
        eventually(lambda: not any(os.readlink(fd).startswith("socket:") for fd in closed.iterdir()))
        assert Path(f"/proc/{pid}").exists()
        pids = [pid, *owned(owner.pid)]
        owner.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


# --- Two network namespaces -------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path):
    """Yield a server in one network namespace, and what precedes commands in another; between them delay and loss."""
    if os.getuid() != 0 or shutil.which("ip", path=machines.sshd.PATH) is None or machines.sshd.missing():
        pytest.skip("network namespaces need root, iproute2 and OpenSSH")
    here, there = f"anyfork-{os.getpid()}-a", f"anyfork-{os.getpid()}-b"

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=DEADLINE)

    with contextlib.ExitStack() as stack:
        for name in (here, there):
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
            stack.callback(ip, "netns", "delete", name)
        ip("link", "add", "veth0", "netns", here, "type", "veth", "peer", "name", "veth0", "netns", there)
        for name, address in ((here, "10.77.0.1"), (there, "10.77.0.2")):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "veth0")
            ip("-n", name, "link", "set", "veth0", "up")
        before = ["ip", "netns", "exec"]
        yield (
            here,
            there,
            stack.enter_context(machines.sshd.Sshd(tmp_path, "10.77.0.2", [*before, there])),
            [*before, here],
        )


def test_processes_run_in_another_network_namespace(network):
    here, _there, server, before = network
    with anyfork.RemoteTemplate([*before, *ssh_python(server)]) as template:
        assert identified(template) == sys.version_info[:2]
        subprocess.run(["ip", "-n", here, "link", "set", "veth0", "up"], check=True)


def test_a_connection_that_is_cut_is_lost_within_the_time_said(network):
    here, _there, server, before = network
    with anyfork.RemoteTemplate([*before, *ssh_python(server)], keep_alive=0.6) as template:
        process = template.fork().run(far_side.say_pid_and_stay)
        pid = int(process.channel.makefile().readline())
        subprocess.run(["ip", "-n", here, "link", "set", "veth0", "down"], check=True)  # no packet tells of it
        status = process.wait(DEADLINE)
        assert not status.known
        assert "nothing was received over it for 0.6 seconds" in status.error
        with pytest.raises(anyfork.ConnectionLostError):
            template.ready(DEADLINE)
        process.close()
        wait_for_end(pid)


def test_calls_go_on_over_a_network_with_delay_and_loss(network):
    here, there, server, before = network
    for name in (here, there):
        added = subprocess.run(
            [
                "ip",
                "netns",
                "exec",
                name,
                "tc",
                "qdisc",
                "add",
                "dev",
                "veth0",
                "root",
                "netem",
                "delay",
                "20ms",
                "5ms",
                "loss",
                "2%",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            pytest.skip(f"no netem here: {added.stderr.strip()}")
    with anyfork.RemoteTemplate([*before, *ssh_python(server)]) as template:
        with anyfork.Worker(template.fork()) as worker:
            assert list(worker.map(far_side.double, range(2000))) == list(range(0, 4000, 2))
            data = os.urandom(3 << 20)
            assert worker.call(far_side.double, data) == data * 2


# --- Other commands ---------------------------------------------------------------------------------------------

COMMANDS = {
    "python": machines.PYTHON,
    "python -": [*machines.PYTHON, "-"],
    "sh -c": ["sh", "-c", " ".join(machines.PYTHON)],
    "sh -c exec": ["sh", "-c", f"echo 'stty: standard input'; {machines.MODULES} exec {sys.executable}"],
    "bash -lc": ["bash", "-lc", " ".join(machines.PYTHON) + " -"],
    "a shell in a shell": ["sh", "-c", f"sh -c '{' '.join(machines.PYTHON)}'"],
    "nsenter": ["nsenter", "--target", str(os.getpid()), "--mount", *machines.PYTHON],
    "sudo": ["sudo", "-n", "-u", getpass.getuser(), *machines.PYTHON],
    "python with options": [*machines.PYTHON, "-X", "utf8", "-s"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_any_command_that_leads_to_a_python_gives_a_template(name):
    command = COMMANDS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if name in ("nsenter", "sudo") and os.getuid() != 0:
        pytest.skip(f"{name} needs root")
    with anyfork.RemoteTemplate(command) as template:
        assert identified(template, name) == sys.version_info[:2]


def test_sudo_leads_to_another_user(tmp_path):
    if os.getuid() != 0 or shutil.which("sudo") is None:
        pytest.skip("needs root and sudo")
    python = next((p for p in ("/usr/bin/python3",) if os.access(p, os.X_OK)), None)
    version = python and subprocess.run(
        [python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, check=False
    )
    if not version or version.stdout.strip() != b"True":
        pytest.skip("no Python that other users can run")
    with anyfork.RemoteTemplate(["sudo", "-n", "-u", "nobody", python]) as template:
        with anyfork.Worker(template) as worker:
            assert worker.call(os.getuid) != 0


# --- Other Pythons ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13"])
def test_another_python_may_be_on_the_other_side(minor):
    with anyfork.RemoteTemplate(["env", machines.MODULES, machines.other_python(minor)]) as template:
        assert ".".join(map(str, identified(template, {"a": [1.5, None]}))) == minor
        with anyfork.Worker(template.fork()) as worker:
            assert worker.call(far_side.double, [1]) == [1, 1]
            with pytest.raises(LookupError, match="not there"):
                worker.call(far_side.fail, "not there")


@pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13"])
def test_a_function_by_value_needs_the_same_python_and_the_error_says_so(minor):
    here = ".".join(map(str, sys.version_info[:2]))
    with anyfork.RemoteTemplate(["env", machines.MODULES, machines.other_python(minor)]) as template:
        if minor == here:
            with template.run(lambda channel: channel.sendall(b"by value")) as process:
                assert read_all(process.channel) == b"by value"
            return
        with pytest.raises(anyfork.ArgumentDecodeError) as caught:
            template.run(lambda channel: None, timeout=DEADLINE)
    assert f"Python {here}" in str(caught.value)
    assert f"Python {minor}" in str(caught.value)
    assert "put it into a module that both can import" in str(caught.value)


@pytest.mark.parametrize("minor", ["2.7", "3.6", "3.10"])
def test_a_python_that_is_too_old_is_told_with_its_version(minor):
    with anyfork.RemoteTemplate([machines.other_python(minor)]) as template:
        with pytest.raises(anyfork.RemotePythonError, match=rf"{minor}\.\d+, and too old: it must be 3.11"):
            template.ready(DEADLINE)


def test_what_is_by_value_needs_nothing_installed_on_the_other_side():
    with anyfork.RemoteTemplate([sys.executable, "-S", "-I"]) as template:
        captured = object.__name__
        with template.run(lambda channel: channel.sendall(captured.encode())) as process:
            assert read_all(process.channel) == b"object"
