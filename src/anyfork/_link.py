"""The blocking end of one process: its sockets, its queue, its lock.

Nothing here decides what a frame means: that is the session's part. No thread is started; a queue that a socket does
not take at once is written on by whatever call on a handle comes next, and at the end of the program.

Locking: one lock a link, held while frames are moved and never while waiting. Locks are taken one at a time. A handle
that the garbage collector drops inside one of these sections may enter again, hence the reentrant lock and ``_busy``.
"""

from __future__ import annotations

import _socket
import atexit
import os
from _signal import SIGKILL, pidfd_send_signal
from _thread import RLock, allocate_lock
from collections import deque
from errno import EPIPE, ETOOMANYREFS
from select import POLLIN, POLLOUT, poll
from time import monotonic

from _anyfork_child._channel import NOWAIT, Channel, close_all, send_some
from _anyfork_child._platform import has_pidfds
from _anyfork_child._steps import warm
from _anyfork_child._wire import (
    CLOSE,
    DESCRIPTORS_A_MESSAGE,
    DETACH,
    EXECUTING,
    PING,
    PREPARE,
    REVOKE,
    SIGNAL,
    Frame,
    ProtocolError,
    messages,
)

from ._arguments import encode_call
from ._errors import AnyforkError, HandleError, LaunchError
from ._session import Phase, Report, Session
from ._status import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Source: TypeAlias = tuple[int, Callable[[], None]]  # a descriptor, and what to do when it is readable

RETRY = 10  # milliseconds between attempts when the kernel's limit of descriptors in flight is reached
SO_SNDBUFFORCE = 32  # Linux: above the limit for everybody, where we may
SEND_BUFFER = 1 << 24  # bytes
OUTPUT = 4096  # bytes of what a process wrote that go into an error
EXIT = 1.0  # seconds at the end of the program for what could not be delivered before
FATE = 1.0  # seconds to learn how a template ended whose forks came to nothing: it is reaped at once, or was killed too


class Message:
    """Bytes on their way, with descriptors that go with the first of them."""

    __slots__ = ("_owned", "data", "fds")

    def __init__(self, data: bytes | memoryview, fds: Sequence[int]) -> None:
        self.data = data
        self.fds = fds
        self._owned = False

    def own(self) -> None:
        """Keep copies of the descriptors: the caller may close its own."""
        if self._owned or not self.fds:
            return
        given, copies = self.fds, list[int]()
        self.fds, self._owned = copies, True
        for fd in given:
            copies.append(os.dup(fd))  # what is copied when descriptors run out is released

    def release(self) -> None:
        """The descriptors have been sent, or never will be."""
        if self._owned:
            close_all(self.fds)
        self.fds = ()


