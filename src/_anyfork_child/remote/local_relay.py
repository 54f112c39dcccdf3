"""The local relay, beside the owner: runs the command of a remote template and acts as that template to the owner.

Runs in a process of its own. The relay waits for a connection, or reports on the template's control socket why there
is none; once connected, it relays. It ends with the last process on the other side, with the connection, or with the
owner.
"""

from __future__ import annotations

import _signal
import _socket
import os
import sys
from select import POLLIN, POLLOUT, poll
from time import monotonic

from ..wire.channel import NOWAIT
from ..wire.failure import Failure
from ..wire.frames import (
    BORN,
    CLOSE,
    DIED,
    ENTERED,
    EXECUTING,
    FAILED,
    FORK,
    HEADER,
    HEADER_SIZE,
    IMPORTED,
    LOST,
    NOTED,
    PING,
    READY,
    VERSION,
    Frame,
    ProtocolError,
    messages,
)
from ..wire.platform import OLDEST
from .bootstrap import Answers, lines, pack, package, version_text, with_boot
from .protocol import FRAME, NUMBER
from .relay import SPEAKS, Relay, settle_in
from .ssh_command import Command, StderrLines
from .stream import CONTROL, STATUS
from .transport import LostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from .stream import RelayStream

READ = 64 << 10
COMMAND_END_TIMEOUT = 1.0  # seconds for a command that has closed its output to end and to print the reason
PARTING = 0.5  # seconds for the other side to say BYE once all streams are closed, and then for the command to end
NOT_FOUND = (126, 127)  # exit codes of shells and similar programs for a program that they cannot run
FROM_PROCESSES = frozenset(
    {READY, ENTERED, IMPORTED, EXECUTING, FAILED, LOST, BORN, DIED, NOTED}
)  # kinds of frames they may send
IDLE = frozenset({PING, CLOSE})  # kinds of frames, without a body, that leave nothing to do if nobody listens
PEEK = NOWAIT | _socket.MSG_PEEK


class _OwnerGone(Exception):  # noqa: N818  # no error
    """Raised when the owner has closed the template before there is a connection, and has asked nothing of it."""


def relay(
    channel: _socket.socket,
    control: _socket.socket,
    status: _socket.socket,
    command: Sequence[str],
    owner: int,
    host: str,
    connect_timeout: float,
    keep_alive: float,
) -> None:
    """Act as a remote template: ``control`` and ``status`` are the socket ends that a template's process gets.

    ``owner`` is the pid of the owner, ``host`` the owner's name for the other side (may be empty); ``connect_timeout``
    and ``keep_alive`` are seconds.
    """
    channel.close()
    settle_in()
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # the command inherits this
    relay_here = _LocalRelay(control, status, owner, host, keep_alive)
    try:
        relay_here.connect(command, connect_timeout)
        relay_here.run()
    except Failure as failure:
        if not _tell(control, Frame(FAILED, 0, failure.pack())) and not _asks_nothing(control):
            print(f"anyfork: a template that nobody waited for failed: {failure.summary}", file=sys.stderr)
    except _OwnerGone:
        pass
    finally:
        relay_here.end()


def _tell(sock: _socket.socket, frame: Frame) -> bool:
    """Send the owner a last frame; return False if it does not read any more, or its socket does not take the frame at
    once.
    """
    try:
        for data, _ in messages(frame):
            sock.send(data, NOWAIT)
    except OSError:
        return False
    return True


def _asks_nothing(control: _socket.socket) -> bool:
    """Return whether the unread requests leave nothing to do, now that the owner has closed the template.

    Only frames of IDLE, which are mere headers, can come before the first frame of another kind.
    """
    try:
        data = control.recv(READ, PEEK)
    except OSError:  # there is nothing to read
        return True
    return IDLE.issuperset(data[1::HEADER_SIZE])


