"""The owner's end of a worker's channel: the part that both faces share. Nothing here waits for an answer."""

from __future__ import annotations

import _socket
from collections import deque
from functools import partial
from select import POLLIN, POLLOUT

from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import FDS, HEADER, HEADER_SIZE, MAX_BODY, MAX_IN_FILE, READ_SIZE, RESULT, Inbox
from _anyfork_child.wire.channel import (
    LATER,
    NOWAIT,
    ROOM,
    TRUNCATED,
    close_all,
    plain_socket,
    sending,
    unpack_descriptors,
)
from _anyfork_child.wire.frames import ProtocolError
from _anyfork_child.wire.platform import CLOEXEC, NOSIGNAL
from _anyfork_child.wire.signals import comes_from_outside

from .._errors import AnyforkError, HandleError, PeerError, WorkerDiedError
from .._system import this_process
from .._system.locks import call_all, in_one_go
from .._system.polling import new_epoll, new_poll
from .call import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from select import epoll
    from typing import Any

    from _anyfork_child.wire import call_messages

    from .._processes.handles import ProcessHandle
    from .._status import ExitStatus
    from .call import Answer, Call
    from .calls import Calls
    from .events import Event

OVERTAKEN = 5.0  # seconds for bytes still on their way from another machine; usually their end follows at once
WORKER_END_TIMEOUT = 1.0  # seconds for a worker that has closed its channel to end, and for its template to report how
WHOLE = deque.popleft, list.clear  # what follows once a message was sent: for ``out``, and ``sent``


