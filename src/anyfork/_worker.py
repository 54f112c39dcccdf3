"""Workers, which answer calls: the blocking face.

Of the threads that wait for answers of one worker one reads, for all of them; the others wait until theirs has come, or
it is their turn to read. No thread is started for it.
"""

from __future__ import annotations

import os
from _pickle import loads
from _thread import RLock, allocate_lock, get_ident
from collections import deque
from select import POLLIN, POLLOUT, poll
from time import monotonic

from _anyfork_child._call_wire import CALL, HEADER, HEADER_SIZE, READ_SIZE, RESULT, STREAM, Inbox
from _anyfork_child._channel import CLOEXEC, NOSIGNAL, NOWAIT, ROOM, TRUNCATED, close_all, send_some, unpack_descriptors
from _anyfork_child._message import Message
from _anyfork_child._wire import ProtocolError

from ._calls import Calls, State
from ._errors import AnyforkError, ArgumentError, CallTimeoutError, HandleError, PeerError, WorkerDiedError
from ._process import Process
from ._status import UNKNOWN
from ._template import Template
from ._worker_options import WINDOW, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from _thread import LockType
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Literal, Self

    from _anyfork_child import _call_wire
    from _anyfork_child._serializers import Serializer

    from ._calls import Call, Handler
    from ._status import ExitStatus

JOINED = 64 << 10  # bytes sent at once
FATE = 1.0  # seconds for a worker that has closed its channel to end, and for its template to tell how


