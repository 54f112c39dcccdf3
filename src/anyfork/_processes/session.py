"""The session with a process, on the owner's side and without I/O: questions, answers, and what became of the process.

Frames go in, states come out. The faces move the bytes and wait; both ask their questions here.
"""

from __future__ import annotations

from types import MappingProxyType

from _anyfork_child.wire.failure import unpack_texts
from _anyfork_child.wire.frames import (
    ADOPTED,
    BORN,
    BORN_AS_PROGRAM,
    COMPILED,
    DEATH,
    DIED,
    ENTERED,
    EXECUTING,
    FAILED,
    IMPORTED,
    LOST,
    NOTED,
    READY,
    Frame,
    ProtocolError,
)

from .. import _errors
from .._status import UNKNOWN, ExitStatus, Usage, exit_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Phase:
    """The progress of a process, as its owner sees it. No Enum, whose module costs an import of anyfork 1 ms."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return self.value


PREPARING = Phase("preparing")  # a template
STARTING = Phase("starting")  # told what to run
RUNNING = Phase("running")  # its function has been entered; its control socket is the channel
CLOSED = Phase("closed")  # the handle is used up
MOVED = Phase("moved")  # the link has moved to another handle
GONE = "is gone"  # the fate of a template of which nothing is known


class Report:
    """A failure that the process has reported."""

    __slots__ = ("category", "errno", "subject", "summary", "traceback", "where")

    def __init__(self, body: bytes) -> None:
        try:
            self.category, self.subject, number, self.summary, self.traceback = unpack_texts(body)
            errno, _, self.where = number.partition(" ")  # the machine's name, if it is another one
            self.errno = int(errno)
        except ValueError as error:
            raise ProtocolError(f"a malformed failure report: {error}") from error

    def error(self) -> _errors.AnyforkError:
        """Return the exception for this failure, a new one at each call."""
        make = _ERRORS.get(self.category)
        if make is None:
            return _errors.PeerError(f"a process reported a failure of the unknown kind {self.category!r}")
        error = make(self)
        if self.where:
            error.args = (f"on {self.where}: {error.args[0]}",)
        return error


class Session:
    """The state of one process, as far as its owner knows."""

    # Defaults of the class, because most processes end with most of them unchanged: this makes a session cheap.
    phase = PREPARING
    pid: int | None = None
    pidfd = -1  # -1: not received yet, or the system has none
    born = False
    pings = 0  # how often the process was asked whether it is ready
    answers = 0  # how often it has answered yes
    forks = 0
    compiled: bool | None = None  # whether the compiled part serves a template; None: it has not said that yet
    adopting = False  # taken over from another process; answers before ADOPTED were meant for the previous owner
    imported: tuple[str, float] | None = None  # the module that it imported for its function, and the seconds
    note = ""  # what its template has to say in the log
    report: Report | None = None
    lost: Mapping[int, Report] = MappingProxyType({})  # forks that did not even get their socket, by number
    status: ExitStatus | None = None
    control_ended = False
    status_ended = False
    protocol_error: Exception | None = None
    host = ""  # the name of the machine, if it is another one

    # --- Incoming frames ---

    def said_on_control(self, frame: Frame) -> dict[str, object]:
        """Return what a frame on the control socket says, as attributes of this session.

        Raises ProtocolError for a frame that does not belong there.
        """
        kind = frame.kind
        if self.adopting and kind in (READY, FAILED, LOST):  # an answer to the previous owner
            if kind != READY:
                Report(frame.body)
            return {}
        if kind in (ENTERED, READY, ADOPTED):
            said = {"compiled": frame.body == COMPILED} if kind == READY and frame.body else {}
            return {"pid": _pid(frame), **said, **self._answer(kind)}
        if kind == FAILED:
            return {"report": Report(frame.body)}
        if kind == LOST:
            return {"lost": {**self.lost, frame.value: Report(frame.body)}}
        if kind == EXECUTING:
            return {"pid": _pid(frame)}
        if kind == NOTED and self.answers < self.pings:
            return {"note": _note(frame)}
        if kind == IMPORTED and self.phase is STARTING:
            return {"imported": (frame.body.decode("utf-8", "replace"), frame.value / 1e9)}
        raise ProtocolError(f"a frame of kind {kind} on a control socket")

    def _answer(self, kind: int) -> dict[str, object]:
        if kind == ENTERED and self.phase is STARTING:
            return {"phase": RUNNING}
        if kind != ENTERED and self.answers < self.pings:
            return {"answers": self.answers + 1, "adopting": self.adopting and kind != ADOPTED}
        raise ProtocolError(f"an answer of kind {kind} that was not requested")

    def take_executed(self, body: bytes) -> None:
        """Note what arrived over the pipe that ends with a successful exec: a failure, or nothing."""
        if body:
            self.report = Report(body)
        else:
            self.phase = RUNNING

    def said_on_status(self, frame: Frame) -> dict[str, object]:
        """Return what a frame on the status socket says, as attributes of this session.

        Raises ProtocolError for a frame that does not belong there.
        """
        if frame.kind in (BORN, BORN_AS_PROGRAM) and not self.born:
            runs = {"phase": RUNNING} if frame.kind == BORN_AS_PROGRAM and self.phase is STARTING else {}
            return {"born": True, "pid": _pid(frame), "pidfd": frame.fds[0] if frame.fds else -1, **runs}
        if frame.kind == DIED and self.status is None and len(frame.body) >= DEATH.size:
            return {"status": _exit_status(frame.body)}
        if frame.kind == NOTED and not self.born:
            return {"note": _note(frame)}
        if frame.kind == LOST and self.host and self.status is None:  # lost together with the connection
            return {"status": ExitStatus(error=Report(frame.body).summary)}
        raise ProtocolError(f"a frame of kind {frame.kind} on a status socket")

    # --- State ---

    @property
    def expects_control(self) -> bool:
        """True while the control socket may bring a frame that somebody waits for."""
        if self.control_ended or self.report is not None:
            return False
        return self.phase is STARTING or (self.phase is PREPARING and self.answers < self.pings)

    @property
    def settled(self) -> bool:
        """True when the last question is answered: with yes, or with no and a known reason."""
        if self.phase is RUNNING or self.report is not None or self.protocol_error is not None:
            return True
        if self.control_ended:
            return self.status_ended or self.status is not None
        return self.phase is PREPARING and self.answers >= self.pings

    @property
    def succeeded(self) -> bool:
        """True when the answer was yes."""
        if self.report is not None or self.protocol_error is not None:
            return False
        if self.phase is RUNNING:
            return True
        return self.phase is PREPARING and not self.control_ended and self.answers >= self.pings

    def succeeded_at(self, number: int) -> bool:
        """Return whether the answer with this number was yes. Other answers may have been asked for meanwhile."""
        return self.succeeded or (self.answers >= number and self.report is None and self.protocol_error is None)

    def why(self, parent: str, stderr: str) -> _errors.AnyforkError:
        """Return the reason why the answer was no, as an exception.

        ``parent`` says what became of the template if this process was never forked; ``stderr`` is the end of its
        standard error.
        """
        if self.protocol_error is not None:
            return _errors.PeerError(f"the process sent data that is not anyfork's protocol: {self.protocol_error}")
        if self.report is not None:
            return self.report.error()
        if self.adopting:
            return _errors.TemplateDiedError("the template at the other end of this socket has ended", status=UNKNOWN)
        unborn = not self.born and self.pid is None and bool(parent)
        if self.host and not (self.status is not None and self.status.known) and (not unborn or parent == GONE):
            return self._lost()
        if unborn:
            return _errors.TemplateDiedError(
                f"the process was never forked: its template {parent}; nothing of it has run",
                status=UNKNOWN,
                stderr=stderr,
            )
        status = self.status or UNKNOWN
        tail = f"; it wrote:\n{stderr}" if stderr else ""
        if self.phase is STARTING:
            return _errors.DiedBeforeReadyError(
                f"process {self.pid} {status} before it entered its function{tail}", status=status, stderr=stderr
            )
        return _errors.TemplateDiedError(f"template {self.pid} {status}{tail}", status=status, stderr=stderr)

    def _lost(self) -> _errors.AnyforkError:
        """Return the error for a lost connection: nothing is known of the process, so the connection is gone."""
        told = self.status.error if self.status is not None else None
        return _errors.ConnectionLostError(
            f"{self.host}: {told or 'the relay that had the connection is gone'}", host=self.host
        )


def _exit_status(body: bytes) -> ExitStatus:
    status, *usage = DEATH.unpack_from(body)
    user, system, max_rss, _, _, _, minor, major, _, read, written, _, _, _, voluntary, involuntary = usage
    words = body[DEATH.size :].decode("utf-8", "replace")
    return exit_status(
        status, Usage(user, system, max_rss, minor, major, read, written, voluntary, involuntary), words or None
    )


def _preload(report: Report) -> _errors.AnyforkError:
    return _errors.PreloadError(
        f"module {report.subject!r} cannot be imported in the template: {report.summary}",
        remote_traceback=report.traceback,
        module=report.subject,
    )


def _attribute(report: Report) -> _errors.AnyforkError:
    return _errors.AttributeRefusedError(
        f"the new process could not apply {report.subject}=: {report.summary}",
        remote_traceback=report.traceback,
        attribute=report.subject,
        errno=report.errno,
    )


def _note(frame: Frame) -> str:
    return f"template {frame.value} {frame.body.decode('utf-8', 'replace')}"


def _pid(frame: Frame) -> int:
    """Return the pid in a frame. Raises ProtocolError for a number that would signal more than one process."""
    if not 0 < frame.value < 1 << 31:
        raise ProtocolError(f"a process reported the pid {frame.value}")
    return frame.value


def _unsafe(report: Report) -> _errors.AnyforkError:
    return _errors.UnsafeTemplateError(f"{report.summary}: {report.subject}", threads=report.subject)


def _devices(report: Report) -> _errors.AnyforkError:
    return _errors.UnsafeTemplateError(
        f"{report.subject} has opened a GPU in the template ({report.summary}), and a fork cannot use it then: "
        "open it in the function of the process",
        devices=report.summary,
    )


def _program(report: Report) -> _errors.AnyforkError:
    return _errors.ProgramError(
        f"the program {report.subject!r} cannot be executed: {report.summary}",
        program=report.subject,
        errno=report.errno,
    )


def _fork(report: Report) -> _errors.AnyforkError:
    text = f"fork failed in the template: {report.summary}; end processes, close descriptors, or raise their limits"
    error = _errors.ForkError(text)
    error.errno = report.errno
    return error


def _remote(cls: type[_errors.RemoteTemplateError]) -> Callable[[Report], _errors.AnyforkError]:
    def make(report: Report) -> _errors.AnyforkError:
        return cls(f"{report.subject}: {report.summary}", host=report.subject, stderr=report.traceback)

    return make


def _plain(cls: type[_errors.AnyforkError], text: str) -> Callable[[Report], _errors.AnyforkError]:
    def make(report: Report) -> _errors.AnyforkError:
        message = text.format(subject=report.subject, summary=report.summary)
        return cls(message, remote_traceback=report.traceback)

    return make


_ERRORS: dict[str, Callable[[Report], _errors.AnyforkError]] = {
    "preload": _preload,
    "execute": _plain(_errors.ExecuteError, "code given to execute failed in the template: {summary}"),
    "prepare": _plain(_errors.PrepareError, "prepare({subject}) failed in the template: {summary}"),
    "threads": _unsafe,
    "devices": _devices,
    "fork": _fork,
    "descriptors": _fork,
    "hook": _plain(_errors.HookError, "a hook raised in the new process ({subject}): {summary}"),
    "attribute": _attribute,
    "interpreter": _plain(_errors.LaunchError, "the interpreter {subject!r} cannot be executed: {summary}"),
    "function": _plain(_errors.FunctionNotFoundError, "the function was not found in the new process: {summary}"),
    "argument": _plain(
        _errors.ArgumentDecodeError, "the function or its arguments cannot be decoded in the new process: {summary}"
    ),
    "program": _program,
    "connect": _remote(_errors.ConnectError),
    "python": _remote(_errors.RemotePythonError),
    "timeout": _remote(_errors.ConnectTimeoutError),
    "lost": _remote(_errors.ConnectionLostError),
    "protocol": _plain(_errors.PeerError, "the process received data that is not anyfork's protocol: {summary}"),
    "children": _plain(_errors.HandleError, "the template cannot be taken over: {summary}"),
}
