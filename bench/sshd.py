"""A real OpenSSH server with keys and a configuration of its own, in a directory of its own. Used by the tests, too."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

HOST = "anyfork-host"  # as the client's configuration calls it
NEEDED = ("sshd", "ssh", "ssh-keygen")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
DEADLINE = 20.0  # seconds for the server to listen

SERVER = """
Port {port}
ListenAddress {address}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
MaxStartups 100
{more}
"""
CLIENT = """
Host {host}
HostName {address}
Port {port}
IdentityFile {directory}/user_key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {directory}/known_hosts
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
"""


def missing() -> str:
    """What is not installed, or nothing."""
    return ", ".join(name for name in NEEDED if shutil.which(name, path=PATH) is None)


class Sshd:
    """The server, while it is a context manager. ``before`` precedes its command: another network namespace, say."""

    def __init__(self, directory: Path, address: str = "127.0.0.1", before: Sequence[str] = (), more: str = "") -> None:
        self.directory = directory
        self.address = address
        self._before = before
        self._more = more
        self.port = _free_port() if address == "127.0.0.1" else 22022
        self._log = directory / "log"

    def ssh(self, *command: str) -> list[str]:
        """The client's command that runs this there."""
        return ["ssh", "-F", str(self.directory / "client"), HOST, *command]

    def __enter__(self) -> Self:
        directory, address, port = self.directory, self.address, self.port
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        public = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"[{address}]:{port} {public}")
        values = {"directory": directory, "address": address, "port": port, "host": HOST, "more": self._more}
        (directory / "server").write_text(SERVER.format(**values))
        (directory / "client").write_text(CLIENT.format(**values))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where its processes without privileges live
        sshd = shutil.which("sshd", path=PATH) or "sshd"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._before, sshd, "-D", "-e", "-f", str(directory / "server")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait()
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while b"Server listening" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"sshd does not listen: {self._log.read_text()}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """Of the process that listens."""
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        # Its sessions do not end with it, and those whose network is gone never would.
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        sessions = [os.pidfd_open(int(pid)) for pid in listed]  # not reaped yet: the pids are theirs
        self._process.terminate()
        self._process.wait(DEADLINE)
        for pidfd in sessions:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
