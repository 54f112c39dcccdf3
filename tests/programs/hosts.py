"""A keeper for hosts as tests use it, and a host that speaks to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cold_and_warm import PLAIN
from deadlines import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


class HostKeeper:
    """A process ``anyfork keep``, and the path of its socket."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        command = [sys.executable, "-m", "_anyfork_client", "keep", "--socket", str(path), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=PLAIN)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().decode()

    def end(self) -> int:
        """Let it end as it does when its starter has ended; return its exit status."""
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode

    @contextmanager
    def host(self) -> Iterator[Host]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(str(self.path))
            with sock.makefile("rb") as lines:
                yield Host(sock, lines)


@contextmanager
def host_keeper(*options: str) -> Iterator[HostKeeper]:
    with tempfile.TemporaryDirectory() as directory:
        keeper = HostKeeper(Path(directory, "socket"), *options)
        try:
            yield keeper
        finally:
            keeper.end()


class Host:
    """A host: it sends requests, and reads events."""

    def __init__(self, sock: socket.socket, lines: Any) -> None:
        self.sock = sock
        self._lines = lines
        self.hello = self.event("hello")

    def ask(self, do: str, program: int | str, fds: Sequence[int] = (), **fields: Any) -> None:
        if isinstance(fields.get("data"), bytes):
            fields["data"] = b64encode(fields["data"]).decode()
        self.send(json.dumps({"do": do, "id": program, **fields}).encode() + b"\n", fds)

    def send(self, line: bytes, fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.sock, [line], [*fds]) if fds else self.sock.sendall(line)

    def event(self, *kinds: str) -> dict[str, Any]:
        """Return the next event, which is one of some kinds."""
        found: dict[str, Any] = json.loads(self._lines.readline())
        assert found["event"] in kinds, found
        return found

    def error(self, program: int | str | None) -> str:
        """Return the text of the next event, which is an error."""
        found = self.event("error")
        assert found["id"] == program, found
        text: str = found["message"]
        return text

    def output(self) -> bytes:
        """Return the output in the next event."""
        return b64decode(self.event("output")["data"])

    def outcome(self, started: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what a program does until its end: output by stream, and other fields by their names."""
        found = (started or self.event("started")) | {"stdout": b"", "stderr": b""}
        while found["event"] != "finished":
            event = self.event("output", "closed", "ended", "finished")
            if event["event"] == "output":
                found[event["stream"]] += b64decode(event.pop("data"))
            found |= event
        return found


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
