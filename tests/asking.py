"""Questions of an owner to its processes. Programs of tests import this module too, so it loads little beside anyfork."""

from __future__ import annotations

import pickle

from deadlines import DEADLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from anyfork import ExitStatus, Process, Template


def read_all(channel: socket.socket) -> bytes:
    """Return all bytes up to the end of the stream."""
    with channel.makefile("rb") as file:
        return file.read()


def result_of(process: Process) -> Any:
    """Return what a process sends back pickled, once it has ended well."""
    with process:
        said = read_all(process.channel)
        status = process.wait(DEADLINE)
    assert status.code == 0, f"{status}: {status.error}"
    return pickle.loads(said)


def ask(template: Template, expression: str, *values: object) -> Any:
    """Return the value of an expression in a process of this template; ``v`` are the values sent before and these."""
    return result_of(template.start("child_side:answer", *values, expression))


def ended(process: Process) -> ExitStatus:
    """Return how a process has ended, and close its handle."""
    with process:
        return process.wait(DEADLINE)
