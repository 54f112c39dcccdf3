"""Templates on other machines: the commands that lead there, and the common part of their handles in both faces."""

from __future__ import annotations

import os

from .._errors import ArgumentError
from .._processes.remote import fork_relay
from .._system.timeouts import LONGEST_WAIT
from .template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from .._processes.arguments import Argument
    from .._processes.link import Link

CONNECT_TIMEOUT = 30.0  # seconds
KEEP_ALIVE = 30.0  # seconds
SSH_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # the options of ssh that are followed by a value


def connect(command: Sequence[Argument], connect_timeout: float, keep_alive: float) -> Link:
    """Start the relay for a remote template, and return its link. Raises ArgumentError and LaunchError."""
    if isinstance(command, str | bytes):
        raise ArgumentError(f"RemoteTemplate() needs a command as a sequence of arguments, not {command!r}")
    try:
        parts = [os.fsdecode(part) for part in command]
    except TypeError as error:
        raise ArgumentError(f"RemoteTemplate() needs strings or paths: {error}") from error
    if not parts or not parts[0]:
        raise ArgumentError("RemoteTemplate() needs at least the name of a program")
    for name, seconds in (("connect_timeout", connect_timeout), ("keep_alive", keep_alive)):
        if (
            isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0  # nor is nan
        ):
            raise ArgumentError(f"RemoteTemplate() needs {name} as a positive number of seconds, not {seconds!r}")
    return fork_relay(parts, destination(parts), min(connect_timeout, LONGEST_WAIT), min(keep_alive, LONGEST_WAIT))


def destination(command: Sequence[str]) -> str:
    """Return the host that an ``ssh`` command names, or an empty string for any other command.

    Such a command stands for the other side itself.
    """
    rest = iter(command)
    if os.path.basename(next(rest)) != "ssh":
        return ""
    for part in rest:
        if not part.startswith("-"):
            return part.removeprefix("ssh://").rpartition("@")[2]
        if part[-1] in SSH_WITH_VALUE and not any(letter in SSH_WITH_VALUE for letter in part[1:-1]):
            next(rest, None)
    return ""


class Unsupported:
    """A base class that refuses, for remote templates, the operations that only local templates support."""

    __slots__ = ()
    _instead = "make a RemoteTemplate there"

    @classmethod
    def new_exec(cls, **_: object) -> NoReturn:
        """Raise ArgumentError, because the command determines the interpreter."""
        raise ArgumentError(
            "RemoteTemplate.new_exec(): the interpreter is named in the command of RemoteTemplate(command)"
        )

    @classmethod
    def from_socket(cls, sock: object) -> NoReturn:  # noqa: ARG003  # the parameter has the same name in Template
        """Raise ArgumentError, because the connection belongs to the process that has made it."""
        raise ArgumentError("RemoteTemplate.from_socket(): a remote template cannot be handed over to another process")


class RemoteTemplate(Unsupported, Template):
    """A template on another machine, at the other end of a command such as ``["ssh", "host", "python3"]``.

    The command must start a Python, 3.11 or newer, and connect a byte stream to its standard input and output; nothing
    else has to be installed there. Everything sent to it travels as bytes, so descriptors raise ArgumentError. All
    templates and processes that come from this template share one connection. If the connection fails, the next
    ``ready`` or ``run`` raises RemoteTemplateError. If nothing answers within ``connect_timeout`` seconds, or nothing
    is heard of the other side for ``keep_alive`` seconds, the connection is given up, and everything there ends, as it
    does at the end of this program.

    ``pid`` is a process id of the other machine, and signals are sent there. Otherwise it works as ``Template`` does,
    without ``new_exec``, ``detach`` and ``from_socket``. Raises ArgumentError and LaunchError.

    For example::

        import math
        import sys
        import anyfork

        with anyfork.RemoteTemplate([sys.executable]) as template:      # or ["ssh", "host", "python3"]
            assert anyfork.call(math.gcd, 12, 18, template=template) == 6
    """

    __slots__ = ()

    def __init__(
        self,
        command: Sequence[Argument],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        self._link = connect(command, connect_timeout, keep_alive)
        self._link.hold()
        self._queued()
