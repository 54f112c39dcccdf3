"""A program of the keeper's: started for a client, told what its client is told, and ended with its client."""

from __future__ import annotations

import os
from _signal import SIGKILL, valid_signals
from select import POLLIN, poll
from time import monotonic

from _anyfork_child.values.encode import Encoded, pickle_into
from _anyfork_child.wire.platform import signal_pidfd
from _anyfork_client.messages import LostError, receive, send

from .._blocking.generation import NotWarmError
from .._blocking.process import Process
from .._blocking.template import Template
from .._errors import AnyforkError, AttributeRefusedError, ForkError
from .._processes.start import fork
from .command_line import CommandLine
from .start import read_report, reason, take_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import Any

    from _anyfork_child.wire.descriptors import Owned

    from .._blocking.generation import Generation
    from .kept_templates import KeptTemplate

FORK_TIMEOUT = 0.8  # seconds, after which the program starts cold
STREAMS = ("cwd", "stdin", "stdout", "stderr")  # in the order of their descriptors


def run(
    sock: socket, kept: KeptTemplate, made: Generation, request: dict[str, Any], running: dict[int, tuple[Any, float]]
) -> bool:
    """Run a program for a client, to its end. Return whether it was warm, and its client has seen its end.

    Notes the program among those that run. Raises NotWarmError if nothing of it has run, LostError and OSError.
    """
    send(sock, ("ready", ""))
    process, report = _start(sock, kept, made, request)
    with process:
        sock.settimeout(None)
        pid = process.pid or 0
        running[pid] = request["line"], monotonic()
        try:
            return _serve(sock, process, pid, report)
        finally:
            del running[pid]


def _start(sock: socket, kept: KeptTemplate, made: Generation, request: dict[str, Any]) -> tuple[Process, Owned]:
    """Start the program with the descriptors that the client sends; return what _begin returns. Raises NotWarmError."""
    fds: list[int] = []
    try:
        _, numbers = receive(sock, fds)
        handle = _fork(kept, made, request, fds)
        end = len(STREAMS) + len(numbers)
        return _begin(handle, request, [*zip(numbers, fds[len(STREAMS) : end], strict=True)], fds[end:])
    except (LostError, OSError) as error:  # the keeper has no further descriptor, for example
        raise NotWarmError(f"the keeper cannot start it: {error}") from error
    finally:
        for fd in fds:
            os.close(fd)


def _fork(kept: KeptTemplate, made: Generation, request: dict[str, Any], fds: Sequence[int]) -> Template:
    """Return a process that has all that the program inherits. Raises NotWarmError."""
    encoded = Encoded()
    values = {name: encoded.add_descriptor(fd, fd) for name, fd in zip(STREAMS, fds, strict=False)}
    given = {name: request[name] for name in ("umask", "limits", "priority", "affinity")}
    pickle_into(encoded, {**values, **given, "env": made.environment(request["env"]), "new_session": True})
    handle = None
    try:
        handle = Template._of(fork(made.template._link, {}, encoded))
        return handle.ready(FORK_TIMEOUT)
    except (AnyforkError, OSError) as error:
        if handle is not None:
            _end(handle)
        faults = AnyforkError, TimeoutError
        if isinstance(error, faults) and not isinstance(error, AttributeRefusedError | ForkError):
            kept.discard(made)  # the others are no fault of the template's
        raise NotWarmError(f"the template cannot start it: {error}") from error


def _end(handle: Template) -> None:
    """Let a process end that has not become the program: at once, for it has descriptors of the client."""
    pidfd = handle._link.session.pidfd
    if pidfd >= 0:
        signal_pidfd(pidfd, SIGKILL)
    handle.close()


def _begin(
    handle: Template, request: dict[str, Any], passed: Sequence[tuple[int, int]], terminals: Sequence[int]
) -> tuple[Process, Owned]:
    """Let a process become the program; return it, and the pipe of its report. Raises NotWarmError."""
    line = CommandLine(request["options"], request["kind"], request["target"], request["argv"], request["line"])
    signals = request["ignored"], [number for number in request["blocked"] if number in valid_signals()]
    terminal = terminals[0] if terminals else None
    imports_to = request.get("imports_to", "")
    try:
        process, report = take_over(handle, Process._of, line, passed, None, signals, terminal, imports_to)
        return process._ready_or_gone(None), report
    except (AnyforkError, OSError) as error:
        raise NotWarmError(f"the template cannot start it: {error}") from error


def _serve(sock: socket, process: Process, pid: int, report: Owned) -> bool:
    """Tell the client of the program's beginning and its end. Kill a program whose client has ended.

    Return what ``run`` returns. Raises NotWarmError if the program does not begin.
    """
    try:
        _pass_signals(sock, process, report.fd)
        why = _why_cold(read_report(report))
        send(sock, ("started", (pid, why)))
        _pass_signals(sock, process, process.fileno())
        returncode = process.wait().returncode
        if returncode is None:  # it is unknown, as the end of the connection tells the client
            return False
        send(sock, ("ended", returncode))
        return not why
    except (LostError, OSError):
        process.kill()
        return False


def _why_cold(said: bytes) -> str:
    """Return why a new interpreter runs a program, by its report. Raises NotWarmError if it does not begin."""
    try:
        return reason(said)
    except OSError as error:
        raise NotWarmError(f"the system refuses to start it: {error}") from error


def _pass_signals(sock: socket, process: Process, until: int) -> None:
    """Pass the client's signals to the program until a descriptor is readable. Raises LostError and OSError."""
    waiting = poll()
    waiting.register(sock.fileno(), POLLIN)
    waiting.register(until, POLLIN)
    while until not in {fd for fd, _ in waiting.poll()}:
        process.send_signal(receive(sock)[1])
