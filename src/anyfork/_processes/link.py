"""The link to a process, held by its owner: sending, and the life of the handle. It never waits.

Both faces use it. Receiving is in _processes.endpoints; _processes.flows decides what to wait for, and in which order;
each face waits in its own way; data that a socket does not take at once is in _processes.outbox and
_processes.undelivered.
"""

from __future__ import annotations

import _socket
import os
from _signal import SIGKILL
from _weakref import ref
from functools import partial
from itertools import count

from _anyfork_child.values.remote_descriptors import refusal
from _anyfork_child.wire.channel import NOWAIT
from _anyfork_child.wire.frames import CLOSE, DETACH, FORK, FORK_PROGRAM, PING, PROGRAM, REVOKE, Frame

from .._errors import ArgumentError, HandleError
from .._system import this_process
from .._system.import_path import ORDINARY
from .._system.link_socket import carry_out, hand_on, unopened
from .._system.locks import close_attribute, locked, try_locked
from .._system.this_process import reaper
from .endpoints import Endpoints
from .session import CLOSED, PREPARING, STARTING
from .undelivered import deliver, destructor, pending, undelivered, when_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn, TypeVar

    from _anyfork_child.values.encode import Encoded
    from _anyfork_child.values.functions_by_value import Receiver

    from .._system.pipes import Streams
    from .._system.stderr import StderrTail
    from .outbox import Closable, Message
    from .spares import Spares

    Channel = TypeVar("Channel", bound=socket.socket)


SCRAP = 4096  # bytes to read at once of data that is discarded

# Links that hold sockets. Handles may be collected as part of a cycle, and then the collector must not close the
# sockets before the handle has sent its last message over them.
open_links: set[Link] = set()
held_back: set[Link] = set()  # links to processes whose fork was not requested yet


def _drop_held() -> None:
    """Close the far ends of sockets in requests that were held back. Runs in a forked copy of the owner."""
    for link in held_back:
        if link.held is not None:
            link.held.release()
    held_back.clear()


os.register_at_fork(after_in_child=_drop_held)


