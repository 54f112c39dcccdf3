"""The calls of one worker on the owner's side, without I/O: when each may be sent, and what an answer means.

Calls are queued here until the worker is free for them, so a call that is given up in the queue has certainly not run.
Faces send ``out``, pass received messages to ``take``, and are woken through ``Call.wake``.
"""

from __future__ import annotations

from _pickle import dumps
from collections import deque
from itertools import count, islice, repeat
from time import monotonic

from _anyfork_child.values.encode import INLINE, PROTOCOL
from _anyfork_child.values.message import Message
from _anyfork_child.wire.call_messages import (
    CALL,
    CANCEL,
    CANCELLED,
    END,
    ERROR,
    EVENT,
    FAILED,
    FDS,
    FLAGS,
    HEADER,
    IN_FILE,
    ITEM,
    KIND,
    LOG,
    MORE,
    NUMBER,
    READY,
    RESULT,
    RETIRE,
    SMALL_CALL,
    SMALL_CALLS,
    STREAM,
    STREAM_WINDOW,
    VALUE,
    VERSION,
)
from _anyfork_child.wire.channel import close_all
from _anyfork_child.wire.frames import ProtocolError

from .._system.import_path import ORDINARY
from .._system.locks import in_one_go
from .call import SENT, Answer, Call, SmallAnswer, State
from .events import Event, log_event
from .known_functions import FunctionsByValue
from .requests import Requests, small
from .results import failure_to_begin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer
    from _anyfork_child.wire import call_messages

    from .._errors import AnyforkError
    from .call import Handler
    from .known_functions import KnownFunction
    from .track import Track

MAX_CALLS = 1000  # calls in the queue and open streams; a caller that wants to add another one waits
MAX_BYTES = 64 << 20  # of the messages in the queue
LAST_NUMBER = 0xFFFFFFFF


_SMALL = Call(CALL, None, None, 0)  # stands in ``_sent`` for a call of begin_small, which has no object of its own