class Conversation:
    """The owner's end of one worker's channel, for any number of threads."""

    def __init__(self, process: Process, calls: Calls) -> None:
        self.process = process
        self.calls = calls
        self.lock = RLock()  # the calls, and what is written
        self._owner = os.getpid()
        self._sock: socket.socket | None = None
        self._end = -1
        self._inbox = Inbox()
        self._incoming: deque[_call_wire.Message] = deque()
        self._reader = 0  # the thread that reads, or 0
        self._waiting: dict[LockType, Callable[[], bool]] = {}  # the other threads: what releases them, what they want
        self._poller = poll()

    def connect(self) -> None:
        """Wait until the worker has been started. Raises why it has not."""
        if self._owner != os.getpid():
            raise HandleError("the handle of a worker does not work in a forked copy of its owner")
        if self._sock is not None:
            return
        sock = self.process.channel
        with self.lock:
            if self._sock is None:
                self._end = self.process.fileno()
                self._poller.register(self._end, POLLIN)
                self._poller.register(sock, POLLIN)
                self._sock = sock

    # --- Asking ---

    def begin(self, call: Call) -> None:
        """Queue a call, and send what the socket takes. Waits while too many are queued."""
        message = call.message
        assert message is not None
        if message.fills:
            message.write_files()
        calls = self.calls
        while True:
            with self.lock:
                if not calls.full:
                    calls.add(call)
                    self.flush()
                    return
            self.wait(lambda: not calls.full)

    def flush(self) -> None:
        """Send what the socket takes now. Holds the lock."""
        send_waiting(self._socket, self.calls.out)

    @property
    def _socket(self) -> socket.socket:
        assert self._sock is not None
        return self._sock

    def exchange(
        self,
        function: Callable[..., object] | str,
        args: Sequence[object],
        give_up: Callable[[Call, BaseException, None], None],
    ) -> tuple[bool, Any]:
        """Send a small call that meets no other, and take its answer, in as few steps as can be.

        True, and its result; False, and the call, where the rest takes more; False, and None, where nothing was done.
        """
        calls, sock = self.calls, self._sock
        with self.lock:
            if self._reader or sock is None or self._incoming or self._owner != os.getpid():
                return False, None
            begun = calls.begin_small(function, args)
            if begun is None:
                return False, None
            number, data = begun
            self._reader = get_ident()
        answered = False
        try:
            sent = sock.send(data, NOWAIT | NOSIGNAL)
            if sent < len(data):
                calls.out.append(Message(data[sent:]))
            else:
                self._poller.poll()
                data, ancillary, got, _ = sock.recvmsg(READ_SIZE, ROOM, NOWAIT | CLOEXEC)
                if not ancillary and len(data) >= HEADER_SIZE and self._inbox.idle:
                    answered = HEADER.unpack_from(data) == (len(data) - HEADER_SIZE, number, 0, RESULT, 0, 0)
                if not answered and data:
                    fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
                    self._incoming.extend(self._inbox.take(data, fds, got & TRUNCATED != 0))
        except (BlockingIOError, ConnectionError):  # its end: whoever reads next learns why
            pass
        except ProtocolError as error:
            self._distrust(error)
        except BaseException as error:
            call = calls.expect(number)
            self._reader = 0
            give_up(call, error, None)
        with self.lock:
            self._reader = 0
            if answered:
                calls.end_small(number)
                if calls.out:
                    self.flush()
            else:
                call = calls.expect(number)
            if self._waiting:
                self._wake()
        return (True, loads(data[HEADER_SIZE:])) if answered else (False, call)

    # --- Waiting ---

    def wait(self, done: Callable[[], bool], deadline: float | None = None) -> None:
        """Until it is done: read what comes, or wait until another thread has. Raises TimeoutError."""
        me = get_ident()
        while True:
            with self.lock:
                if done():
                    return
                before = self._reader
                if before in (0, me):  # me: a handler of an event makes a call
                    self._reader = me
                    break
                turn = allocate_lock()
                turn.acquire()
                self._waiting[turn] = done
            self._wait_for(turn, deadline)
        try:
            while not done():
                self._read(deadline)
        finally:
            with self.lock:
                self._reader = before
                self._wake()

    def _wait_for(self, turn: LockType, deadline: float | None) -> None:
        acquired = False
        try:
            acquired = turn.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))
        finally:
            with self.lock:
                if not acquired and self._waiting.pop(turn, None) is None:
                    self._wake()  # it was its turn to read
        if not acquired:
            raise TimeoutError

    def _wake(self) -> None:
        """Release those who have what they want, and one that reads on where nobody does. Holds the lock."""
        for turn in [turn for turn, done in self._waiting.items() if done()]:
            del self._waiting[turn]
            turn.release()
        if not self._reader and self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.release()

    def _read(self, deadline: float | None) -> None:
        """Wait for something to come, and take all that has come. Raises TimeoutError, and what a handler raises."""
        incoming = self._incoming
        if not incoming and self._receive(deadline):
            self._died()
            return
        while incoming:
            with self.lock:
                try:
                    event = self.calls.take(incoming.popleft())
                except ProtocolError as error:
                    self._distrust(error)
                    return
                if self.calls.out:
                    self.flush()
            if event is not None:
                handle_event(*event, self.calls)
        if self._waiting:
            with self.lock:
                self._wake()

    def _receive(self, deadline: float | None) -> bool:
        """Read what has come; True at the end of the stream. Raises TimeoutError."""
        sock = self._socket
        while True:
            ready = self._poll(sock, deadline)
            try:
                data, ancillary, got, _ = sock.recvmsg(READ_SIZE, ROOM, NOWAIT | CLOEXEC)
            except BlockingIOError:
                if any(fd == self._end for fd, _ in ready):
                    return True  # it has ended, and something else still holds its end of the channel
                continue
            except ConnectionError:
                return True
            if not data:
                return True
            fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
            try:
                self._incoming.extend(self._inbox.take(data, fds, got & TRUNCATED != 0))
            except ProtocolError as error:
                self._distrust(error)
            return False

    def _poll(self, sock: socket.socket, deadline: float | None) -> list[tuple[int, int]]:
        if not self.calls.out:
            return self._poll_until(deadline)
        self._poller.modify(sock, POLLIN | POLLOUT)
        try:
            return self._poll_until(deadline)
        finally:
            self._poller.modify(sock, POLLIN)
            with self.lock:
                self.flush()

    def _poll_until(self, deadline: float | None) -> list[tuple[int, int]]:
        if deadline is None:
            return self._poller.poll()
        ready = self._poller.poll(max(0.0, deadline - monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        return ready

    # --- The end ---

    def _distrust(self, error: ProtocolError) -> None:
        text = f"the worker sent what is not anyfork's protocol, and was killed: {error}"
        self.process.kill()
        self._fail(lambda _: PeerError(text))

    def _died(self) -> None:
        """The channel has come to its end: so has the worker."""
        try:
            status = self.process.wait(FATE)
        except TimeoutError:  # it goes on without its channel, or its template is stopped
            self.process.kill()
            status = UNKNOWN
        pid, stderr = self.process.pid, self.process._link.output
        self._fail(died(pid, status, stderr.tail() if stderr is not None else ""))

    def _fail(self, make: Callable[[bool], AnyforkError]) -> None:
        with self.lock:
            self.calls.fail(make)
            close_all(self._inbox.unclaimed())
            for message in self._incoming:
                close_all(message[5])
            self._incoming.clear()

    def finish(self) -> ExitStatus:
        """Wait for all answers, let the worker end, and wait until it has."""
        calls = self.calls
        self.wait(lambda: not calls.outstanding or calls.failure is not None)
        with self.lock:
            if calls.failure is None:
                self.shut()
        return self.listen(None)

    def listen(self, deadline: float | None) -> ExitStatus:
        """Take what comes until the worker has ended; return how. Raises TimeoutError."""
        self.wait(lambda: self.calls.failure is not None, deadline)
        return self.process.wait(None if deadline is None else max(0.0, deadline - monotonic()))

    def shut(self) -> None:
        """Let the worker see that nothing more will come."""
        import socket

        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended
            pass

    def drop(self) -> None:
        """Let go of what this holds."""
        self.process.close()
        close_all(self._inbox.unclaimed())


class Worker:
    """A process that answers calls. It takes a template over, as ``run`` does.

    ``template`` is used up; without one it is a fork of the default template. ``initializer(*sent, *initargs)`` is
    called in the worker before anything else, with what was given to ``Template.send``. ``on_event`` is called with
    what ``emit`` sends, in whichever thread waits for this worker; ``serializer`` is "pickle", "json", "msgpack" (needs
    msgspec), "raw", or an object with ``name``, ``dumps`` and ``loads``.

    A worker runs one call after the other, in their order. With ``concurrency`` it runs so many at once: async
    functions, under asyncio or the ``backend``. ``on_cancel`` says what becomes of a running call that is given up
    (by a timeout, or an interrupt): "kill" ends the worker, "wait" waits for the call nevertheless, and returns its
    result. One of several concurrent calls is cancelled in the worker instead.

    As a context manager it is closed at the end. Every method may be used from any thread. Raises ArgumentError.
    """

    def __init__(
        self,
        template: Template | None = None,
        *,
        on_event: Handler | None = None,
        serializer: str | Serializer = "pickle",
        initializer: Callable[..., object] | str | None = None,
        initargs: Sequence[object] = (),
        concurrency: int | None = None,
        backend: Literal["asyncio", "trio"] = "asyncio",
        on_cancel: Literal["kill", "wait"] = "kill",
    ) -> None:
        options = Options(serializer, concurrency, backend, initializer, initargs, on_cancel)
        link = options.start(Template() if template is None else template)
        self._talk = Conversation(Process._of(link), Calls(options.serializer, concurrency, on_event))
        self._waits = on_cancel == "wait"
        self._cancels = concurrency is not None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Its process id, once it is known: after ``ready`` or the first call."""
        return self._talk.process.pid

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until it has been started, and its initializer has run; raise what failed.

        Raises TimeoutError when the timeout, in seconds, is over; it goes on.
        """
        talk = self._connected("ready")
        calls = talk.calls
        try:
            talk.wait(lambda: calls.ready or calls.failure is not None, _deadline(timeout))
        except TimeoutError:
            raise TimeoutError(f"worker {self.pid} was not ready within {timeout} seconds") from None
        if calls.failure is not None:
            raise calls.failure
        return self

    def call(
        self,
        function: Callable[..., Any] | str,
        /,
        *args: object,
        timeout: float | None = None,
        on_event: Handler | None = None,
    ) -> Any:
        """The result of ``function(*args)`` in the worker; raises what it raises, with the remote traceback as cause.

        Raises ArgumentError at once for what cannot travel, CallTimeoutError after the timeout, in seconds,
        WorkerDiedError, and the other kinds of CallError. ``on_event`` gets what this call emits.
        """
        call = None
        if timeout is None and on_event is None and not self._closed:
            done, found = self._talk.exchange(function, args, self._give_up)
            if done:
                return found
            call = found
        talk = self._connected("call")
        deadline = _deadline(timeout)
        if call is None:
            call = talk.calls.make("call", CALL, function, args, on_event)
            talk.begin(call)
        try:
            talk.wait(lambda: call.state == State.DONE, deadline)
        except BaseException as error:
            if call.state != State.DONE:
                self._give_up(call, error, timeout)
        return call.result()

    def map(
        self, function: Callable[..., Any] | str, items: Iterable[object], /, *, window: int = WINDOW
    ) -> Iterator[Any]:
        """The results of ``function(item)`` for all items, in their order, as an iterator.

        At most ``window`` items are on their way at a time. It raises what a call raises, and ends with that; closing
        it early cancels those that have not begun.
        """
        if window < 1:
            raise ArgumentError(f"the window of map() must be 1 or more, not {window}")
        return self._map(self._connected("map"), function, iter(items), window)

    def _map(
        self, talk: Conversation, function: Callable[..., Any] | str, items: Iterator[object], window: int
    ) -> Iterator[Any]:
        ahead: deque[Call] = deque()
        calls = talk.calls
        try:
            more = True
            while more or ahead:
                if more and len(ahead) <= window // 2:
                    more = self._fill(talk, function, items, window, ahead)
                if ahead:
                    call = ahead[0]
                    if call.state != State.DONE:
                        talk.wait(lambda: ahead[0].state == State.DONE)
                    ahead.popleft()
                    yield call.result()
        finally:
            with talk.lock:
                for call in ahead:
                    calls.give_up(call)
                if talk.calls.out:
                    talk.flush()

    def _fill(
        self,
        talk: Conversation,
        function: Callable[..., Any] | str,
        items: Iterator[object],
        window: int,
        ahead: deque[Call],
    ) -> bool:
        """Ask for further items, all in one go; False when there are no more."""
        calls = talk.calls
        made: list[Call] = []
        try:
            for item in items:
                made.append(calls.make("map", CALL, function, (item,), None, window))
                if len(made) + len(ahead) >= window:
                    return True
            return False
        finally:
            for call in made:
                assert call.message is not None
                if call.message.fills:
                    call.message.write_files()
            with talk.lock:
                for call in made:
                    calls.add(call)
                    ahead.append(call)
                join_small(calls.out)
                talk.flush()

    def stream(self, function: Callable[..., Any] | str, /, *args: object, on_event: Handler | None = None) -> Stream:
        """The items that a generator function, or an async one, yields in the worker, one by one, as an iterator.

        The worker produces at most some items ahead. Closing the stream closes the generator.
        """
        talk = self._connected("stream")
        call = talk.calls.make("stream", STREAM, function, args, on_event)
        talk.begin(call)
        return Stream(talk, call)

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait until the worker has ended, and return how. Events are handled meanwhile.

        Raises TimeoutError when the timeout, in seconds, is over.
        """
        try:
            return self._connected("wait", closed=True).listen(_deadline(timeout))
        except TimeoutError:
            raise TimeoutError(f"worker {self.pid} has not ended within {timeout} seconds") from None

    def kill(self) -> None:
        """End it now. Calls that have no answer yet fail."""
        self._talk.process.kill()

    def close(self) -> None:
        """Let it answer what was asked, then end it, and wait for its end. Closing twice is harmless."""
        talk = self._talk
        if self._closed and talk.calls.failure is not None:
            return
        self._closed = True
        try:
            talk.connect()
        except AnyforkError:  # it was never started
            talk.process.close()
            return
        talk.finish()
        talk.drop()

    def _connected(self, call: str, closed: bool = False) -> Conversation:
        if self._closed and not closed:
            raise HandleError(f"{call}() on a worker that was closed")
        talk = self._talk
        talk.connect()
        return talk

    def _give_up(self, call: Call, error: BaseException, timeout: float | None) -> None:
        """Nobody waits for the call any more: raise why, unless its result is wanted nevertheless."""
        talk = self._talk
        with talk.lock:
            started = call.state != State.QUEUED
            if started and self._waits:
                pass
            else:
                talk.calls.give_up(call)
                if talk.calls.out:
                    talk.flush()
        if started and self._waits:
            talk.wait(lambda: call.state == State.DONE)
            if isinstance(error, TimeoutError):
                return
            raise error
        if started and not self._cancels:
            self.kill()
        if isinstance(error, TimeoutError) and not isinstance(error, AnyforkError):
            what = "it may have run" if started else "nothing of it has run"
            text = f"the call had no result within {timeout} seconds; {what}"
            raise CallTimeoutError(text, may_have_run=started) from None
        raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        failure = self._talk.calls.failure
        state = "closed" if self._closed else "working" if failure is None else str(failure)
        return f"<Worker pid={self.pid} {state}>"


class Stream:
    """The items of a generator in a worker, as an iterator. As a context manager it is closed at the end."""

    def __init__(self, talk: Conversation, call: Call) -> None:
        self._talk = talk
        self._call = call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        call, talk = self._call, self._talk
        if call.state == State.GIVEN_UP:
            raise StopIteration
        if not call.items:
            if call.state == State.DONE:
                self._end()
            talk.wait(lambda: bool(call.items) or call.state == State.DONE)
            if not call.items:
                self._end()
        with talk.lock:
            talk.calls.consumed(call)
            if talk.calls.out:
                talk.flush()
        return call.item()

    def _end(self) -> None:
        if self._call.ended:
            raise StopIteration
        self._call.ended = True
        self._call.result()
        raise StopIteration

    def close(self) -> None:
        """Close the generator in the worker, without waiting for it. Closing twice is harmless."""
        talk, call = self._talk, self._call
        with talk.lock:
            if call.state in (State.QUEUED, State.SENT):
                talk.calls.give_up(call)
                talk.flush()
            elif call.state == State.DONE:
                call.drop()
            call.ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._call.state in (State.QUEUED, State.SENT):
            self.close()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def join_small(out: deque[Message]) -> None:
    """Make one message of those at the end that have no descriptors, so that one call sends them."""
    joined: list[bytes | memoryview] = []
    size = 0
    while out and not out[-1].fds and size + len(out[-1].data) <= JOINED:
        data = out.pop().data
        joined.append(data)
        size += len(data)
    if joined:
        out.append(Message(b"".join(reversed(joined))))


def send_waiting(sock: socket.socket, out: deque[Message]) -> None:
    """Send what the socket takes now of what is to be sent; the rest stays."""
    while out:
        message = out[0]
        try:
            sent = send_some(sock, message.data, message.fds, NOWAIT)
        except BlockingIOError:
            for waiting in out:
                waiting.keep()
            return
        except ConnectionError:  # whoever reads learns why
            for waiting in out:
                waiting.close()
            out.clear()
            return
        message.fds = ()
        if sent == len(message.data):
            message.close()
            out.popleft()
        else:
            message.data = memoryview(message.data)[sent:]


def died(pid: int | None, status: ExitStatus, stderr: str) -> Callable[[bool], WorkerDiedError]:
    """What makes the errors of the calls of a worker that has ended."""
    tail = f"; it wrote:\n{stderr}" if stderr else ""

    def make(may_have_run: bool) -> WorkerDiedError:
        what = "the call may have run" if may_have_run else "nothing of the call has run"
        text = f"worker {pid} {status}; {what}{tail}"
        return WorkerDiedError(text, pid=pid, status=status, stderr=stderr, may_have_run=may_have_run)

    return make


def handle_event(handler: Handler | None, message: _call_wire.Message, calls: Calls) -> Any:
    """Give an event to who wants it; what the handler returns."""
    if handler is not None:
        return handler(calls.decode(message))
    import logging

    close_all(message[5])
    logging.getLogger("anyfork").warning("an event of a worker was dropped: there is no on_event for it")
    return None