class Link(Endpoints):
    """The link to one process, in its owner.

    ``parent`` is the link to the template that forks the process, kept until the fork is confirmed, because a refusal
    arrives there.
    """

    number = 0  # the process's number among its parent's forks
    interpreter = ""  # the command, if an interpreter was executed for this process
    tracker: tuple[int | None, int | None] = (None, None)  # the resource tracker that the process was given
    warmed: tuple[str, ...] = ()  # modules that it was told to import because most of its processes need them
    output: StderrTail | None = None
    receiver: Receiver = ORDINARY  # the rules for values that go to this process
    places: tuple[str, ...] = ()  # directories that it was told of, because they were put on the path after its start
    user = ""  # the operation that has used up the template's handle, as the program writes it
    unclaimed = False  # nobody waits yet until the process begins, and nobody has got its handle: an interrupt ends it
    detaching = False  # its handle is used up, and its descriptors are on their way to another owner
    parent: Link | None = None
    spares: Spares[Link] | None = None  # if it is a template that was asked to keep some
    origin: Link | None = None  # the template that makes another spare when this process has entered its function
    held: Message | None = None  # the request to fork this process, held back in the outbox of its parent
    runs_programs = False  # whether a program has taken over its latest fork: the next request is held back then
    why_cold: Callable[[], str | None] | None = None  # why a new interpreter runs the program that a Warm has started
    streams: Streams | None = None  # this program's ends of its standard streams, if they are pipes
    _owner = 0  # no process, until the constructor has come so far
    _dropped = False
    _giving: Iterable[None] = ()  # the steps that turn the control socket into a channel

    def __init__(self, control: _socket.socket, status: _socket.socket | None, parent: Link | None) -> None:
        super().__init__(control, status)
        self._askers: set[int] = set()  # ids of the forks that may still have to learn why they were never born
        self._pings = count(1)
        self._owner = this_process.pid
        self.parent = parent
        if parent is not None:
            parent._askers.add(id(self))

    def hold(self) -> None:
        """Keep this link until it is closed: a handle now refers to it, and the handle's destructor sends the last
        message.
        """
        open_links.add(self)

    @destructor
    def __del__(self) -> None:
        """Close a link that never had a handle, because an interrupt has come before."""
        if not (self.foreign or self._control.sock.fileno() < 0):
            self._dropped = True
            self._close()

    # --- Permission to use the handle ---

    def check(self, call: str) -> None:
        """Raise HandleError in a forked copy of the process that made this handle, or if the handle is used up."""
        if self._owner != this_process.pid:
            raise HandleError(
                f"{call}() in process {os.getpid()} on a handle of process {self._owner}: handles do not work in a "
                "forked copy of their owner; make new ones, or hand them over with detach()"
            )
        if self.session.phase is not PREPARING:
            self._refuse(call)

    def _refuse(self, call: str) -> NoReturn:
        raise HandleError(
            f"{call}() on a template that was taken over by {self.user}: fork() it first to keep it"
            if self.user
            else f"{call}() on a template that was closed: make a new one, or close it later"
        )

    def check_descriptors_stay_here(self, call: str, encoded: Encoded) -> None:
        """Raise ArgumentError for descriptors that would have to go to another machine."""
        if self.remote and (why := refusal(call, encoded, self.session.host)):
            raise ArgumentError(why)

    @property
    def foreign(self) -> bool:
        """True in a forked copy of the process that made this handle."""
        return self._owner != this_process.pid

    @property
    def closed(self) -> bool:
        """True when the control socket is closed, or belongs to somebody else."""
        return self._control.sock.fileno() < 0

    # --- Sending ---

    def post(self, kind: int, encoded: Encoded, call: str = "") -> None:
        """Queue a frame with values, and send what the socket takes now.

        If ``call`` takes the template over, its frame is sent only if no other thread has taken it over.
        """
        frame, made, pieces = encoded.frame(kind)
        self.send(frame, made, pieces, call)

    def send(self, frame: Frame, own: Sequence[Closable] = (), pieces: Sequence[bytes] = (), call: str = "") -> None:
        """Queue a frame and send what the socket takes now; see Outbox.push.

        ``own`` are the owners of descriptors that were made for the frame; they are closed afterwards.
        """
        try:
            self._send(frame, pieces, call)
        finally:
            for owner in own:
                owner.close()
        if self.spares is not None:
            self.spares.end()
        if self.held is not None:
            self.release(FORK_PROGRAM if frame.kind == PROGRAM and not self.outbox else FORK)
        if pending():
            deliver()

    @locked
    def _send(self, frame: Frame, pieces: Sequence[bytes], call: str) -> None:
        if call:
            self.check(call)
            by = f"{call}()"
            # In one line, so that no handler takes the template over between the look at the phase and the change.
            self.session.phase, self.user = (STARTING, by) if self.session.phase is PREPARING else self._refuse(call)
            self.wake_all()
        if self.spares is not None:
            self.spares.changes += 1
        self._push(frame, pieces)

    @locked
    def send_fork(self, frame: Frame, child: Link, holders: Sequence[Closable], hold_back: bool) -> None:
        """Queue the request to fork ``child``; the first three descriptors belong to the ``holders``.

        If it is held back, ``release`` of the child sends it, and so does any other request to this template.
        """
        try:
            self.check("fork")  # again: another thread may have closed it
        except HandleError:
            for holder in holders:
                holder.close()
            raise
        child.number = self.session.forks
        self.session.forks += 1
        if hold_back:
            held_back.add(child)
            child.held = self.outbox.hold_back(frame, holders, 3)
        else:
            self._push(frame, (), holders, 3)

    def release(self, kind: int = FORK) -> None:
        """Send the request to fork this process, if it is held back, as a frame of this kind."""
        held, parent = self.held, self.parent  # a signal handler that comes in between may do this itself
        if held is not None and parent is not None:
            self.begins_at_birth = kind == FORK_PROGRAM
            parent.send_held(held, kind)
        self._forget_held()

    def _forget_held(self) -> None:
        self.held = None
        held_back.discard(self)

    @locked
    def send_held(self, message: Message, kind: int) -> None:
        """Send a request that was held back, unless it was sent meanwhile."""
        if message not in self.outbox:
            return
        if not message.begun:
            message.data = message.data[:1] + bytes((kind,)) + message.data[2:]
        if self in undelivered:
            self.flush()
            return
        undelivered.add(self)
        self.outbox.flush(message)  # others that are held back stay
        if message not in self.outbox:
            undelivered.discard(self)

    def ask(self) -> int:
        """Ask whether everything so far has been done; return the number of the answer."""
        number = self._ask()
        if self.held is not None:
            self.release()
        return number

    @locked
    def _ask(self) -> int:
        undelivered.add(self)  # first: no interrupt may come between queueing and this
        [self.session.pings] = self.outbox.queueing(self.outbox.messages_of(Frame(PING)), self._pings)
        number = self.session.pings
        self.flush()
        return number

    def expect_answer(self) -> None:
        """Count a frame that is answered in the same way as the question of ``ask``."""
        self.session.pings = next(self._pings)

    def _push(
        self, frame: Frame, pieces: Sequence[bytes] = (), holders: Sequence[Closable] = (), held: int = 0
    ) -> None:
        try:
            self.outbox.push(frame, pieces, holders, held)
        finally:
            if self.outbox:
                undelivered.add(self)

    def flush(self) -> bool:
        """Send what the socket takes of the queue. Return False when polling the socket is no use. The caller holds the
        lock.
        """
        pollable = self.outbox.flush()
        if not self.outbox and self in undelivered:
            undelivered.discard(self)
            if self._dropped:
                self._close()
        return pollable

    def flush_line(self) -> bool:
        """Send the queue of this process and of the templates above, where the request to fork this process may still
        wait.
        """
        if not pending():
            return True
        deliver()
        pollable = True
        for link in self.line():
            pollable &= link.flush_here()
        return pollable

    @locked
    def flush_here(self) -> bool:
        """Send as ``flush`` does, and take the lock."""
        return self.flush()

    def line(self) -> list[Link]:
        """Return this link and the links of the templates above that this process depends on."""
        links = [self]
        while (above := links[-1].parent) is not None:
            links.append(above)
        return links

    def unsent(self) -> list[int]:
        """Return the sockets that have to take more before this process gets everything that it was sent."""
        return [fd for link in self.line() for fd in link.unsent_here()] if undelivered else []

    def unsent_here(self) -> list[int]:
        """Return this process's own socket, if it has to take more."""
        return [self._control.fd] if self.outbox else []

    def revoke(self) -> bool:
        """Take back a start that has not been answered. Return True if the function will never be entered.

        From here on the process cannot report that it enters the function, and without that report it does not enter.
        The REVOKE frame that follows tells it that the start was revoked, and not merely its handle dropped (see
        _anyfork_child.template.entry._check_revoked).
        """
        if not self._keep_from_entering():
            return False
        self.send(Frame(REVOKE))
        self._kill_revoked()
        return True

    @locked
    def _keep_from_entering(self) -> bool:
        if self.session.phase is not STARTING:
            return False
        try:
            self._control.sock.shutdown(_socket.SHUT_RD)
        except OSError:  # already disconnected
            pass
        session, answers = self.session, -1
        if self.begins_at_birth:
            self.read_status()
            if self._awaits_birth():
                return True
        while session.expects_control and answers != session.answers:  # those to earlier questions come first
            answers = session.answers
            self.read_control()
        return not session.succeeded

    @locked
    def _kill_revoked(self) -> None:
        self.read_status()
        if not self.session.born and self.session.pid is not None:
            self._recognise(self.session.pid)
        self._signal_or_keep(SIGKILL)
        if self._awaits_birth():
            self.leave_signal(SIGKILL)
        self._close_executed()

    def abandon(self) -> None:
        """Let a process that has just been started end, because nobody will get a handle of it."""
        if self.session.phase is STARTING and not self.revoke():
            self.signal_now_or_at_birth(SIGKILL)
        self.drop_process()

    def end_unclaimed(self) -> None:
        """Let a process end whose caller was interrupted before it could wait for it."""
        if not self.foreign and not self.revoke():
            self.signal_now_or_at_birth(SIGKILL)
        self.drop_process()

    # --- The end of the handle ---

    @locked
    def give_control(self, kind: type[socket.socket], handle: object, name: str) -> None:
        """Turn the control socket into the channel: a socket of this class, which becomes an attribute of the handle.

        This is one step for interrupts, and a call that comes in between does it for both. Raises HandleError.
        """
        if self._control.sock.fileno() >= 0 and getattr(handle, name) is None:
            channel = unopened(kind)
            steps = hand_on(self._control.sock, channel, (handle, name, channel), (self, "_channel", ref(channel)))
            carry_out(vars(self).setdefault("_giving", steps))
            self._giving = ()  # the steps would keep the socket
        if getattr(handle, name) is None:
            raise HandleError("channel on a process whose channel was closed: ask for it before the end of the block")

    def begin_detaching(self, fds: Sequence[int]) -> None:
        """Leave descriptors with the template for its next owner. The handle is used up, unless ``stop_detaching``
        follows.
        """
        self.detaching = True
        self.send(Frame(DETACH, 0, b"", fds))
        self.session.phase = CLOSED

    def stop_detaching(self) -> None:
        """Make the handle usable again, unless another owner already has the control socket."""
        if self.detaching:
            self.send(Frame(DETACH))
            self.session.phase = PREPARING
            self.detaching = False

    def detach_control(self, kind: type[Channel]) -> Channel:
        """Give the control socket to another owner, as a socket of this class. The link's other descriptors can be
        closed then.
        """
        moved = unopened(kind)
        carry_out(hand_on(self._control.sock, moved, (self, "detaching", False), (self, "user", "detach()")))
        if self.detaching:
            self._refuse("detach")  # a signal handler has detached it
        return moved

    @locked
    def close_control(self) -> None:
        """Close the control socket, which nobody has requested as a channel, so that the function sees its end."""
        self._control.sock.close()

    def close_template(self) -> None:
        """Tell the template that nothing more will come, and let go. Queued frames are delivered first."""
        if self.foreign:
            return
        self._say_close()
        if self.spares is not None:
            self.spares.end()
        held, parent = self.held, self.parent
        if held is not None and parent is not None:
            when_free(parent, partial(parent.send_held, held, FORK))
            self._forget_held()
        if self.session.phase is CLOSED and not self.detaching:
            self.let_go()
        if pending():
            deliver()

    @locked
    def _say_close(self) -> None:
        if self.session.phase is not PREPARING:
            return
        # No interrupt may come in between: the end of the socket without this frame means that the owner has ended.
        undelivered.add(self)
        message = self.outbox.messages_of(Frame(CLOSE))
        [self.session.phase] = self.outbox.queueing(message, iter((CLOSED,)))
        self.flush()
        self.wake_all()

    def drop_process(self) -> None:
        """Drop the handle of the process; the process goes on."""
        if self.foreign:
            return
        if not self._dropped:
            self._drop()
        self.let_go()  # again: an interrupt may have come in the middle of the last time

    @locked
    def _drop(self) -> None:
        if self.session.phase is STARTING and self.session.status is None:
            self._drain()
        self._leave_signals()
        self.session.phase = CLOSED
        self.wake_all()

    def _drain(self) -> None:
        """Read the data that nobody has waited for. Otherwise the function would see a reset of the connection instead
        of the end of its channel.
        """
        sock = self._control.sock
        self._control.drop()
        try:
            sock.shutdown(_socket.SHUT_RD)
            while sock.recv(SCRAP, NOWAIT):
                pass
        except OSError:  # already disconnected
            pass

    def leave_alone(self) -> None:
        """End sending and let go. Nothing more is sent to this process or asked of it, except why it was never born."""
        self._end_sending()
        self.let_go()

    @locked
    def _end_sending(self) -> None:
        if not self.outbox:
            self._control.sock.shutdown(_socket.SHUT_WR)

    @locked
    def let_go(self) -> None:
        """Close this link's descriptors as soon as its queue is delivered. The process goes on."""
        self._dropped = True
        if not self.outbox:
            self._close()

    def close_finished(self) -> None:
        """Close descriptors that are not needed any more, unless somebody waits on them. The caller holds the lock."""
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
        child, self.child = self.child, 0
        if child:
            reaper.leave(child)

    def _may_be_asked(self) -> bool:
        """True while a fork may ask why this process, its template, was never born."""
        session = self.session
        if not self._askers:
            return False
        if not session.born:
            self.read_status()
        if session.born or self.status is None:
            return False
        return not (session.status_ended and self.learn_refusal())

    @locked
    def learn_refusal(self) -> bool:
        """Learn why the process was never born, from its own report or its template's, and keep the report. Return
        False when that has to wait, because another thread holds the template's lock.
        """
        while self.overhear():
            pass
        above, session = self.parent, self.session
        if session.report is not None or above is None:
            return True
        known: list[bool] = []
        try_locked(above.lock, lambda: known.append(self._learn_from(above)))
        return known == [True]

    def _learn_from(self, above: Link) -> bool:
        known = above.session.born or above.learn_refusal()
        if not above.session.born:
            self.session.report = above.session.report
        return known

    def _was_born(self) -> None:
        self._forget_parent()  # the parent is not needed any more to report why this process was not forked
        if self._dropped:  # by a signal handler in the middle of this
            self.session.phase = CLOSED

    def _forget_parent(self) -> None:
        parent = self.parent
        if parent is not None:
            when_free(parent, partial(parent._forget_asker, id(self)))
            self.parent = None

    def _forget_asker(self, asker: int) -> None:
        self._askers.discard(asker)
        if self._dropped and not self.outbox:
            self._close()

    def _close_status(self) -> None:
        status, session = self.status, self.session
        if status is not None:
            status.close()
            self.status = None
        close_attribute(session, "pidfd")
