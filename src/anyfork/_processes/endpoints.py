"""What comes from one process: its sockets, read without waiting, and the pidfd that signals go through.

What a frame means is the session's part; whoever waits does so on the sources that are named here (see
_processes.flows).

Locking: one lock a process, held while frames are moved. Locks are taken one at a time. A handle that the garbage
collector drops inside one of these sections may enter again, hence the reentrant lock.
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL
from _thread import RLock
from sys import byteorder
from types import MappingProxyType

from _anyfork_child.wire.channel import Channel
from _anyfork_child.wire.descriptors import lift
from _anyfork_child.wire.frames import EXECUTING, SIGNAL, Frame, ProtocolError
from _anyfork_child.wire.platform import has_pidfds, signal_pidfd
from _anyfork_child.wire.signal_handlers import comes_from_outside

from .._status import UNKNOWN, exit_status
from .._system.locks import locked
from .._system.once import Once
from .._system.polling import is_ready
from .incoming import Incoming
from .outbox import Outbox
from .session import Phase, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet
    from typing import Protocol, TypeAlias

    from .._status import ExitStatus

    class Waiter(Protocol):
        """One that waits: for which descriptor, and who reads for it, a thread or a task. Whoever is the same as the
        reader of a descriptor reads, too: it has interrupted that one, as signal handlers do."""

        fd: int

        @property
        def reader(self) -> object:
            """The thread or the task."""

        def wake(self) -> None:
            """Let it look again."""

    Source: TypeAlias = tuple[int, Callable[[], None]]  # a descriptor, and what to do when it is readable


UNIX_STREAM = (_socket.AF_UNIX, _socket.SOCK_STREAM)


class Ends:
    """The owner's ends of one process, and what is known of it."""

    waiters: AbstractSet[Waiter] = frozenset()  # those that wait on its descriptors, which are not closed meanwhile
    _readers: Mapping[int, Waiter] = MappingProxyType({})  # by descriptor: which of them reads it
    child = 0  # its pid, if its parent is this process itself, which has to reap it
    executed = -1  # a pipe that ends when the program has been executed
    _channel: Callable[[], socket.socket | None] = staticmethod(lambda: None)  # a weak reference, once there is one
    _signals_at_birth: tuple[int, ...] = ()

    def __init__(self, control: _socket.socket, status: _socket.socket | None) -> None:
        self.session = Session()
        self.outbox = Outbox(control)
        self.lock = RLock()
        self.status = None if status is None else Incoming(status)
        self._control = Incoming(control)
        self._said_executed = Once()

    def descriptors(self) -> tuple[int, ...]:
        """All that this holds; -1 for what it does not."""
        status = -1 if self.status is None else self.status.sock.fileno()
        channel = self._channel()
        given = -1 if channel is None else channel.fileno()
        return self._control.sock.fileno(), status, self.session.pidfd, self.executed, given

    def unread(self) -> int | None:
        """How many bytes of the process wait in the channel; None when that is closed, or there is none yet."""
        given = self._channel()
        fd = self._control.sock.fileno() if given is None else given.fileno()
        if fd < 0 or self.session.phase is not Phase.ENTERED:
            return None
        from fcntl import ioctl  # only now: where a wait was in vain
        from termios import FIONREAD

        return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), byteorder)

    @property
    def remote(self) -> bool:
        """Whether it is on another machine: its pid means nothing here."""
        return bool(self.session.host)

    # --- What may be waited for: whether it is there, and which descriptor to read for it ---

    def answered(self) -> bool:
        """The process has answered, or ended."""
        return self.session.settled

    def preparing(self) -> bool:
        """It still is a template, of which the handle may be used."""
        return self.session.phase is Phase.PREPARING

    def used_up(self) -> bool:
        """The handle was closed or moved, by another thread, while somebody waits."""
        return self.session.phase in (Phase.CLOSED, Phase.MOVED)

    def born_or_not(self) -> bool:
        """The template has forked the process, or never will."""
        return self.session.born or self.session.status_ended

    def ended(self) -> bool:
        """The process has ended."""
        return self.session.status is not None

    def heard(self) -> bool:
        """It has answered at all, or will not."""
        return self.session.answers > 0 or self.session.control_ended

    def delivered(self) -> bool:
        """Nothing waits to be sent."""
        return not self.outbox

    def nothing(self) -> Source | None:
        """For what is not read anywhere."""
        return None

    def answer_source(self) -> Source | None:
        """Where an answer comes from."""
        if self.executed >= 0:
            return self.executed, self._read_executed
        return self.status_source() if self.session.control_ended else self.control_source()

    def control_source(self) -> Source | None:
        """The control socket."""
        return self._control.fd, self.read_control

    def status_source(self) -> Source | None:
        """Where the end is told: by the template, or where that is gone, by the pidfd."""
        if not self.session.status_ended and self.status is not None:
            return self.status.fd, self.read_status
        return self.session.pidfd, self._end_unknown

    def has_read(self, fd: int) -> bool:
        """Whether something was read from a descriptor, and what it means is not noted yet: it will not be readable."""
        if fd == self.executed:
            return fd >= 0 and bool(self._said_executed.results)
        return any(one is not None and one.fd == fd and one.present.results for one in (self._control, self.status))

    # --- Who waits. Each of these holds the lock, and is harmless when it is done twice ---

    def begin_wait(self, waiter: Waiter, fd: int) -> bool:
        """Note that somebody waits for a descriptor; return whether it is the one to read it."""
        if not self.waiters:
            self.waiters, self._readers = set(), {}
        assert isinstance(self.waiters, set)
        assert isinstance(self._readers, dict)
        waiter.fd = fd
        self.waiters.add(waiter)
        return fd < 0 or self._readers.setdefault(fd, waiter).reader == waiter.reader

    def end_wait(self, waiter: Waiter) -> None:
        """Note that it waits no more; another one reads instead."""
        if waiter not in self.waiters:
            return
        assert isinstance(self.waiters, set)
        assert isinstance(self._readers, dict)
        if self._readers.get(waiter.fd) is waiter:
            self.wake_behind(waiter)
            del self._readers[waiter.fd]
        self.waiters.discard(waiter)

    def wake_behind(self, waiter: Waiter) -> None:
        """Wake the others that wait for the same descriptor: it was read, or somebody else has to."""
        for other in [*self.waiters]:
            if other.fd == waiter.fd and other is not waiter:
                other.wake()

    def wake_all(self) -> None:
        """Wake everybody: what they wait for may never come."""
        for waiter in [*self.waiters]:
            waiter.wake()

    # --- Receiving: each of these moves one frame, under the lock, if there is one ---

    def _receive(self, incoming: Incoming, calls: Once) -> Frame | None:
        """One frame, or None at the end of the stream; what is no frame ends the process."""
        try:
            frame = incoming.receive(calls)
            if frame is not None and frame.fds:
                frame.fds = [*map(lift, frame.fds)]
            return frame
        except ConnectionResetError:  # it ended with something of ours unread
            pass
        except (ProtocolError, EOFError) as error:
            self._distrust(error)
        return None

    def _distrust(self, error: Exception) -> None:
        self.session.protocol_error = error
        self._kill()

    def read_control(self) -> None:
        """Take a frame of the control socket, if somebody waits for one: what stands behind may be the user's."""
        session, calls = self.session, self._control.present
        if not session.expects_control:  # another has read the answer meanwhile
            return
        try:
            frame = self._receive(self._control, calls)
            if frame is None:
                self._end_control()
                return
            ours: dict[str, object] = {}
            said = session.said_on_control(frame)
            if frame.kind == EXECUTING and frame.fds and session.phase is Phase.STARTING:
                ours["executed"] = frame.fds[0]
            elif frame.fds and frame.fds[0] >= 0:  # what a former owner has left with the template
                ours["status"] = Incoming(_socket.socket(*UNIX_STREAM, 0, frame.fds[0]))
                said |= {"pidfd": frame.fds[1] if len(frame.fds) > 1 else -1, "born": True}
            self._control.commit(calls, (session, said), (self, ours))
        except BlockingIOError:
            return
        except ProtocolError as error:
            if calls is self._control.present:  # and nobody who has come in between has noted the frame
                self._distrust(error)

    def _end_control(self) -> None:
        session = self.session
        session.control_ended = True
        if self.status is None and session.pidfd < 0:  # nothing else will tell of its end
            session.status_ended = True
            self._take_pidfd()

    def overhear(self) -> bool:
        """Take a frame of a template's control socket that is not an answer; False when there is none, or none will
        come."""
        session = self.session
        if session.control_ended or session.phase is Phase.ENTERED:
            return False
        try:
            calls = self._control.present
            frame = self._receive(self._control, calls)
            session.control_ended = frame is None
            if frame is not None:
                self._control.commit(calls, (session, session.said_on_control(frame)))
        except (OSError, ProtocolError) as error:  # nothing there, or closed, or nothing that is of use
            if comes_from_outside(error):
                raise
            return False
        return frame is not None

    def _read_executed(self) -> None:
        # Either nothing, when exec has closed the other end, or the failure, in one piece.
        if self.executed < 0:
            return
        self._said_executed.call(0, os.read, self.executed, 1 << 20)
        self.session.take_executed(self._said_executed.results[0])
        self._close_executed()

    def read_status(self) -> None:
        """Take a frame of the status socket."""
        session, incoming = self.session, self.status
        if incoming is None:
            return
        calls = incoming.present
        if session.status_ended or session.status is not None:
            return
        try:
            frame = self._receive(incoming, calls)
            if frame is not None:
                known = session.pidfd
                incoming.commit(calls, (session, session.said_on_status(frame)))
                if known not in (-1, session.pidfd):
                    os.close(known)
                self._was_born()
                if session.pidfd < 0 and frame.fds and session.pid is not None:  # no room for it here (EMFILE)
                    session.pidfd = self._open_pidfd(session.pid)
                self._send_late_signals()
                return
        except BlockingIOError:
            return
        except ProtocolError as error:
            if calls is not incoming.present:  # somebody has come in between, and noted the frame
                return
            self._distrust(error)
        session.status_ended = True
        self._take_pidfd()

    @locked
    def read_news(self, done: Callable[[], bool]) -> bool:
        """Take what has come on the status socket already, unless somebody waits there, who would not notice."""
        session = self.session
        while not done() and self.status is not None and not (session.status_ended or self.waiters):
            before = session.born
            self.read_status()
            if session.born == before:
                break
        self.close_finished()  # nobody has waited, who would do it
        return done()

    def _send_late_signals(self) -> None:
        numbers, self._signals_at_birth = self._signals_at_birth, ()
        for number in numbers:
            self._signal(number)

    def news(self) -> tuple[object, ...]:
        """Something that differs when anything has been read."""
        session = self.session
        return (
            session.born,
            session.answers,
            session.report,
            session.status,
            session.status_ended,
            session.control_ended,
        )

    def _take_pidfd(self) -> None:
        """The template is gone. Where it could not hand over a pidfd, take one, while the pid is surely its own."""
        session = self.session
        if session.pidfd < 0 and session.pid is not None and session.status is None:
            session.pidfd = self._open_pidfd(session.pid)
        if session.pidfd < 0:
            session.status = UNKNOWN

    def _open_pidfd(self, pid: int) -> int:
        fd = self._control.sock.fileno()
        if fd < 0 or self.remote or not has_pidfds():
            return -1
        try:
            pidfd = lift(os.pidfd_open(pid))
        except OSError:  # it has ended
            return -1
        # While the other end of its socket is open the process lives, so the pid was its own when it was looked up.
        if not is_ready(fd, 0):  # it has not hung up
            return pidfd
        os.close(pidfd)
        return -1

    def _end_unknown(self) -> None:
        """The process has ended after its template: nobody could ask how."""
        if self.session.status is None:
            self.session.status = self._reap_child()

    def _reap_child(self) -> ExitStatus:
        """Wait for it where this process is its parent."""
        child, self.child = self.child, 0
        try:
            return exit_status(os.waitpid(child, os.WNOHANG)[1]) if child else UNKNOWN
        except ChildProcessError:  # the program waits for all its children, or ignores SIGCHLD
            return UNKNOWN

    def _was_born(self) -> None:
        """It is known now that the template has forked it."""

    def close_finished(self) -> None:
        """Close what is not needed any more, when nobody waits on it. Holds the lock."""

    # --- The process itself ---

    @locked
    def signal(self, number: int) -> None:
        """Send it a signal, unless it is known to have ended. It must have been born: before, there is no pidfd."""
        self._signal(number)

    def _signal(self, number: int) -> None:
        session = self.session
        if session.status is not None:
            return
        if session.pidfd >= 0:
            try:
                signal_pidfd(session.pidfd, number)
            except ProcessLookupError:
                pass  # ended, and not yet said so
        elif self.status is not None and not session.status_ended:
            # No pidfds here, or another machine: the template, which has not reaped it yet, knows the pid for certain.
            try:
                Channel(self.status.sock).send(Frame(SIGNAL, number))
            except ConnectionError:
                pass  # ended, and not yet said so; or the template is gone

    @locked
    def signal_now_or_at_birth(self, number: int) -> None:
        """Send it a signal without waiting: if nothing has come yet that tells who it is, when that comes."""
        self.read_news(self.born_or_not)
        session = self.session
        if not session.born and session.pid is not None and session.phase is Phase.ENTERED:
            self._recognise(session.pid)
        if session.born or session.pidfd >= 0 or session.status_ended or self.remote:
            self._signal(number)
        else:
            self._signals_at_birth = (*self._signals_at_birth, number)

    def _kill(self) -> None:
        if self.session.born or self.session.pidfd >= 0 or self.remote:
            self._signal(SIGKILL)

    def _recognise(self, pid: int) -> None:
        """It has said what it does before its template has said that it was born."""
        if self.remote:
            return
        try:
            pidfd = lift(os.pidfd_open(pid)) if has_pidfds() else -1
        except OSError:  # it has ended
            return
        self.read_status()
        session = self.session
        if session.born or session.status_ended or pidfd < 0:
            if pidfd >= 0:
                os.close(pidfd)
        else:  # its template has not reaped it when the pid was looked up: it says so before it does
            session.pidfd = pidfd

    def _close_executed(self) -> None:
        fd, self.executed = self.executed, -1
        if fd >= 0:
            os.close(fd)
