"""The owner's endpoints of a process: its sockets, read without waiting, and the pidfd that signals go through.

The session decides what a frame means; a waiter waits on the sources that are named here (see _processes.flows).

Locking: there is one lock per process, held while frames are moved. Locks are taken one at a time. A handle that the
garbage collector drops inside one of these sections may enter again, hence the reentrant lock.
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL
from _thread import RLock
from sys import byteorder

from _anyfork_child.wire.channel import NOWAIT, Channel
from _anyfork_child.wire.descriptors import Owned, duplicates, lift
from _anyfork_child.wire.frames import (
    DEATH,
    EXECUTING,
    HEADER_SIZE,
    IMPORTED,
    NOTED,
    SIGNAL,
    Frame,
    ProtocolError,
)
from _anyfork_child.wire.platform import has_pidfds, signal_pidfd
from _anyfork_child.wire.signals import comes_from_outside

from .._status import UNKNOWN, exit_status
from .._system.locks import Once, close_attribute, locked
from .._system.polling import is_ready
from .incoming import Incoming
from .outbox import Outbox
from .session import CLOSED, MOVED, PREPARING, RUNNING, STARTING, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Protocol, TypeAlias

    from .._status import ExitStatus

    class Waiter(Protocol):
        """A waiter: the descriptor it waits for, and its reader, a thread or a task. A waiter with the same reader as
        the descriptor's present one reads too: it is a signal handler that has interrupted that one.
        """

        fd: int

        @property
        def reader(self) -> object:
            """The thread or the task that reads."""

        def wake(self) -> None:
            """Let the waiter check again."""

    Source: TypeAlias = tuple[int, Callable[[], None]]  # a descriptor, and what to call when it is readable


UNSETTLED = (STARTING, PREPARING)  # the phases in which an answer may be missing
USED_UP = (CLOSED, MOVED)
PEEK = NOWAIT | _socket.MSG_PEEK
UNIX_STREAM = (_socket.AF_UNIX, _socket.SOCK_STREAM)
LAST_FRAME = HEADER_SIZE + DEATH.size  # bytes: no frame after that of the birth is shorter


class Endpoints:
    """The owner's ends of one process, and the state known of it."""

    child = 0  # its pid, if this process itself is its parent and has to reap it
    executed = -1  # a pipe that ends when the program has been executed
    begins_at_birth = False  # whether its template may execute its program, and reports that with the birth
    _channel: Callable[[], socket.socket | None] = staticmethod(lambda: None)  # a weak reference, once a channel exists
    _signals_at_birth: tuple[int, ...] = ()
    _said_executed: Once | None = None  # what was read from that pipe

    def __init__(self, control: _socket.socket, status: _socket.socket | None) -> None:
        self.session = Session()
        self.outbox = Outbox(control)
        self.lock = RLock()
        self.status = None if status is None else Incoming(status)
        self._control = Incoming(control)
        self.waiters: set[Waiter] = set()  # waiters on its descriptors, which are not closed meanwhile
        self._readers: dict[int, Waiter] = {}  # by descriptor: the waiter that reads it

    def descriptors(self) -> tuple[int, ...]:
        """Return all descriptors that this object holds; -1 for each one that it does not hold."""
        status = -1 if self.status is None else self.status.sock.fileno()
        channel = self._channel()
        given = -1 if channel is None else channel.fileno()
        return self._control.sock.fileno(), status, self.session.pidfd, self.executed, given

    def unread(self) -> int | None:
        """Return how many bytes from the process are unread in the channel; None if the channel is closed or does not
        exist yet.
        """
        given = self._channel()
        fd = self._control.sock.fileno() if given is None else given.fileno()
        if fd < 0 or self.session.phase is not RUNNING:
            return None
        from fcntl import ioctl  # only now: it is needed only after a wait that timed out
        from termios import FIONREAD

        return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), byteorder)

    @property
    def remote(self) -> bool:
        """True when the process is on another machine, so that its pid means nothing here."""
        return bool(self.session.host)

    # --- Conditions to wait for, and the sources that bring them ---

    def answered(self) -> bool:
        """Return whether the process has answered, or ended."""
        return self.session.settled

    def answered_or_used_up(self) -> bool:
        """Return whether the process has answered, or ended, or another thread has closed or moved the handle."""
        session = self.session
        return session.phase not in UNSETTLED or session.settled

    def preparing(self) -> bool:
        """Return whether the process still is a template whose handle may be used."""
        return self.session.phase is PREPARING

    def used_up(self) -> bool:
        """Return whether another thread has closed or moved the handle during a wait."""
        return self.session.phase in USED_UP

    def born_or_not(self) -> bool:
        """Return whether the template has forked the process, or never will."""
        return self.session.born or self.session.status_ended

    def born_or_used_up(self) -> bool:
        """Return whether the template has forked the process, or never will, or the handle is used up."""
        return self.born_or_not() or self.used_up()

    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self.session.status is not None

    def ended_or_used_up(self) -> bool:
        """Return whether the process has ended, or another thread has closed or moved the handle."""
        session = self.session
        return session.status is not None or session.phase in USED_UP

    def heard(self) -> bool:
        """Return whether the process has answered at all, or never will."""
        return self.session.answers > 0 or self.session.control_ended

    def is_heard(self) -> bool:
        """Return whether the control socket has something to read, or has come to its end."""
        return _has_input(self._control)

    def is_reported(self) -> bool:
        """Return whether the status socket has something to read, or has come to its end."""
        return self.status is None or _has_input(self.status)

    def delivered(self) -> bool:
        """Return whether nothing is left to be sent."""
        return not self.outbox

    def nothing(self) -> Source | None:
        """Return no source: for a condition that no descriptor brings."""
        return None

    def answer_source(self) -> Source | None:
        """Return the source of an answer."""
        if self.executed >= 0:
            return self.executed, self._read_executed
        if self.session.control_ended or self._awaits_birth():
            return self.status_source()
        return self.control_source()

    def _awaits_birth(self) -> bool:
        """Return whether the report of the birth is the next answer. Before it, the control socket may bring the output
        of a program.
        """
        return self.begins_at_birth and not self.born_or_not()

    def control_source(self) -> Source | None:
        """Return the control socket as a source."""
        return self._control.fd, self.read_control

    def has_news(self) -> bool:
        """Return whether the process has sent something that nobody has read, or has ended."""
        return is_ready(self._control.fd)

    def status_source(self) -> Source | None:
        """Return the source of the process's end: the status socket, or the pidfd if the template is gone."""
        status = self.status  # a signal handler that comes in between may close it
        if status is not None and not self.session.status_ended:
            return status.fd, self.read_status
        return self.session.pidfd, self._end_unknown

    def has_read(self, fd: int) -> bool:
        """Return whether something was read from a descriptor and not noted yet: the descriptor will not become
        readable again for it.
        """
        control, status = self._control, self.status
        if fd == control.fd:
            return bool(control.present)
        if status is not None and fd == status.fd:
            return bool(status.present)
        return fd >= 0 and fd == self.executed and bool(self._said_executed)

    # --- Waiters. The caller of these methods holds the lock; calling one twice is harmless ---

    def begin_wait(self, waiter: Waiter, fd: int) -> bool:
        """Add a waiter for a descriptor; return whether it is the one to read the descriptor."""
        waiter.fd = fd
        self.waiters.add(waiter)
        return fd < 0 or self._readers.setdefault(fd, waiter).reader == waiter.reader

    def end_wait(self, waiter: Waiter) -> None:
        """Remove a waiter; another one reads instead."""
        if waiter not in self.waiters:
            return
        if self._readers.get(waiter.fd) is waiter:
            self.wake_behind(waiter)
            del self._readers[waiter.fd]
        self.waiters.discard(waiter)

    def wake_behind(self, waiter: Waiter) -> None:
        """Wake the other waiters for the same descriptor: it was read, or another one has to read it."""
        if len(self.waiters) > 1:
            for other in [*self.waiters]:
                if other.fd == waiter.fd and other is not waiter:
                    other.wake()

    def wake_all(self) -> None:
        """Wake all waiters: the event they wait for may never come."""
        for waiter in [*self.waiters]:
            waiter.wake()

    # --- Receiving: each of these moves one frame, if there is one, under the lock ---

    def _receive(self, incoming: Incoming, calls: Once, size: int = HEADER_SIZE) -> Frame | None:
        """Return one frame of at least ``size`` bytes, or None at the end of the stream. Kill a process that sends
        anything but frames.
        """
        try:
            frame = incoming.receive(calls, size)
            if frame is not None and frame.fds:
                frame.fds = [*map(lift, frame.fds)]
            return frame
        except ConnectionResetError:  # the process has ended without having read everything that we sent
            pass
        except (ProtocolError, EOFError) as error:
            self._distrust(error)
        return None

    def _distrust(self, error: Exception) -> None:
        self.session.protocol_error = error
        self._kill()

    def read_control(self) -> None:
        """Take a frame of the control socket, if somebody waits for one: the bytes behind it may be the user's."""
        session, calls = self.session, self._control.present
        if not session.expects_control:  # another waiter has read the answer meanwhile
            return
        try:
            frame = self._receive(self._control, calls)
            if frame is None:
                self._end_control()
                return
            said = session.said_on_control(frame)
            if frame.kind == EXECUTING and frame.fds and session.phase is STARTING:
                self._control.commit(calls, (session, said), (self, {"executed": frame.fds[0]}))
            elif frame.fds and frame.fds[0] >= 0:  # left with the template by a former owner
                status = Incoming(_socket.socket(*UNIX_STREAM, 0, frame.fds[0]))
                said |= {"pidfd": frame.fds[1] if len(frame.fds) > 1 else -1, "born": True}
                self._control.commit(calls, (session, said), (self, {"status": status}))
                if self.status is not status:  # dropped by a signal handler, with its descriptor
                    status.sock.detach()
            else:
                self._control.commit(calls, (session, said))
            if frame.kind == IMPORTED:  # the answer comes after this note
                self.read_control()
        except BlockingIOError:
            return
        except ProtocolError as error:
            if calls is self._control.present:  # and no signal handler or destructor has noted the frame meanwhile
                self._distrust(error)

    def _end_control(self) -> None:
        session = self.session
        session.control_ended = True
        if self.status is None and session.pidfd < 0:  # nothing else will report its end
            session.status_ended = True
            self._take_pidfd()

    def overhear(self) -> bool:
        """Take a frame of a template's control socket that is not an answer. Return False when there is none, or never
        will be.
        """
        session = self.session
        if session.control_ended or session.phase is RUNNING:
            return False
        try:
            calls = self._control.present
            frame = self._receive(self._control, calls)
            session.control_ended = frame is None
            if frame is not None:
                self._control.commit(calls, (session, session.said_on_control(frame)))
        except (OSError, ProtocolError) as error:  # nothing there, or closed, or not usable
            if comes_from_outside(error):
                raise
            return False
        return frame is not None

    def _read_executed(self) -> None:
        # Either nothing, when exec has closed the other end, or the failure, in one piece.
        if self.executed < 0:
            return
        said: Once = vars(self).setdefault("_said_executed", Once())
        said.call(0, map(os.read, (self.executed,), (1 << 20,)))
        self.session.take_executed(said[0])
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
            frame = self._receive(incoming, calls, LAST_FRAME if session.born and not session.host else HEADER_SIZE)
            if frame is not None:
                said = session.said_on_status(frame)
                incoming.commit(calls, (session, said), replaced=session.pidfd if "pidfd" in said else -1)
                if session.born:
                    self._was_born()
                if session.pidfd < 0 and frame.fds and session.pid is not None:  # it could not be received (EMFILE)
                    self._open_pidfd(session.pid)
                if frame.kind == NOTED:  # the news of the process comes after this note
                    self.read_status()
                else:
                    self._send_late_signals()
                return
        except BlockingIOError:
            return
        except ProtocolError as error:
            if calls is not incoming.present:  # a signal handler or destructor has noted the frame meanwhile
                return
            self._distrust(error)
        session.status_ended = True
        self._take_pidfd()

    @locked
    def read_news(self, done: Callable[[], bool]) -> bool:
        """Take what the status socket has brought, unless there is a waiter, which would not notice. Return
        ``done()``.
        """
        session = self.session
        while not done() and self.status is not None and not (session.status_ended or self.waiters):
            before = session.born
            self.read_status()
            if session.born == before:
                break
        self.close_finished()  # no waiter does it
        return done()

    def _send_late_signals(self) -> None:
        numbers, self._signals_at_birth = self._signals_at_birth, ()
        for number in numbers:
            self._signal(number)

    def news(self) -> tuple[object, ...]:
        """Return a value that differs as soon as anything was read."""
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
        """Open a pidfd if the template has gone without sending one, while the pid is certainly the process's own."""
        session = self.session
        if session.pidfd < 0 and session.pid is not None and session.status is None:
            self._open_pidfd(session.pid)
        if session.pidfd < 0:
            session.status = UNKNOWN

    def _open_pidfd(self, pid: int) -> None:
        fd = self._control.sock.fileno()
        if fd < 0 or self.remote or not has_pidfds():
            return
        try:
            opened = Owned(map(os.pidfd_open, (pid,)))
            # While the other end of its socket is open the process lives, so the pid was its own when it was looked up.
            if not is_ready(fd, 0):  # it has not hung up
                self._keep_pidfd(opened)
        except OSError:  # it has ended, or descriptors have run out
            pass

    def _keep_pidfd(self, opened: Owned) -> None:
        """Keep an opened pidfd, unless a signal handler has come in between, and its call has found one."""
        session, made = self.session, duplicates(opened.fds)
        [session.pidfd] = made if session.pidfd < 0 else (session.pidfd,)

    def _end_unknown(self) -> None:
        """Note the end of a process that has outlived its template. Its status is unknown, unless this process is its
        parent.
        """
        if self.session.status is None:
            self.session.status = self._reap_child()

    def _reap_child(self) -> ExitStatus:
        """Reap the process if this process is its parent, and return its status."""
        child, self.child = self.child, 0
        try:
            return exit_status(os.waitpid(child, os.WNOHANG)[1]) if child else UNKNOWN
        except ChildProcessError:  # the program waits for all its children, or ignores SIGCHLD
            return UNKNOWN

    def _was_born(self) -> None:
        """Note that the template has forked the process."""

    def close_finished(self) -> None:
        """Close descriptors that are not needed any more, unless somebody waits on them. The caller holds the lock."""

    # --- The process itself ---

    @locked
    def signal(self, number: int) -> None:
        """Send the process a signal, unless it is known to have ended. It must be born: before, there is no pidfd."""
        self._signal(number)

    def _signal(self, number: int) -> None:
        session = self.session
        if session.status is not None:
            return
        if session.pidfd >= 0:
            try:
                signal_pidfd(session.pidfd, number)
            except ProcessLookupError:
                pass  # ended, but not reported yet
        elif self.status is not None and not session.status_ended:
            if session.pid is not None and not self.remote and has_pidfds():
                self._signal_by_pid(session.pid, number)
                return
            # No pidfds here, or another machine: the template, which has not reaped the process yet, knows its pid for
            # certain.
            try:
                Channel(self.status.sock).send(Frame(SIGNAL, number))
            except ConnectionError:
                pass  # ended, but not reported yet; or the template is gone

    def _signal_by_pid(self, pid: int, number: int) -> None:
        """Send a signal to a process whose pidfd could not be received (EMFILE). Raises OSError if that is still so."""
        try:
            opened = Owned(map(os.pidfd_open, (pid,)))
            self.read_status()
            # The template reports before it reaps, so the process was not reaped when the pid was looked up.
            if self.session.status is None and not self.session.status_ended:
                signal_pidfd(opened.fd, number)
        except ProcessLookupError:
            pass  # ended, but not reported yet

    @locked
    def signal_now_or_at_birth(self, number: int) -> None:
        """Send the process a signal without waiting; if its pid is not known yet, send the signal as soon as it is
        reported.
        """
        self.read_news(self.born_or_not)
        session = self.session
        if not session.born and session.pid is not None and session.phase is RUNNING:
            self._recognise(session.pid)
        self._signal_or_keep(number)

    def _signal_or_keep(self, number: int) -> None:
        """Send the process a signal, or keep the signal until the template reports the birth."""
        session = self.session
        if session.born or session.pidfd >= 0 or session.status_ended or self.remote:
            self._signal(number)
        else:
            self._signals_at_birth = (*self._signals_at_birth, number)

    def leave_signal(self, number: int) -> None:
        """Leave a signal to the template that starts a program. It looks for it after the report of the birth."""
        if self.status is not None:
            try:
                Channel(self.status.sock).send(Frame(SIGNAL, number))
            except ConnectionError:  # the template is gone
                pass
            self.read_status()

    def _leave_signals(self) -> None:
        """Leave the signals kept for the birth to the template: from now on nobody here reads the report of the birth.

        The template either has reported the birth already, or finds the signals when its report fails, because the
        reading direction is shut down in between.
        """
        if self._signals_at_birth and self.status is not None:
            channel = Channel(self.status.sock)
            try:
                for number in self._signals_at_birth:
                    channel.send(Frame(SIGNAL, number))
                self.status.sock.shutdown(_socket.SHUT_RD)
            except OSError:  # the template is gone, or has refused the fork
                return
            self.read_status()

    def _kill(self) -> None:
        if self.session.born or self.session.pidfd >= 0 or self.remote:
            self._signal(SIGKILL)

    def _recognise(self, pid: int) -> None:
        """Open a pidfd for a process that has reported its function before its template has reported its birth."""
        session = self.session
        if session.pidfd >= 0 or self.remote or not has_pidfds():
            return
        try:
            opened = Owned(map(os.pidfd_open, (pid,)))
        except OSError:  # it has ended
            return
        self.read_status()
        if not (session.born or session.status_ended):
            # The template reports before it reaps, so the process was not reaped when the pid was looked up.
            self._keep_pidfd(opened)

    def _close_executed(self) -> None:
        close_attribute(self, "executed")


def _has_input(incoming: Incoming) -> bool:
    try:
        incoming.sock.recv(1, PEEK)
    except BlockingIOError:
        return False
    except OSError as error:  # it has hung up, or another thread has closed it
        if comes_from_outside(error):
            raise
    return True