class WorkerChannel:
    """A worker's channel, with the messages that have arrived over it and were not processed yet."""

    process: ProcessHandle
    # Of the faces: use the channel of a worker that has been started; take a step as a whole, without another one in
    # its middle, now; or soon, for destructors.
    open_channel: Callable[[], None]
    whole: Callable[[Callable[[], Any]], Any]
    when_free: Callable[[Callable[[], Any]], None]
    end: int = -1

    def __init__(self, process: ProcessHandle, calls: Calls) -> None:
        self.process = process
        self.calls: Calls = calls
        self.sock: _socket.socket | None = None
        self.incoming: deque[call_messages.Message] = deque()
        self.inbox: Inbox = Inbox(MAX_IN_FILE if calls.remote else MAX_BODY)
        self.owner: int = this_process.pid
        self.watch: epoll | None = None  # watches for messages and for the end of the worker
        self._writes: bool | None = False  # whether the epoll also watches for room in the socket; None: unknown
        self.torn: bool = False  # an interrupt has left it unknown what was sent or received: the worker ends
        self._shutting = False  # the worker is told to end
        self._refused = False  # the kernel refused the first unsent message for another reason than a full socket

    def find_end(self) -> int:
        """Return the descriptor that becomes readable when the worker ends; -1 if it has ended and its output can be
        read.
        """
        try:
            return self.process.fileno()
        except HandleError:
            return -1

    def use(self, sock: socket.socket, end: int) -> None:
        """Use this socket as the channel from now on; ``end`` is the result of ``find_end``."""
        self.end = end
        self.watch = self._new_watch()
        if end >= 0:
            self.watch.register(end, POLLIN)
        self.watch.register(sock, POLLIN)
        self.sock = plain_socket(sock)
        self.calls.entered(self.process.pid)

    def _new_watch(self) -> epoll:
        """Return what watches the channel and the end of the worker."""
        return new_epoll()

    def has_ended(self) -> bool:
        """Return whether the worker has ended. Ask when nothing is to be read: another process may still hold the
        worker's end of the channel.
        """
        if self.watch is None:
            return True
        ended = self.end < 0 or any(fd == self.end for fd, _ in self.watch.poll(0))
        return ended and not (self.calls.remote and self._more_to_come())

    def _more_to_come(self) -> bool:
        """Wait up to OVERTAKEN seconds for data or the end of the stream from another machine; return whether either
        has arrived. The report of the worker's end may overtake what the worker has sent before.
        """
        assert self.sock is not None
        poller = new_poll()
        poller.register(self.sock, POLLIN)
        return bool(poller.poll(OVERTAKEN * 1000))

    @property
    def foreign(self) -> bool:
        """True in a forked copy of the process that made this object."""
        return self.owner != this_process.pid

    def check(self) -> None:
        """Raise HandleError in a forked copy of the process that made this object."""
        if self.foreign:
            raise HandleError(
                "the handle of a worker does not work in a forked copy of its owner: make a new Worker there"
            )

    def tear(self, error: BaseException) -> None:
        """Let the worker end if the exception has interrupted a section: it is not an error that the section raises."""
        if not isinstance(error, AnyforkError | OSError) or comes_from_outside(error):
            self.torn = True
            if not self._shutting:  # otherwise it ends by itself
                self.process.kill()

    def flush(self) -> None:
        """Send what the socket takes now. The rest stays queued, and the next reader sends on."""
        self._send()
        self.watch_writes(wanted=bool(self.calls.out))

    @property
    def stalled(self) -> bool:
        """True when messages are unsent and the epoll does not tell when to send on: flush again after RETRY."""
        return self._refused and bool(self.calls.out)

    def forget_writes(self) -> None:
        """Note that an interrupt has left it unknown what the epoll watches; the next flush sets it again."""
        self._writes = None

    def watch_writes(self, *, wanted: bool) -> None:
        """Let the reader wake also when the socket takes more, or no longer."""
        if self.watch is not None and self._writes is not wanted and self.sock is not None:
            self._writes = wanted
            self.watch.modify(self.sock, POLLIN | POLLOUT if wanted else POLLIN)

    def _send(self) -> None:
        assert self.sock is not None
        out = self.calls.out
        if self.foreign or self.sock.fileno() < 0:  # it was closed, and a handle sends its last message
            return
        sent = self.calls.sent
        self._refused = False
        while out:
            message = out[0]
            try:
                if not sent:  # otherwise an interrupt has come before the number of bytes was noted
                    sent.extend(sending(self.sock, message.data, message.fds, NOWAIT))
            except OSError as error:
                if not isinstance(error, BlockingIOError) and comes_from_outside(error):
                    raise
                if isinstance(error, BlockingIOError) or error.errno in LATER:
                    self._refused = not isinstance(error, BlockingIOError)
                    self._keep()
                    return
                if not isinstance(error, ConnectionError):  # the worker can no longer be reached
                    self.process.kill()
                self.calls.drop_out()
                return
            if sent[0] == len(message.data):
                message.close()
                call_all(WHOLE, (out, sent))
            else:
                rest = memoryview(message.data)[sent[0] :]
                noted = map(setattr, (message, message), ("fds", "data"), ((), rest))
                in_one_go(noted, map(list.clear, (sent,)))

    def _keep(self) -> None:
        try:
            for waiting in self.calls.out:
                waiting.keep()
        except OSError:  # out of descriptors: the caller's may be closed before they are sent, and mean other files
            self.process.kill()
            self.calls.drop_out()

    # --- Calls: steps that are to be taken as a whole ---

    def begin_at_once(self, call: Call) -> bool:
        """Queue a call and send what the socket takes, unless that needs a wait: ``flows.begin`` has to follow then."""
        assert call.message is not None
        try:
            return not call.message.fills and bool(self.whole(partial(self.add_if_room, call)))
        except BaseException:
            self.drop_unsent(call)
            raise

    def add_if_room(self, call: Call) -> bool:
        """Queue a call and send what the socket takes, unless too many are queued."""
        if self.calls.full:
            return False
        self.calls.add(call)
        self.flush()
        return True

    def drop_unsent(self, call: Call) -> None:
        """Close the descriptors of a call that an exception has kept from being sent."""
        if call.message is not None and (self.torn or call.state is State.NEW):
            call.message.close()

    def has_room(self) -> bool:
        """Return whether another call may be queued."""
        return not self.calls.full

    def give_up(self, call: Call, wanted: bool = False) -> bool:
        """Take a call back; leave it if it may have begun and its result is ``wanted`` nevertheless.

        Return whether it may have begun.
        """
        started = call.state not in (State.NEW, State.QUEUED)
        if not (started and wanted) and call.state is not State.DONE:
            self.calls.give_up(call)
            self._flush_rest()
        return started

    def give_up_all(self, answers: deque[Answer]) -> None:
        """Take back the calls of a map that have not begun, and its function. Empties the queue."""
        self.calls.give_up_all(answers)
        answers.clear()
        self.calls.forget_functions()
        self._flush_rest()

    def _flush_rest(self) -> None:
        if self.calls.out and self.sock is not None:
            self.flush()

    # --- A small call while there is no other: in as few steps as possible ---

    def begin_small(self, function: Callable[..., object] | str, args: Sequence[object]) -> bool:
        """Send a small call. Return False, having done nothing, where that is not possible. ``end_small`` has to
        follow.
        """
        data = self.calls.begin_small(function, args)
        if data is None:
            return False
        assert self.sock is not None
        try:
            sent = self.sock.send(data, NOWAIT | NOSIGNAL)
        except OSError as error:  # ``flush`` tries again; if the worker has ended, its end is read next
            if comes_from_outside(error):
                raise
            sent = 0
        if sent < len(data):
            self.calls.out.append(Message(data[sent:]))
            self.flush()
        return True

    def read_small(self, flags: int) -> bytes | None:
        """Read the next data; return the small call's result, still pickled, or None if the data is something else.
        Raises BlockingIOError and ConnectionError.
        """
        assert self.sock is not None
        return self.accept_small([self.sock.recvmsg(READ_SIZE, ROOM, flags | CLOEXEC)])

    def accept_small(self, received: list[Any]) -> bytes | None:
        """Return the small call's result, still pickled, if this was received; accept all other data as usual."""
        if not received:
            return None
        data, ancillary, got, _ = received.pop()
        if not ancillary and len(data) >= HEADER_SIZE and self.inbox.idle:
            length = len(data) - HEADER_SIZE
            if HEADER.unpack_from(data) == (length, self.calls.small, 0, RESULT, 0, 0):
                answer: bytes = data[HEADER_SIZE:]
                return answer
        if data:
            self.accept(data, unpack_descriptors(ancillary[0][2]) if ancillary else (), got)
        return None

    def end_small(self, answer: bytes | None) -> Call | None:
        """Finish the small call with this answer. Without an answer, return the call to wait for, or None if the worker
        has failed.
        """
        if answer is None:
            return None if self.calls.failed else self.calls.expect(self.calls.small)
        self.calls.end_small()
        if self.calls.out:
            self.flush()
        return None

    # --- Receiving ---

    def receive(self) -> bool:
        """Read data that has arrived. Return False at the end of the stream. Raises BlockingIOError when nothing is
        there.
        """
        assert self.sock is not None
        try:
            data, ancillary, got, _ = self.sock.recvmsg(READ_SIZE, ROOM, NOWAIT | CLOEXEC)
        except ConnectionError:  # the worker has ended without having read everything that we sent
            return False
        if not data:
            return False
        self.accept(data, unpack_descriptors(ancillary[0][2]) if ancillary else (), got)
        return True

    def came(self) -> bool | None:
        """Receive what is there: return True for data, False for the end of the stream or of the worker, None for
        nothing yet.
        """
        if self.calls.out:
            self.flush()
            if self._refused:  # the socket is writable all the time
                self.watch_writes(wanted=False)
        try:
            return self.receive()
        except BlockingIOError:
            return False if self.has_ended() else None

    def accept(self, data: bytes, fds: Sequence[int], got: int) -> None:
        """Cut received data into messages."""
        try:
            self.incoming.extend(self.inbox.take(data, fds, got & TRUNCATED != 0))
        except ProtocolError as error:
            self.distrust(error)

    def take(self) -> Event | None:
        """Process the received messages up to the first event, and return that event."""
        incoming, calls = self.incoming, self.calls
        event = None
        try:
            calls.take_results(incoming)
            while incoming and event is None:
                event = calls.take(incoming.popleft())
                if event is None:
                    calls.take_results(incoming)
        except ProtocolError as error:
            self.distrust(error)
        if self.calls.out:
            self.flush()
        return event

    @staticmethod
    def handle_event(event: Event) -> Any:
        """Handle an event, and return what its handler returns. Drop it if it is for the handler of a call that was
        given up.
        """
        call: Any = event.receiver
        if call is not None and call.state is State.GIVEN_UP and call.on_event is not None:
            event.drop()
            return None
        return event.handle()

    def distrust(self, error: ProtocolError) -> None:
        """Kill the worker and fail all calls, because it has sent something that is not the protocol."""
        text = f"the worker sent data that is not anyfork's protocol, and was killed: {error}"
        self.process.kill()
        self.fail(lambda may_have_run: PeerError(text, may_have_run=may_have_run))

    def died(self, status: ExitStatus) -> None:
        """Fail all calls that have no answer, because the worker has ended."""
        output = self.process._link.output
        stderr = output.tail() if output is not None else ""
        self.calls.ended(str(status))
        pid, tail = self.process.pid, f"; it wrote:\n{stderr}" if stderr else ""
        remedy = _remedy(status, self.calls.in_pool)  # now: the calls keep the function below, and would keep this too

        def make(may_have_run: bool) -> WorkerDiedError:
            what = "the call may have run" if may_have_run else "nothing of the call has run"
            text = f"worker {pid} {status}; {what}{remedy if may_have_run else ''}{tail}"
            return WorkerDiedError(text, pid=pid, status=status, stderr=stderr, may_have_run=may_have_run)

        self.fail(make)

    def fail(self, make: Callable[[bool], AnyforkError]) -> None:
        """Let all calls fail; see Calls.fail."""
        self.calls.fail(make)
        if self.sock is not None:
            self.watch_writes(wanted=False)
        self.close_unread()

    def close_unread(self) -> None:
        """Close the descriptors of messages that nobody will process."""
        close_all(self.inbox.unclaimed())
        for message in self.incoming:
            close_all(message[FDS])
        self.incoming.clear()

    def close_channel(self) -> None:
        """Close the channel and drop the epoll. The code that waits with the epoll closes it."""
        self.watch = None
        if self.sock is not None:
            self.sock.close()

    def give_up_streams(self) -> None:
        """Give up all streams that are open."""
        self.calls.give_up_streams()
        self.flush()

    def end_input(self) -> None:
        """Tell the worker to end. Telling it twice is harmless."""
        self._shutting = True
        self.shut()

    def shut(self) -> None:
        """Shut down the sending direction, so that the worker sees the end of its input."""
        assert self.sock is not None
        try:
            self.sock.shutdown(_socket.SHUT_WR)
        except OSError:  # the worker has ended
            pass


def _remedy(status: ExitStatus, in_pool: bool) -> str:
    """Return a text on how a function may have ended its worker, and what to do instead; empty unless it has exited."""
    if status.code is None:
        return ""
    exits = "" if in_pool else f"raises SystemExit({status.code}), as sys.exit() does, or "
    return f"; a function that {exits}calls os._exit() ends its worker: raise another exception to end the call alone"