class _LocalRelay:
    """A local relay, which first connects and then relays; ``end`` cleans up, whatever happened."""

    def __init__(
        self, control: _socket.socket, status: _socket.socket, owner: int, host: str, keep_alive: float
    ) -> None:
        self._control = control
        self._status = status
        self._owner = owner
        self._host = host
        self._name = ""  # the first word of the command
        self._keep_alive = keep_alive
        self._lines = StderrLines(2)
        self._command: Command | None = None
        self._rest = b""
        self._before = "a Python has answered"  # the step that the connection waits for, for error messages
        self._relay: Relay | None = None
        self._gives_up_at = 0.0  # set once all streams are closed
        self._dropped = False  # whether the owner has closed the template
        _signal.signal(_signal.SIGTERM, self._terminated)

    def _terminated(self, *_: object) -> NoReturn:
        """Kill the command and end this process, because the owner has ended (SIGTERM)."""
        if self._command is not None:
            self._command.kill()
        os._exit(0)

    def end(self) -> None:
        """Kill the command and write the rest of its standard error."""
        if self._command is not None:
            self._command.kill()
            self._command.ended(COMMAND_END_TIMEOUT)
            self._lines.take(self._command.drain_errors(0.0))
        self._lines.end()

    # --- Connecting ---

    def connect(self, command: Sequence[str], seconds: float) -> None:
        """Run the command, and turn the Python that answers into the remote relay. Raises Failure."""
        self._name = command[0]
        try:
            self._command = Command(with_boot(command))
        except OSError as error:
            raise self._failure("connect", f"the command {self._name!r} cannot be executed: {error}") from None
        deadline = monotonic() + seconds
        word = os.urandom(8).hex() + "-"
        answers = Answers(word)
        try:
            self._greet(answers, word, deadline)
        except ValueError as error:
            raise self._failure("python", f"what {self._name!r} has started is not a Python: {error}") from None
        except TimeoutError:
            raise self._failure("timeout", f"{seconds:g} seconds have passed before {self._before}") from None
        except (EOFError, OSError):  # the connection was closed
            raise self._closed() from None
        self._rest = answers.rest
        self._lines.begin(self._host)

    def _greet(self, answers: Answers, word: str, deadline: float) -> None:
        kind, *details = self._ask(answers, lines(word), deadline)
        try:
            major, minor, micro, node = details
            version = int(major), int(minor), int(micro)
        except ValueError:
            raise ValueError(f"it says {kind!r}") from None
        if version < OLDEST:
            text = (
                f"the Python there is {version_text(version)}, and too old: it must be {version_text(OLDEST)} or newer"
            )
            raise self._failure("python", text)
        self._call_it(node)
        self._before = "the Python there was ready"
        mark = b"\n<%s>" % word[::-1].encode()
        bundled = package(pack((self._host, mark, self._owner, self._keep_alive)))
        kind, *details = self._ask(answers, bundled, deadline)
        if [kind, *details] != ["ready", SPEAKS]:
            raise self._failure("connect", f"the program arrived damaged ({kind} {' '.join(details)})")

    def _call_it(self, node: str) -> None:
        """Name the other side by the owner's name for it and by its own host name."""
        if not self._host:
            self._host = node
        elif node not in self._host:
            self._host = f"{self._host} ({node})"

    def _ask(self, answers: Answers, data: bytes, deadline: float) -> list[str]:
        """Send bytes and wait for an answer.

        Raises TimeoutError, OSError or EOFError at the end of the connection, and ValueError for endless noise.
        """
        assert self._command is not None
        fd = self._command.fd
        left = memoryview(data)  # in a line of its own: Nuitka 4.3 fails on it in an unpacking
        while (answer := answers.take(self._read(fd))) is None:
            if left:
                left = left[self._write(fd, left) :]
            self._wait(bool(left), deadline)
        return answer

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return b""
        if not data:
            raise EOFError
        return data

    @staticmethod
    def _write(fd: int, data: memoryview) -> int:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0

    def _wait(self, writes: bool, deadline: float) -> None:
        assert self._command is not None
        poller = poll()
        poller.register(self._command.fd, POLLIN | POLLOUT if writes else POLLIN)
        poller.register(self._command.errors, POLLIN)
        if not self._dropped:
            poller.register(self._control, 0)  # reports only its end
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        ready = dict(poller.poll(left * 1000))
        if self._control.fileno() in ready:
            self._dropped = True
            if _asks_nothing(self._control):
                raise _OwnerGone
        if self._command.errors in ready:
            self._hear(POLLIN)

    def _closed(self) -> Failure:
        """Return the failure for a closed connection: what the command has printed, and how it has ended."""
        command = self._command
        assert command is not None
        ended = command.ended(COMMAND_END_TIMEOUT)
        self._lines.take(command.drain_errors(COMMAND_END_TIMEOUT if ended else 0.0))
        if not ended or command.status is None:
            return self._failure("connect", f"{self._name!r} has closed the connection before {self._before}")
        code = os.waitstatus_to_exitcode(command.status)
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if code in NOT_FOUND:
            return self._failure("python", f"there is no such Python: {self._name!r} has ended with {how}")
        return self._failure("connect", f"{self._name!r} has ended with {how} before {self._before}")

    def _failure(self, category: str, text: str) -> Failure:
        said = self._lines.tail
        whole = f"{text}; it said:\n{said}" if said else text
        return Failure(category, self._host or self._name, whole, said)

    # --- Relaying ---

    def run(self) -> None:
        """Relay until the other side is done. Raises nothing: a lost connection is reported on the streams."""
        assert self._command is not None
        fd = self._command.fd
        relay = self._relay = Relay(fd, fd, 1, self._keep_alive, _admit)
        relay.watch(self._command.errors, self._hear)
        control, status = relay.open(self._control, CONTROL), relay.open(self._status, STATUS)
        numbers = NUMBER.pack(control.number) + NUMBER.pack(status.number)
        relay.say(FRAME, 0, HEADER.pack(VERSION, FORK, 2, 0, 0) + numbers)
        try:
            relay.take(self._rest)
            relay.run(self._is_over)
            if relay.said_bye:
                self._command.ended(PARTING)
        except LostError as error:
            self._lose(relay, error)

    def _is_over(self) -> bool:
        """Return whether the relay can end: all streams are closed, and the other side has said BYE.

        If nothing can run on the other side, the relay ends without a BYE after PARTING seconds. Requested steps are
        completed first, however long they take, and started processes may go on without a handle.
        """
        relay = self._relay
        assert relay is not None
        if relay.streams:
            return False
        if relay.said_bye or relay.started or relay.asked:
            return relay.said_bye
        if not self._gives_up_at:
            self._gives_up_at = relay.now + PARTING
            relay.hurry()
        return relay.now > self._gives_up_at

    def _hear(self, _event: int) -> None:
        """Read what the command has written to standard error."""
        assert self._command is not None
        try:
            data = os.read(self._command.errors, READ)
        except BlockingIOError:
            return
        self._lines.take(data)
        if not data and self._relay is not None:
            self._relay.forget(self._command.errors)

    def _lose(self, relay: Relay, error: LostError) -> None:
        """End the command, and report the lost connection on every stream that waits for an answer."""
        assert self._command is not None
        self._command.kill()
        self._command.ended(COMMAND_END_TIMEOUT)
        self._lines.take(self._command.drain_errors(0.0))
        failure = self._failure("lost", f"the connection is lost: {error}")
        for stream in relay.streams.values():
            _tell_loss(stream, failure)
        relay.end_streams()


def _tell_loss(stream: RelayStream, failure: Failure) -> None:
    """Report the loss behind what has arrived, unless the stream has come to its end before."""
    if stream.answers and not stream.stops:
        stream.put_frame(Frame(FAILED if stream.role == CONTROL else LOST, 0, failure.pack()))


def _admit(kind: int, streams: int, value: int) -> tuple[Sequence[int], int]:
    """Admit a frame from the other side if its kind is one that processes send.

    EXECUTING must bring one pipe, other kinds no stream. Raises ProtocolError for any other frame: an owner has no
    reason to trust the other side.
    """
    if kind not in FROM_PROCESSES or streams != (kind == EXECUTING):
        raise ProtocolError(f"a frame of kind {kind} with {streams} streams")
    return (), value