class Calls:
    """The calls of a worker, the ``receiver``. ``concurrency`` is None if it runs one call after the other.

    ``kind`` is the worker's kind, as log records and timelines name it.
    """

    kind = "worker"
    in_pool = False  # SystemExit of a function ends only its call

    def __init__(
        self,
        serializer: Serializer | None = None,
        concurrency: int | None = None,
        on_event: Handler | None = None,
        receiver: Receiver = ORDINARY,
    ) -> None:
        self.out: deque[Message] = deque()
        self.sent: list[int] = []  # bytes sent of the first message in ``out``, until the message itself notes them
        self.ready: bool = False  # the worker has said that it is ready
        self.failed: bool = False  # there is no worker any more
        self.retired: bool = False  # the worker wants to leave its pool
        self.remote: bool = receiver.remote
        self.pid: int | None = None  # once it is known
        self._serializer = serializer
        self._concurrency = concurrency
        self._on_event = on_event
        self._make_error: Callable[[bool], AnyforkError] | None = None
        self._requests = Requests(serializer, receiver)
        self._by_value = FunctionsByValue(receiver)
        self.small: int = 0  # the number of the call that begin_small has begun
        # A small call that another call of the same thread has interrupted. The other call must not wait for its
        # answer: the interrupted code may have received the answer without having noted it yet.
        self._overtaken = 0
        self.streams: int = 0  # streams that were sent and have no end yet
        self._queue: deque[Call] = deque()
        self._bytes = 0  # of the messages in the queue
        self._sent: dict[int, Answer] = {}
        self._running = 0  # calls in ``_sent``, without streams
        self._alone = 0  # calls in ``_sent`` beside which no other call may run
        self._numbers = count()
        self._track: Track | None = None  # of a worker with a timeline

    # --- Requests ---

    @property
    def full(self) -> bool:
        """True when no more calls should be added now."""
        return len(self._queue) + self.streams >= MAX_CALLS or self._bytes >= MAX_BYTES

    @property
    def shares_messages(self) -> bool:
        """True if calls with short arguments may be sent in one message, which a serializer does not know."""
        return self._serializer is None

    @property
    def outstanding(self) -> int:
        """The number of calls that have no answer yet."""
        return len(self._queue) + len(self._sent)

    def check(self, may_have_run: bool = False) -> None:
        """Raise the worker's failure, if any, as the error of a call that may have run, or certainly has not."""
        if self._make_error is not None:
            raise self._make_error(may_have_run)

    def error(self, may_have_run: bool) -> AnyforkError:
        """Return the worker's failure as the error of a call that may have run, or certainly has not."""
        assert self._make_error is not None
        return self._make_error(may_have_run)

    def drop_out(self) -> None:
        """Close and drop all outgoing messages, because nothing more can be sent."""
        for message in self.out:
            message.close()
        self.out.clear()
        self.sent.clear()

    def drop_unsent(self, numbers: Collection[int]) -> None:
        """Remove the messages of calls that are not to run, if they carry descriptors and nothing of them has been
        sent.
        """
        for message in list(self.out):
            if not message.fds:  # it has no descriptors, or they have gone with the first byte
                continue
            _, number, _, kind, _, _ = HEADER.unpack_from(message.data)
            if number in numbers and kind != VALUE:
                self.out.remove(message)
                message.close()

    def drop(self) -> None:
        """Close all outgoing and queued messages, because nobody waits for a result any more."""
        self.drop_out()
        for call in self._queue:
            assert call.message is not None
            call.message.close()

    def expect(self, number: int, on_event: Handler | None = None) -> Call:
        """Make the call object for a call that the worker has already received."""
        call = Call(CALL, None, on_event, 0)
        call.number, call.state = number, State.SENT
        if number == self.small:
            self._overtaken = number
        else:
            self._running += 1
            self._alone += 1
        self.small = 0
        self._sent[number] = call
        return call

    def take_function(
        self, name: str, function: Callable[..., object] | str
    ) -> Callable[..., object] | str | KnownFunction:
        """Return what many calls are to call: the function as it is now. Raises ArgumentError and OSError."""
        if self._requests.number(name, function):
            return function
        return self._by_value.take(name, function)

    def forget_functions(self) -> None:
        """Tell the worker to forget functions that no call needs any more."""
        if self._requests.unwanted:
            self.out.append(Message(self._requests.drop_unwanted()))

    def make(
        self,
        name: str,
        kind: int,
        function: Callable[..., object] | str | KnownFunction,
        args: Sequence[object],
        on_event: Handler | None,
        ahead: int = 0,
    ) -> Call:
        """Make and encode a call. Raises ArgumentError, and the worker's failure."""
        self.check()
        call = Call(kind, self._serializer, on_event, ahead)
        call.number = number = self._next_number()
        detail = self._requests.number(name, function)
        call.message = self._requests.message(name, kind, number, detail, function, args)
        return call

    def _next_number(self) -> int:
        """Return the number of a new call. Any thread may call this: ``count`` gives each number once, without the GIL
        too.
        """
        number = next(self._numbers) % LAST_NUMBER + 1
        while number in self._sent:
            number = next(self._numbers) % LAST_NUMBER + 1
        return number

    def _next_numbers(self, many: int) -> list[int]:
        numbers = [number % LAST_NUMBER + 1 for number in islice(self._numbers, many)]
        if self._sent.keys().isdisjoint(numbers):
            return numbers
        return [self._next_number() for _ in range(many)]

    def add(self, call: Call) -> None:
        """Queue a call; it is sent as soon as the worker is free for it. Raises the worker's failure."""
        message = call.message
        assert message is not None
        call.size = message.size
        if self.failed:
            message.close()
            self.check()
        if not self._queue and self._free_for(call):
            self._send(call)
            return
        message.keep()
        call.state = State.QUEUED
        self._queue.append(call)
        self._bytes += message.size

    def _free_for(self, call: Call) -> bool:
        if self._concurrency is not None:
            return self._running < self._concurrency
        overtaken = self._overtaken in self._sent
        if call.ahead:
            return self._alone == overtaken and self._running < call.ahead
        return self._running == overtaken

    def _send(self, call: Call) -> None:
        message = call.message
        assert message is not None
        call.state = State.SENT
        self._sent[call.number] = call
        if call.kind == CALL:
            self._running += 1
            self._alone += not call.ahead
        else:
            self.streams += 1
        self._define_first()
        self.out.append(message)
        call.message = None

    def _define_first(self) -> None:
        definitions = self._requests.definitions
        if definitions:
            # One by one: another thread may add one meanwhile. It goes out before the first call that needs it, because
            # that call is made afterwards.
            self.out.extend(map(deque.popleft, repeat(definitions, len(definitions))))

    def begin_small(self, function: Callable[..., object] | str, args: Sequence[object]) -> bytes | None:
        """Begin a call while there is no other, at less cost than ``make`` and ``add``. Return the bytes to send.

        ``small`` is then the number of the call. ``end_small`` has to follow, or ``expect`` with this number. Return
        None when the call cannot be made in this way.
        """
        requests = self._requests
        if self._sent or self._queue or self.out or self._serializer is not None or self.failed or requests.definitions:
            return None
        try:
            detail = requests.functions[function]
        except (KeyError, TypeError):
            return None
        body = small(args)
        if not body:
            return None
        self.small = number = next(self._numbers) % LAST_NUMBER + 1
        self._running += 1
        self._alone += 1
        self._sent[number] = _SMALL
        track = self._track
        if track is not None:
            track.began = monotonic() if function is track.function else track.begin_other(function)
        return HEADER.pack(len(body), number, detail, SMALL_CALL, 0, 0) + body

    def end_small(self) -> None:
        """Note that the call of ``begin_small`` has its answer.

        On a timeline, it joins the event of the small calls before it if it is quick, in as few steps as possible.
        """
        del self._sent[self.small]
        self.small = 0
        self._running -= 1
        self._alone -= 1
        track = self._track
        if track is not None:
            now = monotonic()
            if now <= track.until:
                track.count += 1
                track.last = now
            else:
                self._draw_small(track, now)
        if self._queue:
            self.admit()

    def _draw_small(self, track: Track, now: float) -> None:
        """Draw a small call that may need an event of its own. Changes nothing here: ``TracedCalls`` has the track."""

    def add_small(
        self, name: str, function: Callable[..., object] | str | KnownFunction, items: list[Any], ahead: int
    ) -> list[Answer]:
        """Send calls with one small argument each in one message. Return an empty list when that is not possible."""
        if self._queue or self._serializer is not None or self.failed:
            return []
        limit = ahead if self._concurrency is None else self._concurrency
        if (self._alone and self._concurrency is None) or self._running + len(items) > limit:
            return []
        detail = self._requests.number(name, function)
        numbers = self._next_numbers(len(items))
        body = dumps((numbers, items), PROTOCOL)
        if not detail or len(body) > INLINE:
            return []
        answers: list[Answer] = [SmallAnswer(SENT, number) for number in numbers]
        self._sent.update(zip(numbers, answers, strict=True))
        self._running += len(items)
        self._define_first()
        self.out.append(Message(HEADER.pack(len(body), numbers[0], detail, SMALL_CALLS, 0, 0) + body))
        return answers

    def admit(self) -> None:
        """Send the queued calls that the worker is free for now."""
        queue = self._queue
        while queue and self._free_for(queue[0]):
            call = queue.popleft()
            assert call.message is not None
            self._bytes -= call.message.size
            self._send(call)

    def give_up(self, call: Answer) -> bool:
        """Give up a call whose caller no longer waits. Return False if it has certainly not run, and will not."""
        if call.state in (State.NEW, State.QUEUED):
            assert isinstance(call, Call)
            assert call.message is not None
            call.message.close()
            if call.state == State.QUEUED and not self.failed:  # otherwise ``fail`` has it, in which a destructor runs
                self._queue.remove(call)
                self._bytes -= call.message.size
                self.admit()
            call.state = State.DONE
            return False
        if call.state == State.DONE:
            call.drop()
        if call.state == State.SENT:
            call.state = State.GIVEN_UP
            call.drop()
            if call.ahead or call.kind == STREAM or self._concurrency is not None:
                self.out.append(Message(HEADER.pack(0, call.number, 0, CANCEL, 0, 0)))
        return True

    def give_up_all(self, calls: Iterable[Answer]) -> None:
        """Give up several calls, and tell the worker of all in one message: otherwise it could begin one of them after
        the cancellation of another.
        """
        first = len(self.out)
        for call in calls:
            self.give_up(call)
        told = [*islice(self.out, first, None)]
        if len(told) > 1 and not any(message.fds for message in told):
            message = Message(b"".join(message.data for message in told))
            in_one_go(map(deque.pop, repeat(self.out, len(told))), map(self.out.append, (message,)))

    def give_up_streams(self) -> None:
        """Give up all streams, because nobody will read them any more."""
        for call in list(self._sent.values()):
            if call.kind == STREAM:
                self.give_up(call)

    def consumed(self, call: Call) -> None:
        """Note that an item of a stream was consumed, and allow the worker to send more."""
        call.consumed += 1
        if call.consumed >= STREAM_WINDOW // 2 and call.state == State.SENT:
            self.out.append(Message(HEADER.pack(0, call.number, call.consumed, MORE, 0, 0)))
            call.consumed = 0

    # --- The worker ---

    def entered(self, pid: int | None) -> None:
        """Note that the process of the worker runs."""
        self.pid = pid

    def ended(self, how: str) -> None:
        """Note how the process of the worker has ended. Changes nothing here."""

    # --- Messages from the worker ---

    def take_results(self, messages: deque[call_messages.Message]) -> None:
        """Process the results of calls at the front of the messages, as ``take`` does, at less cost for each."""
        sent = self._sent
        while messages and messages[0][KIND] == RESULT and not messages[0][FDS]:
            answer = sent.get(messages[0][NUMBER])
            if answer is None or answer.kind != CALL:
                return
            message = messages.popleft()
            del sent[message[NUMBER]]
            self._running -= 1
            if not answer.ahead:
                self._alone -= 1
            answer.finish(message)
            if self._queue:
                self.admit()

    def check_descriptors(self, message: call_messages.Message) -> None:
        """Raise ProtocolError for descriptors that the serializer cannot have sent, and close them."""
        fds = message[FDS]
        if fds and self._serializer is not None and (len(fds) != 1 or message[FLAGS] != IN_FILE):
            close_all(fds)
            raise ProtocolError("descriptors from a worker whose serializer does not support them")

    def take(self, message: call_messages.Message) -> Event | None:
        """Process a message; return it as an Event if a handler has to be called. Raises ProtocolError."""
        kind, number, detail, _, _, fds = message
        if fds and self._serializer is not None:
            self.check_descriptors(message)
        if kind == EVENT:
            call = self._sent.get(number)
            if call is None or call.on_event is None:
                return Event(message, self._serializer, self._on_event, None, call)
            return Event(message, self._serializer, call.on_event, call, call)
        if fds and kind not in (RESULT, ERROR, ITEM):
            close_all(fds)
            raise ProtocolError(f"descriptors with a message of kind {kind}, which must have none")
        if kind == READY:
            if detail != VERSION:
                raise ProtocolError(f"the worker speaks version {detail} of calls, this program version {VERSION}")
            self.ready = True
            return None
        if kind == RETIRE:
            self.retired = True
            return None
        if kind == LOG:
            return log_event(message, f"{self.kind} {self.pid}", self.pid)
        if kind == FAILED and not self.ready:
            self._fail_to_begin(message)
            return None
        call = self._sent.get(number)
        if call is None or kind not in (
            (ITEM, END, ERROR, CANCELLED) if call.kind == STREAM else (RESULT, ERROR, CANCELLED)
        ):
            close_all(fds)
            raise ProtocolError(f"a message of kind {kind} for call {number}, which does not expect it")
        if kind == ITEM:
            if len(call.items) >= STREAM_WINDOW:
                close_all(fds)
                raise ProtocolError(f"more items of stream {number} than were asked for")
            call.add_item(message)
            return None
        self._answered(call, message)
        return None

    def _answered(self, call: Answer, message: call_messages.Message) -> None:
        del self._sent[call.number]
        if call.kind == CALL:
            self._running -= 1
            self._alone -= not call.ahead
        else:
            self.streams -= 1
        call.finish(message)
        if self._queue:
            self.admit()

    def _fail_to_begin(self, message: call_messages.Message) -> None:
        self.fail(failure_to_begin(message, self._serializer is None))

    def fail(self, make: Callable[[bool], AnyforkError]) -> None:
        """Fail all calls, because there is no worker any more.

        ``make`` makes the error of a call; its argument says whether the call may have run or certainly has not.
        """
        if self.failed:
            return
        self.failed = True
        self._make_error = make
        self._sent.pop(self.small, None)  # the caller of begin_small finds out by itself
        queue, sent = list(self._queue), list(self._sent.values())
        self._queue.clear()
        self._sent.clear()
        self._running = self._alone = self._bytes = self.streams = self.small = 0
        self.drop_out()
        for call in queue:
            assert call.message is not None
            call.message.close()
            call.finish(None, make(False))
        for answer in sent:
            answer.finish(None, make(True))
