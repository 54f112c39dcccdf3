"""The owner's ends of one process: its sockets, what waits to be sent, and what is known. It never waits.

Both faces use it. What a frame means is the session's part; what to wait for, and in which order, is in _dialogue; how
one waits is the faces' part; what a socket does not take at once is in _outbox and _delivery.

Locking: one lock a link, held while frames are moved. Locks are taken one at a time. A handle that the garbage
collector drops inside one of these sections may enter again, hence the reentrant lock.
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL, pidfd_send_signal
from _thread import RLock
from select import poll

from _anyfork_child._channel import NOWAIT, Channel, close_all
from _anyfork_child._platform import has_pidfds
from _anyfork_child._wire import CLOSE, EXECUTING, PING, REVOKE, SIGNAL, Frame, ProtocolError

from ._delivery import deliver, open_links, pending, undelivered, when_free
from ._errors import HandleError
from ._outbox import Outbox
from ._session import Phase, Session
from ._status import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from _anyfork_child._encoding import Encoded

    from ._output import Output

    Source: TypeAlias = tuple[int, Callable[[], None]]  # a descriptor, and what to do when it is readable

SCRAP = 4096  # bytes to read at once of what nobody wants


class Link:
    """One process as seen from this one.

    ``parent`` is the link to the template that forks it, as long as it may have to say why it has not.
    """

    number = 0  # which of its parent's forks this is
    interpreter = ""  # the command, if it was executed for this process
    waiters = 0  # how many wait on its descriptors, which are not closed meanwhile
    turns: dict[int, list[Any]] | None = None  # by descriptor: those behind the one that waits there (see _waiting)
    warmed: tuple[str, ...] = ()  # what it has been told to import because most of its processes need it
    executed = -1  # a pipe that ends when the program has been executed
    output: Output | None = None
    _signals_at_birth: tuple[int, ...] = ()
    _dropped = False
    _askers = 0  # its forks that may still want to know why they were never born

    def __init__(self, control: _socket.socket, status: _socket.socket | None, parent: Link | None) -> None:
        self.session = Session()
        self.outbox = Outbox(control)
        self.lock = RLock()
        self.parent = parent
        if parent is not None:
            with parent.lock:
                parent._askers += 1
        self.status = None if status is None else Channel(status)
        self._control = Channel(control)
        self._owner = os.getpid()
        open_links.add(self)

    # --- Who may use it ---

    def check(self, call: str) -> None:
        """Raise HandleError in a forked copy of the process that made this handle, or when it is used up."""
        if self._owner != os.getpid():
            raise HandleError(
                f"{call}() in process {os.getpid()} on a handle of process {self._owner}: handles do not work in a "
                "forked copy of their owner; make new ones, or hand them over with detach()"
            )
        phase = self.session.phase
        if phase is not Phase.PREPARING:
            what = "was closed" if phase is Phase.CLOSED else "was taken over by start or run"
            raise HandleError(f"{call}() on a template that {what}")

    @property
    def foreign(self) -> bool:
        """True in a forked copy of the process that made this handle."""
        return self._owner != os.getpid()

    @property
    def closed(self) -> bool:
        """True when its control socket is closed, or somebody else's."""
        return self._control.sock.fileno() < 0

    # --- Sending ---

    def post(self, kind: int, encoded: Encoded, call: str = "") -> None:
        """Queue a frame with values, and send what the socket takes now.

        That of a ``call`` that takes the template over is sent only if no other thread has done that.
        """
        frame, made, pieces = encoded.frame(kind)
        self.send(frame, made, pieces, call)

    def send(self, frame: Frame, own: Sequence[int] = (), pieces: Sequence[bytes] = (), call: str = "") -> None:
        """Queue a frame and send what the socket takes now; see Outbox.push.

        The descriptors ``own`` of the frame are closed then.
        """
        try:
            with self.lock:
                if call:
                    self.check(call)
                    self.session.phase = Phase.STARTING
                self._push(frame, pieces)
        finally:
            close_all(own)
        if pending():
            deliver()

    def send_fork(self, frame: Frame, child: Link) -> None:
        """Queue the birth of ``child``."""
        with self.lock:
            self._push(frame)
            child.number = self.session.forks
            self.session.forks += 1

    def ask(self) -> None:
        """Ask whether everything so far has been done."""
        with self.lock:
            self.session.pings += 1
            self.send(Frame(PING))

    def _push(self, frame: Frame, pieces: Sequence[bytes] = ()) -> None:
        self.outbox.push(frame, pieces)
        if self.outbox:
            undelivered.add(self)

    def flush(self) -> bool:
        """Send what the socket takes of the queue; False when polling the socket is no use. Holds the lock."""
        pollable = self.outbox.flush()
        if not self.outbox and self in undelivered:
            undelivered.discard(self)
            if self._dropped:
                self._close()
        return pollable

    def flush_line(self) -> bool:
        """Send what is queued here and in the templates above, whose queues may still hold this process's birth."""
        if not pending():
            return True
        deliver()
        pollable = True
        for link in self.line():
            with link.lock:
                pollable &= link.flush()
        return pollable

    def line(self) -> list[Link]:
        """This link and those of the templates above that matter to it."""
        links = [self]
        while (above := links[-1].parent) is not None:
            links.append(above)
        return links

    def unsent(self) -> list[int]:
        """The sockets that have to take more before this process gets all that was asked of it."""
        return [fd for link in self.line() for fd in link.unsent_here()] if undelivered else []

    def unsent_here(self) -> list[int]:
        """This process's own socket, if it has to take more."""
        return [self._control.fd] if self.outbox else []

    # --- What may be waited for: whether it is there, and which descriptor to read for it ---

    def answered(self) -> bool:
        """The process has answered, or ended."""
        return self.session.settled

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

    # --- Receiving: each of these moves one frame, under the lock, if there is one ---

    def _receive(self, channel: Channel) -> Frame | None:
        """One frame, or None at the end of the stream; what is no frame ends the process."""
        try:
            return channel.receive(NOWAIT)
        except ConnectionResetError:  # it ended with something of ours unread
            return None
        except (ProtocolError, EOFError) as error:
            self._distrust(error)
            return None

    def _distrust(self, error: Exception) -> None:
        self.session.protocol_error = error
        self._kill()

    def read_control(self) -> None:
        """Take a frame of the control socket, if somebody waits for one: what stands behind may be the user's."""
        session = self.session
        if not session.expects_control:  # another has read the answer meanwhile
            return
        try:
            frame = self._receive(self._control)
            if frame is None:
                session.control_ended = True
                if self.status is None and session.pidfd < 0:  # nothing else will tell of its end
                    session.status_ended = True
                    self._take_pidfd()
            elif frame.kind == EXECUTING and frame.fds and session.phase is Phase.STARTING:
                session.take_control(frame)
                self.executed = frame.fds[0]
            else:
                session.take_control(frame)
                self._keep_ends(frame.fds)
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._distrust(error)

    def overhear(self) -> bool:
        """Take a frame of a template's control socket that is not an answer; False when there is none, or none will
        come."""
        session = self.session
        if session.control_ended or session.phase is Phase.ENTERED:
            return False
        try:
            frame = self._receive(self._control)
            session.control_ended = frame is None
            if frame is not None:
                session.take_control(frame)
        except (OSError, ProtocolError):  # nothing there, or closed, or nothing that is of use
            return False
        return frame is not None

    def _read_executed(self) -> None:
        # Either nothing, when exec has closed the other end, or the failure, in one piece.
        if self.executed < 0:
            return
        body = os.read(self.executed, 1 << 20)
        self._close_executed()
        self.session.take_executed(body)

    def read_status(self) -> None:
        """Take a frame of the status socket."""
        session = self.session
        if self.status is None or session.status_ended or session.status is not None:
            return
        try:
            frame = self._receive(self.status)
            if frame is not None:
                known = session.pidfd
                session.take_status(frame)
                if known not in (-1, session.pidfd):
                    os.close(known)
                self._forget_parent()  # was needed only as long as this process might not come to be
                if session.pidfd < 0 and frame.fds and session.pid is not None:  # no room for it here (EMFILE)
                    session.pidfd = self._open_pidfd(session.pid)
                self._send_late_signals()
                return
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._distrust(error)
        session.status_ended = True
        self._take_pidfd()

    def read_news(self, done: Callable[[], bool]) -> bool:
        """Take what has come on the status socket already, unless somebody waits there, who would not notice."""
        with self.lock:
            session = self.session
            while not done() and self.status is not None and not (session.status_ended or self.waiters):
                before = session.born
                self.read_status()
                if session.born == before:
                    break
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
        if fd < 0 or not has_pidfds():
            return -1
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it has ended
            return -1
        # While the other end of its socket is open the process lives, so the pid was its own when it was looked up.
        hung_up = poll()
        hung_up.register(fd, 0)
        if not hung_up.poll(0):
            return pidfd
        os.close(pidfd)
        return -1

    def _end_unknown(self) -> None:
        """The process has ended after its template: nobody could ask how."""
        if self.session.status is None:
            self.session.status = UNKNOWN

    def _keep_ends(self, fds: Sequence[int]) -> None:
        """The status socket and the pidfd that a former owner has left with the template."""
        if fds and fds[0] >= 0:
            self.status = Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0]))
            self.session.pidfd = fds[1] if len(fds) > 1 else -1
            self.session.born = True

    # --- The process itself ---

    def signal(self, number: int) -> None:
        """Send it a signal, unless it is known to have ended. It must have been born: before, there is no pidfd."""
        with self.lock:
            self._signal(number)

    def _signal(self, number: int) -> None:
        session = self.session
        if session.status is not None:
            return
        if session.pidfd >= 0:
            try:
                pidfd_send_signal(session.pidfd, number)
            except ProcessLookupError:
                pass  # ended, and not yet said so
        elif self.status is not None and not session.status_ended:
            # No pidfds here: the template, which has not reaped it yet, knows the pid for certain.
            try:
                Channel(self.status.sock).send(Frame(SIGNAL, number))
            except ConnectionError:
                pass  # ended, and not yet said so; or the template is gone

    def signal_now_or_at_birth(self, number: int) -> None:
        """Send it a signal without waiting: if nothing has come yet that tells who it is, when that comes."""
        self.read_news(self.born_or_not)
        with self.lock:
            session = self.session
            if not session.born and session.pid is not None and session.phase is Phase.ENTERED:
                self._recognise(session.pid)
            if session.born or session.pidfd >= 0 or session.status_ended:
                self._signal(number)
            else:
                self._signals_at_birth = (*self._signals_at_birth, number)

    def _kill(self) -> None:
        if self.session.born or self.session.pidfd >= 0:
            self._signal(SIGKILL)

    def revoke(self) -> bool:
        """Take back a start that has not been answered. True: the function will never be entered.

        From here on the process cannot report that it enters, and without that it does not enter. It tells this
        from a handle that was merely dropped by the frame behind (see _anyfork_child._entry._check_revoked).
        """
        with self.lock:
            if self.session.phase is not Phase.STARTING:
                return False
            try:
                self._control.sock.shutdown(_socket.SHUT_RD)
            except OSError:  # already disconnected
                pass
            self.read_control()
            if self.session.succeeded:
                return False
        self.send(Frame(REVOKE))
        with self.lock:
            self.read_status()
            if not self.session.born and self.session.pid is not None:
                self._recognise(self.session.pid)
            self._kill()
            self._close_executed()
        return True

    def _recognise(self, pid: int) -> None:
        """It has said what it does before its template has said that it was born."""
        try:
            pidfd = os.pidfd_open(pid) if has_pidfds() else -1
        except OSError:  # it has ended
            return
        self.read_status()
        session = self.session
        if session.born or session.status_ended or pidfd < 0:
            if pidfd >= 0:
                os.close(pidfd)
        else:  # its template has not reaped it when the pid was looked up: it says so before it does
            session.pidfd = pidfd

    # --- The end of the handle ---

    def detach_control(self) -> int:
        """Give the control socket away, as a channel or to another owner; return its descriptor."""
        return self._control.sock.detach()

    def close_control(self) -> None:
        """Let the function see the end of its channel, which nobody has asked for."""
        with self.lock:
            self._control.sock.close()

    def close_template(self) -> None:
        """Say that nothing more will come, and let go. What is queued is delivered first."""
        if self.foreign:
            return
        with self.lock:
            if self.session.phase is not Phase.PREPARING:
                return
            self.session.phase = Phase.CLOSED
        self.send(Frame(CLOSE))
        self.let_go()

    def drop_process(self) -> None:
        """The handle of the process is not used any more; the process goes on."""
        if self.foreign:
            return
        with self.lock:
            session = self.session
            if session.phase is Phase.CLOSED:
                return
            if session.phase is Phase.STARTING and session.status is None:
                self._drain()
            session.phase = Phase.CLOSED
        self.let_go()

    def _drain(self) -> None:
        """Read what nobody has waited for. If it were unread, the function would not see the end of its channel, but a
        reset of the connection."""
        sock = self._control.sock
        try:
            sock.shutdown(_socket.SHUT_RD)
            while sock.recv(SCRAP, NOWAIT):
                pass
        except OSError:  # already disconnected
            pass

    def let_go(self) -> None:
        """Close what this link holds, as soon as its queue is delivered. The process goes on."""
        with self.lock:
            self._dropped = True
            if not self.outbox:
                self._close()

    def close_finished(self) -> None:
        """Close what is not needed any more, when nobody waits on it. Holds the lock."""
        if self.waiters:
            return
        if self.session.status is not None:
            self._close_status()
        if self._dropped and not self.outbox:
            self._close()

    def _close(self) -> None:
        open_links.discard(self)
        if self.waiters or self._may_be_asked():
            return
        self._forget_parent()
        self._control.close()
        self._close_executed()
        if self.output is not None:
            self.output.close()
        self._close_status()

    def _may_be_asked(self) -> bool:
        """True while a fork may want to know why this process, its template, was never born."""
        session = self.session
        if not self._askers:
            return False
        if not session.born:
            self.read_status()
        if session.born or self.status is None:
            return False
        return not (session.status_ended and self.learn_refusal())

    def learn_refusal(self) -> bool:
        """It was never born: keep what it has been told why, or its template has. False when that has to wait, because
        another thread has the template's lock."""
        while self.overhear():
            pass
        above, session = self.parent, self.session
        if session.report is not None or above is None:
            return True
        if not above.lock.acquire(blocking=False):
            return False
        try:
            known = above.session.born or above.learn_refusal()
            if not above.session.born:
                session.report = above.session.report
            return known
        finally:
            above.lock.release()

    def _forget_parent(self) -> None:
        parent, self.parent = self.parent, None
        if parent is not None:
            when_free(parent, parent._forget_asker)

    def _forget_asker(self) -> None:
        self._askers -= 1
        if self._dropped and not self.outbox:
            self._close()

    def _close_status(self) -> None:
        session = self.session
        if self.status is not None:
            self.status.close()
            self.status = None
        if session.pidfd >= 0:
            os.close(session.pidfd)
            session.pidfd = -1

    def _close_executed(self) -> None:
        if self.executed >= 0:
            os.close(self.executed)
            self.executed = -1