class Link:
    """One process as seen from this one: control and status socket, what waits to be sent, and the session."""

    session: Session
    number = 0  # which of its parent's forks this is
    interpreter = ""  # the command, if it was executed for this process
    _busy = False
    _warmed = False
    _broken = False
    _waiting = 0
    _executed = -1  # a pipe that ends when the program has been executed
    _output = -1  # a file with what the process wrote to its standard error
    _dropped = False
    _unreferenced = False  # no handle and no fork knows it any more

    def __init__(self, control: _socket.socket, status: _socket.socket | None, parent: Link | None) -> None:
        self.session = Session()
        self._channel = Channel(control)
        self._status = None if status is None else Channel(status)
        self._parent = parent
        self._owner = os.getpid()
        self.lock = RLock()
        self._outbox: deque[Message] = deque()
        _open.add(self)
        self._turns: dict[int, list[LockType]] = {}  # by the descriptor that a thread polls: those that wait for it

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
    def broken(self) -> bool:
        """True when the process is known to take nothing any more."""
        return self._broken

    # --- Sending ---

    def send(self, frame: Frame, own: Sequence[int] = (), call: str = "") -> None:
        """Queue a frame and send what the socket takes now.

        The descriptors ``own`` of the frame are closed once it is sent. The frame of a ``call`` that takes the
        template over is sent only if no other thread has done that.
        """
        try:
            with self.lock:
                if call:
                    self.check(call)
                    self.session.phase = Phase.STARTING
                self._queue(frame)
        finally:
            close_all(own)
        if _undelivered:
            deliver()

    def warm_parent(self) -> None:
        """Have the template that forked this process import what takes values apart that came by value, once: loading
        that takes longer than all the rest of a start."""
        parent = self._parent
        if parent is not None and not parent._warmed and parent.session.phase is Phase.PREPARING:
            parent._warmed = True
            frame, _ = encode_call("prepare", warm, ("cloudpickle.cloudpickle",)).frame(PREPARE)
            parent.send(frame)

    def send_fork(self, frame: Frame, own: Sequence[int], child: Link) -> None:
        """Queue the birth of ``child``, whose far ends are ``own``."""
        try:
            with self.lock:
                self._queue(frame)
                child.number = self.session.forks
                self.session.forks += 1
        finally:
            close_all(own)

    def _queue(self, frame: Frame) -> None:
        if frame.kind == PING:
            self.session.pings += 1
        if (
            not self._outbox
            and not self._busy
            and len(frame.fds) <= DESCRIPTORS_A_MESSAGE
            and self._send_at_once(frame)
        ):
            return
        queue = [Message(data, fds) for data, fds in messages(frame)]
        self._outbox.extend(queue)
        self._flush()
        if self._outbox:
            try:
                for message in queue:
                    message.own()
            except OSError:  # no descriptor left: the call fails, so nothing of it may be sent later
                self._withdraw(queue)
                raise
            _undelivered.add(self)

    def _send_at_once(self, frame: Frame) -> bool:
        """The usual case, without a queue: the socket takes all of it. True when it has."""
        ((data, fds),) = messages(frame)
        try:
            sent = send_some(self._channel.sock, data, fds, NOWAIT)
        except OSError:  # whatever it is, _flush meets it again
            return False
        except BaseException:
            self._cut()
            raise
        if sent < len(data):
            self._outbox.append(Message(memoryview(data)[sent:], ()))
            self._flush()
        return True

    def _cut(self) -> None:
        """An interrupt between a system call and its bookkeeping: what is on the wire is not known any more, so the
        process gets the end of the stream, in the middle of a frame or not, and ends."""
        self._break()
        self._channel.sock.shutdown(_socket.SHUT_WR)

    def _withdraw(self, queue: list[Message]) -> None:
        """Take back a frame that is last in the queue; where some of it was sent already, the stream ends there."""
        for message in queue:
            message.release()
        if len(self._outbox) < len(queue) or isinstance(queue[0].data, memoryview):
            self._cut()
        else:
            for _ in queue:
                self._outbox.pop()

    def _flush(self) -> bool:
        """Send what the socket takes; False when it is not a full socket that stopped it, so that polling is no use."""
        if self._busy:
            return True  # a dropped handle, collected in the middle of this very loop, which will see its frame
        outbox = self._outbox
        self._busy = True
        try:
            while outbox:
                message = outbox[0]
                try:
                    sent = send_some(self._channel.sock, message.data, message.fds, NOWAIT)
                except BlockingIOError:
                    if not self._enlarge():
                        return True
                    continue
                except OSError as error:
                    if error.errno == ETOOMANYREFS:
                        return False
                    self._break()
                    if error.errno == EPIPE or isinstance(error, ConnectionError):
                        return True
                    raise
                message.release()
                if sent == len(message.data):
                    outbox.popleft()
                else:
                    message.data = memoryview(message.data)[sent:]
        except BaseException:
            self._cut()
            raise
        finally:
            self._busy = False
        self._delivered()
        return True

    def _enlarge(self) -> bool:
        """The socket is full for the first time: give it as much room as the system allows."""
        sock = self._channel.sock
        before = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
        if before >= SEND_BUFFER:
            return False
        for option in (SO_SNDBUFFORCE, _socket.SO_SNDBUF):
            try:
                sock.setsockopt(_socket.SOL_SOCKET, option, SEND_BUFFER)
                break
            except OSError:  # not privileged, or not Linux
                continue
        return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF) > before

    def _break(self) -> None:
        """Nothing more can be sent."""
        self._broken = True
        for message in self._outbox:
            message.release()
        self._outbox.clear()
        self._delivered()

    def _delivered(self) -> None:
        if self in _undelivered:
            _undelivered.discard(self)
            if self._dropped:
                self._close()

    def _flush_line(self) -> bool:
        """Send what is queued here and in the templates above, whose queues may still hold this process's birth."""
        if _undelivered:
            deliver()
        pollable = True
        link: Link | None = self
        while link is not None:
            with link.lock:
                if link._outbox:
                    pollable &= link._flush()
            link = link._parent
        return pollable

    # --- Waiting ---

    def ask(self) -> None:
        """Ask whether everything so far has been done."""
        self.send(Frame(PING))

    def wait_answer(self, timeout: float | None = None) -> bool:
        """Wait until the process has answered or ended; False when the timeout, in seconds, is over before."""
        return self._wait(self._answered, self._answer_sources, timeout)

    def wait_birth(self) -> None:
        """Wait until the template has forked the process, or never will."""
        self._wait_ends()
        self._wait(self._birth_known, self._status_sources, None)

    def wait_end(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; False when the timeout, in seconds, is over before."""
        self._wait_ends()
        return self._wait(self._end_known, self._status_sources, timeout)

    def look(self) -> None:
        """Learn whether the process has ended. Where its pidfd says so, the template says how in a moment."""
        if not self.wait_end(0) and self.session.pidfd >= 0 and self._poll([(self.session.pidfd, _nothing)], 0, True):
            self.wait_end(FATE)

    def _wait_ends(self) -> None:
        """A handle taken over from another process gets its status socket and pidfd with the first answer."""
        if self._status is None and not self.session.answers and self.session.status is None:
            self.wait_answer()

    def _wait(
        self,
        done: Callable[[], bool],
        sources: Callable[[], list[Source]],
        timeout: float | None,
    ) -> bool:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            pollable = self._flush_line() if _undelivered else True
            with self.lock:
                if done():
                    return True
                watched = sources()
                turn = self._take_turn(watched)
                self._waiting += 1
            ready: Sequence[int] = ()
            try:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                if turn is None:
                    ready = self._poll(watched, left, pollable)
                else:
                    turn.acquire(timeout=_turn_timeout(left))
            finally:
                with self.lock:
                    self._waiting -= 1
                    for fd, read in watched:
                        if fd in ready:
                            read()
                    if turn is None:
                        self._end_turn(watched)
                    self._close_finished()
            if left == 0.0:
                return done()

    def _take_turn(self, watched: list[Source]) -> LockType | None:
        """Be the one thread that polls this descriptor: None. Or get a lock that is released when that one has read:
        it may read what the others wait for, and then nothing more would come."""
        if not watched:
            return None
        fd = watched[0][0]
        if fd not in self._turns:
            self._turns[fd] = []
            return None
        turn = allocate_lock()
        turn.acquire()
        self._turns[fd].append(turn)
        return turn

    def _end_turn(self, watched: list[Source]) -> None:
        if watched:
            for turn in self._turns.pop(watched[0][0]):
                turn.release()

    def _poll(self, watched: list[Source], left: float | None, pollable: bool) -> list[int]:
        poller = poll()
        for fd, _ in watched:
            poller.register(fd, POLLIN)
        if _undelivered:
            self._register_line(poller)
        milliseconds = None if left is None else left * 1000
        if not pollable:
            milliseconds = RETRY if milliseconds is None else min(RETRY, milliseconds)
        return [fd for fd, _ in poller.poll(milliseconds)]

    def _register_line(self, poller: poll) -> None:
        """Wake up, too, when a queue on the way to this process moves on."""
        link: Link | None = self
        while link is not None:
            if link._outbox:
                poller.register(link._channel.sock.fileno(), POLLIN | POLLOUT if link is self else POLLOUT)
            link = link._parent

    def _answered(self) -> bool:
        return self.session.settled

    def _birth_known(self) -> bool:
        session = self.session
        return session.born or session.status_ended

    def _end_known(self) -> bool:
        return self.session.status is not None

    def _answer_sources(self) -> list[Source]:
        if self._executed >= 0:
            return [(self._executed, self._read_executed)]
        if self.session.control_ended:
            return self._status_sources()
        return [(self._channel.sock.fileno(), self._read_control)]

    def _status_sources(self) -> list[Source]:
        session = self.session
        if not session.status_ended and self._status is not None:
            return [(self._status.sock.fileno(), self._read_status)]
        return [(session.pidfd, self._end_unknown)]

    # --- Receiving: each of these moves one frame, under the lock ---

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

    def _read_control(self) -> None:
        session = self.session
        if not session.expects_control:  # another thread has read the answer meanwhile
            return
        try:
            frame = self._receive(self._channel)
            if frame is None:
                session.control_ended = True
                if self._status is None and session.pidfd < 0:  # nothing else will tell of its end
                    session.status_ended = True
                    self._take_pidfd()
            elif frame.kind == EXECUTING and frame.fds and session.phase is Phase.STARTING:
                session.take_control(frame)
                self._executed = frame.fds[0]
            else:
                session.take_control(frame)
                self._keep_ends(frame.fds)
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._distrust(error)

    def _read_executed(self) -> None:
        # Either nothing, when exec has closed the other end, or the failure, in one piece.
        if self._executed < 0:
            return
        body = os.read(self._executed, 1 << 20)
        os.close(self._executed)
        self._executed = -1
        self.session.take_executed(body)

    def _read_status(self) -> None:
        session = self.session
        if self._status is None or session.status_ended or session.status is not None:
            return
        try:
            frame = self._receive(self._status)
            if frame is not None:
                session.take_status(frame)
                self._parent = None  # was needed only as long as this process might not come to be
                if session.pidfd < 0 and frame.fds and session.pid is not None:  # no room for it here (EMFILE)
                    session.pidfd = self._open_pidfd(session.pid)
                return
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._distrust(error)
        session.status_ended = True
        self._take_pidfd()

    def _take_pidfd(self) -> None:
        """The template is gone. Where it could not hand over a pidfd, take one, while the pid is surely its own."""
        session = self.session
        if session.pidfd < 0 and session.pid is not None and session.status is None:
            session.pidfd = self._open_pidfd(session.pid)
        if session.pidfd < 0:
            session.status = UNKNOWN

    def _open_pidfd(self, pid: int) -> int:
        fd = self._channel.sock.fileno()
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

    # --- The process itself ---

    def signal(self, number: int) -> None:
        """Send it a signal, unless it is known to have ended. Waits for its birth, without which there is no pidfd."""
        self.wait_birth()
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
        elif self._status is not None and not session.status_ended:
            # No pidfds here: the template, which has not reaped it yet, knows the pid for certain.
            try:
                Channel(self._status.sock).send(Frame(SIGNAL, number))
            except ConnectionError:
                pass  # ended, and not yet said so; or the template is gone

    def _kill(self) -> None:
        if self.session.born:
            self._signal(SIGKILL)

    def revoke(self) -> bool:
        """Take back a start that has not been answered. True: the function will never be entered.

        From here on the process cannot report that it enters, and without that it does not enter. It tells this
        from a handle that was merely dropped by the frame behind (see _anyfork_child._template._check_revoked).
        """
        with self.lock:
            if self.session.phase is not Phase.STARTING:
                return False
            sock = self._channel.sock
            try:
                sock.shutdown(_socket.SHUT_RD)
            except OSError:  # already disconnected
                pass
            self._read_control()
            if self.session.succeeded:
                return False
        self.send(Frame(REVOKE))
        with self.lock:
            if self._status is not None and not self.session.status_ended:
                self._read_status()
            self._kill()
            self._executed_closed()
        return True

    def _executed_closed(self) -> None:
        if self._executed >= 0:
            os.close(self._executed)
            self._executed = -1

    # --- Why, and the end of the handle ---

    def error(self) -> AnyforkError:
        """Why the answer was no."""
        parent, session = self._parent, self.session
        if self._failed_to_boot():
            return self._launch_error()
        lost = self._lost()
        if lost is not None:
            return lost.error()
        if parent is not None and not session.born and session.report is None and parent._failed_to_boot():
            return parent._launch_error()
        return self._refused_above() or session.why(self._parent_fate(), self.output())

    def _refused_above(self) -> AnyforkError | None:
        """Why the template of this process never came to be, where that is why this one did not either."""
        parent, session = self._parent, self.session
        if parent is None or session.born or session.report is not None or parent.session.born:
            return None
        parent._hear()
        return parent._refused_above() if parent.session.report is None else parent.session.report.error()

    def _hear(self) -> None:
        """Take what has come on the control socket, although nobody waits for it."""
        with self.lock:
            session = self.session
            while session.report is None and not session.control_ended and session.phase is not Phase.ENTERED:
                try:
                    frame = self._receive(self._channel)
                    if frame is not None:
                        session.take_control(frame)
                except (OSError, ProtocolError):  # nothing there, or closed, or nothing that says why
                    return
                session.control_ended = frame is None

    def _failed_to_boot(self) -> bool:
        session = self.session
        if self.interpreter and self._status is None and not session.answers:  # the default template: nobody asks it
            self._wait(self._answered_or_ended, self._control_source, FATE)
        return bool(self.interpreter) and not session.answers and session.control_ended and session.report is None

    def _answered_or_ended(self) -> bool:
        return self.session.answers > 0 or self.session.control_ended

    def _control_source(self) -> list[Source]:
        return [(self._channel.sock.fileno(), self._read_control)]

    def _launch_error(self) -> LaunchError:
        said = self.output()
        how = f" ({self.session.status})" if self.session.status else ""
        text = f"the interpreter {self.interpreter!r} did not come up as a template{how}"
        return LaunchError(f"{text}; it said:\n{said}" if said else text, stderr=said)

    def _lost(self) -> Report | None:
        """What the template says, on its own socket, of a fork for which it did not even get the sockets."""
        unheard = self._parent is not None and not self.session.born and self.session.report is None
        return self._parent.find_lost(self.number) if unheard and self._parent is not None else None

    def _parent_fate(self) -> str:
        parent = self._parent
        if parent is None or self.session.born or self.session.report is not None:
            return ""
        session = parent.session
        if parent._status is not None and session.status is None:
            parent.wait_end(FATE)
        return str(session.status) if session.status is not None and session.status.known else "is gone"

    def find_lost(self, number: int) -> Report | None:
        """What the template says of a fork for which it did not even get the socket.

        It says so right after that has come to its end, if it still can.
        """
        deadline = monotonic() + FATE
        while True:
            with self.lock:
                self._read_lost(number)
                fd = self._channel.sock.fileno()
                if number in self.session.lost or self.session.control_ended or fd < 0:
                    return self.session.lost.get(number)
            left = deadline - monotonic()
            if left <= 0:
                return None
            poller = poll()
            poller.register(fd, POLLIN)
            poller.poll(left * 1000)

    def _read_lost(self, number: int) -> None:
        while number not in self.session.lost and not self.session.control_ended:
            try:
                frame = self._receive(self._channel)
            except OSError:  # nothing there, or closed
                return
            if frame is None:
                self.session.control_ended = True
            else:
                self.session.take_control(frame)

    def watch_output(self, fd: int) -> None:
        """A file that the process writes its errors to, to tell why it ended. The descriptor is this link's now."""
        self._output = fd

    def output(self) -> str:
        """The end of what it wrote there."""
        if self._output < 0:
            return ""
        try:
            size = os.fstat(self._output).st_size
            return os.pread(self._output, OUTPUT, max(0, size - OUTPUT)).decode("utf-8", "replace").strip()
        except OSError:  # not readable for us
            return ""

    def hand_over(self) -> int:
        """Leave status socket and pidfd with the template for the next owner; return the control socket's descriptor.

        Waits until everything queued is delivered.
        """
        self.wait_birth()
        status = self._status
        if status is None or self.session.status is not None:
            raise self.error()
        ends = [status.sock.fileno()] + ([self.session.pidfd] if self.session.pidfd >= 0 else [])
        self.send(Frame(DETACH, 0, b"", ends))
        self.session.phase = Phase.CLOSED
        self._wait(lambda: not self._outbox, list, None)
        fd = self._channel.sock.detach()
        self.let_go()
        return fd

    def give_channel(self) -> int:
        """The descriptor of the control socket, which is the channel now."""
        return self._channel.sock.detach()

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

    def let_go(self) -> None:
        """Close what this link holds, as soon as its queue is delivered. The process goes on."""
        with self.lock:
            self._dropped = True
            if not self._outbox:
                self._close()

    def close_channel(self) -> None:
        """Let the function see the end of its channel, which nobody has asked for."""
        self.wait_answer()
        with self.lock:
            self._channel.sock.close()

    def end_descriptor(self) -> int:
        """The pidfd; where there is none, the status socket, which brings the news of the end."""
        self.wait_birth()
        session = self.session
        if session.status is not None or (session.status_ended and session.pidfd < 0):
            raise HandleError("the process has ended, and its descriptor is closed")
        if session.pidfd >= 0 or self._status is None:
            return session.pidfd
        return self._status.sock.fileno()

    def drop_process(self) -> None:
        """The handle of the process is not used any more; the process goes on."""
        if self.foreign:
            return
        with self.lock:
            if self.session.phase is Phase.CLOSED:
                return
            if self.session.phase is Phase.STARTING:
                self._drain()
            self.session.phase = Phase.CLOSED
        self.let_go()

    def _drain(self) -> None:
        """Read what nobody has waited for. If it were unread, the function would not see the end of its channel, but a
        reset of the connection."""
        sock = self._channel.sock
        try:
            sock.shutdown(_socket.SHUT_RD)
            while sock.recv(OUTPUT, NOWAIT):
                pass
        except OSError:  # already disconnected
            pass

    def _close_finished(self) -> None:
        """Close the ends of a process that has ended, when no other thread is waiting on them."""
        if self._waiting or (self.session.status is None and not self._dropped):
            return
        self._close_status()

    def _close_status(self) -> None:
        session = self.session
        if self._status is not None:
            self._status.close()
            self._status = None
        if session.pidfd >= 0:
            os.close(session.pidfd)
            session.pidfd = -1

    def _may_be_asked(self) -> bool:
        """True while a fork may want to know why this process, its template, was never born."""
        session = self.session
        if self._unreferenced or not session.forks:
            return False
        if not session.born:
            self._read_status()
        return not session.born and self._status is not None

    def __del__(self) -> None:
        self._unreferenced = True
        if self._dropped:
            self._channel.close()

    def _close(self) -> None:
        _open.discard(self)
        if not self._may_be_asked():
            self._channel.close()
            self._parent = None
        self._executed_closed()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
        if not self._waiting:
            self._close_status()

    def _keep_ends(self, fds: Sequence[int]) -> None:
        """The status socket and the pidfd that a former owner has left with the template."""
        if fds and fds[0] >= 0:
            self._status = Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0]))
            self.session.pidfd = fds[1] if len(fds) > 1 else -1
            self.session.born = True


def _turn_timeout(left: float | None) -> float:
    """How long a thread waits for its turn, in seconds; -1 for ever. It also writes on what is not delivered."""
    if _undelivered:
        return RETRY / 1000 if left is None else min(RETRY / 1000, left)
    return -1 if left is None else left


def _nothing() -> None:
    """For what is only looked at."""


# Links that hold sockets. Handles may be collected as part of a cycle, and then the collector must not come to the
# sockets before the handle has said its last word on them.
_open: set[Link] = set()
_undelivered: set[Link] = set()  # links with a queue, kept alive until it is delivered


def deliver(timeout: float = 0.0) -> None:
    """Write on what earlier calls could not deliver, of handles that may be gone; for at most ``timeout`` seconds."""
    deadline = monotonic() + timeout
    while _undelivered:
        poller = poll()
        for link in list(_undelivered):
            # This may run in the destructor of a handle, so with another link's lock held: never wait for one here.
            if not link.lock.acquire(blocking=False):
                continue
            try:
                if link.foreign:
                    _undelivered.discard(link)
                elif link._outbox:
                    link._flush()
                if link._outbox:
                    poller.register(link._channel.sock.fileno(), POLLOUT)
            except OSError:  # that process takes nothing any more, which is no concern of this call
                pass
            finally:
                link.lock.release()
        left = deadline - monotonic()
        if left <= 0 or not _undelivered:
            return
        poller.poll(left * 1000)


atexit.register(deliver, EXIT)
