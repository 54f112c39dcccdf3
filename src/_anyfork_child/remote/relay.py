"""A relay: carries what comes from sockets over a connection to another relay, which has the other ends of them.

One runs beside the owner (remote.local_relay), one beside the remote templates (remote.remote_relay). In the middle is
whatever the command of a remote template is, ssh for instance. To the owner the near one is a template's socket, to the
processes the far one is their owner's: both talk frames with it, and need not know more.

What comes at one wake-up goes out in one write. Nothing here waits for one socket alone.
"""

from __future__ import annotations

import _socket
import os
from itertools import count
from select import POLLHUP, POLLIN, POLLOUT
from stat import S_ISFIFO, S_ISSOCK
from time import monotonic

from ..values.decode import DescriptorsLostError
from ..wire.call_messages import VERSION as CALL_VERSION
from ..wire.channel import NOWAIT, close_all
from ..wire.failure import Failure
from ..wire.frames import (
    DIED,
    ENTERED,
    EXECUTE,
    EXECUTING,
    FAILED,
    FORK,
    IN_FILE,
    KINDS,
    LOST,
    LOST_DESCRIPTOR,
    PRELOAD,
    PREPARE,
    PROGRAM,
    READY,
    START,
    Frame,
    ProtocolError,
)
from ..wire.frames import HEADER as FRAME_HEADER
from ..wire.frames import HEADER_SIZE as FRAME_SIZE
from ..wire.frames import VERSION as FRAME_VERSION
from .poller import make_poller
from .protocol import (
    BEAT,
    BYE,
    CREDIT,
    DATA,
    EOF,
    FILE,
    FRAME,
    MAX_BODY,
    NUMBER,
    PIECE,
    STOP,
    WINDOW,
    Cutter,
    credit,
    message,
    pack,
)
from .stream import CONTROL, PLAIN, STATUS, File, Pipe, Stream
from .transport import CONGESTED, Line, LostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # What to do with a frame that has come from the other side: the descriptors that go with it beside its streams, and
    # the value. Raises ProtocolError for what has no business here.
    Admit = Callable[[int, int, int], tuple[Sequence[int], int]]

HALF = WINDOW // 2
NEXT = 2  # between two numbers that one end gives
STEPS = frozenset((EXECUTE, PRELOAD, PREPARE))
HURRY = 0.05  # seconds between looks of a relay that is about to end
LIMIT = 1 << 16  # descriptors that a relay may want
SPEAKS = f"{FRAME_VERSION}.{CALL_VERSION}"  # the versions of all that a connection carries
LAST_FRAMES = frozenset((START, PROGRAM, ENTERED, EXECUTING))  # behind them there are bytes of the user's own


class Relay:
    """One end of a connection over ``incoming`` and ``outgoing``, see Line.

    ``numbers`` is the first that this end gives to a stream. The connection is given up when nothing has come for
    ``keep_alive`` seconds.
    """

    def __init__(self, incoming: int, outgoing: int, numbers: int, keep_alive: float, admit: Admit) -> None:
        self.streams: dict[int, Stream] = {}
        self.said_bye = False  # the other side has
        self._poller = make_poller()
        self._line = Line(incoming, outgoing, keep_alive, self._poller)
        self._room = memoryview(bytearray(PIECE))  # for what is read from sockets
        self._cutter = Cutter()
        self._numbers = count(numbers, NEXT)
        self._admit = admit
        self._actions: dict[int, Callable[[int], None]] = {}
        self._by_fd: dict[int, Stream] = {}
        self._files: set[Stream] = set()  # that are in the middle of one
        self.asked = False  # steps were asked for of which nothing has been heard
        self.started: set[int] = set()  # status streams of what was started, until its end is told
        if outgoing != incoming:
            self.watch(outgoing, self._line.broken, 0)
        self.watch(incoming, self._receive)

    def watch(self, fd: int, action: Callable[[int], None], events: int = POLLIN) -> None:
        """Do something, with the events, whenever they happen to a descriptor, or its end does."""
        self._actions[fd] = action
        self._poller.add(fd, events)

    def forget(self, fd: int) -> None:
        """Watch it no longer."""
        del self._actions[fd]
        self._poller.remove(fd)

    def open(self, sock: _socket.socket | Pipe, role: int, number: int = -1) -> Stream:
        """A stream for this socket; a new one, or that of the number which the other side has given it."""
        stream = Stream(next(self._numbers) if number < 0 else number, sock, role)
        self.streams[stream.number] = self._by_fd[stream.fd] = stream
        self._watch(stream)
        return stream

    # --- The loop: the usual case stands first in each step, because every call goes through four of them ---

    def run(self, done: Callable[[], bool]) -> None:
        """Go on until it is done. Raises LostError."""
        wait, by_fd, actions, line = self._poller.wait, self._by_fd, self._actions, self._line
        while not done():
            if line.out:
                self._write()
                while line.size > CONGESTED:
                    self._wait()
            events = wait(line.tick)
            line.now = monotonic()
            for fd, event in events:
                stream = by_fd.get(fd)
                if stream is None:
                    action = actions.get(fd)
                    if action is not None:
                        action(event)
                elif event == POLLIN and stream.channel is None:
                    self._read_bytes(stream)
                else:
                    self._serve(stream, event)
            line.look()

    def _write(self) -> None:
        """Send what the connection takes."""
        line = self._line
        while line.out and line.write():
            for stream in list(self._files):
                self._send_file(stream)

    def _wait(self) -> None:
        """Until the connection takes more; what comes meanwhile is done."""
        if self._line.wait():
            self._receive(POLLIN)
        self._line.look()
        self._write()

    @property
    def now(self) -> float:
        """The time of the present step."""
        return self._line.now

    def hurry(self) -> None:
        """Look often from now on."""
        self._line.tick = min(self._line.tick, HURRY)

    def flush(self) -> None:
        """Send everything. Raises LostError."""
        while self._line.out:
            self._wait()

    # --- What comes over the connection ---

    def say(self, kind: int, number: int, body: bytes = b"") -> None:
        """Have a message sent at the end of this step."""
        self._line.say(message(kind, number, body))

    def _receive(self, event: int) -> None:
        if event != POLLOUT and (data := self._line.read()):
            self.take(data)

    def take(self, data: bytes) -> None:
        """Do what came over the connection. Raises LostError."""
        streams = self.streams
        try:
            for kind, number, body in self._cutter.take(data):
                if kind != DATA:
                    self._obey(kind, number, body)
                elif number in streams:
                    stream = streams[number]
                    stream.put(body)
                    if stream.owed >= HALF or stream.queued or not stream.writes:
                        self._written(stream)
        except ProtocolError as error:
            raise LostError(f"what came over it is not anyfork's protocol: {error}") from None

    def _obey(self, kind: int, number: int, body: bytes) -> None:
        stream = self.streams.get(number)
        if kind == BYE:
            self.said_bye = True
        elif kind == FRAME:
            self._deliver(stream, body)
        elif kind == BEAT or stream is None:
            pass  # for a socket that is closed meanwhile
        elif kind == CREDIT and len(body) == NUMBER.size:
            stream.credit += NUMBER.unpack(body)[0]
            self._send_file(stream)
            self._watch(stream)
        elif kind == FILE:
            self._admit(IN_FILE, 0, 0)
            stream.fill(body)
            self._written(stream)
        elif kind == EOF:
            stream.stop()
            self._watch(stream)
        elif kind == STOP:
            stream.refuse()
            self._watch(stream)
        else:
            raise ProtocolError(f"credit of {len(body)} bytes")

    # --- From the other side to a socket ---

    def _deliver(self, stream: Stream | None, body: bytes) -> None:
        """A frame: what belongs to it as descriptors gets made here."""
        if len(body) < FRAME_SIZE:
            raise ProtocolError(f"a frame of {len(body)} bytes")
        version, kind, count, length, value = FRAME_HEADER.unpack_from(body)
        start = FRAME_SIZE + count * NUMBER.size
        if version != FRAME_VERSION or kind & ~IN_FILE not in KINDS or start + length != len(body):
            raise ProtocolError(f"a frame of version {version}, kind {kind} and {len(body)} bytes")
        numbers = [number for (number,) in NUMBER.iter_unpack(body[FRAME_SIZE:start])]
        if stream is None:  # nobody gets it: what belongs to it has come to its end
            for number in numbers:
                self.say(EOF, number)
                self.say(STOP, number)
            return
        others, value = self._admit(kind, count, value)
        if kind == DIED:
            self.started.discard(stream.number)
        elif kind in (READY, FAILED):
            self.asked = False
        ends = [self._make_stream(number, at if kind == FORK else PLAIN) for at, number in enumerate(numbers)]
        files = [stream.take_file()] if kind & IN_FILE else []
        stream.put_frame(Frame(kind, value, body[start:], [*ends, *others, *files]))
        stream.answers = stream.answers and kind not in LAST_FRAMES
        self._written(stream)

    def _make_stream(self, number: int, role: int) -> int:
        """The far end of a new socket, whose near end is a stream."""
        if number in self.streams:
            raise ProtocolError(f"a second stream of the number {number}")
        near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.open(near, role, number)
        return far.detach()

    def _written(self, stream: Stream) -> None:
        """Something was written to a socket, or waits for that."""
        if stream.queued > WINDOW + MAX_BODY:
            raise ProtocolError(f"{stream.queued} bytes wait at one stream, which has room for {WINDOW}")
        if stream.owed >= HALF:
            self._line.say(credit(stream.number, stream.owed))
            stream.owed = 0
        if stream.broken:
            self._refuse(stream)
        self._watch(stream)

    # --- From a socket to the other side ---

    def _serve(self, stream: Stream, event: int) -> None:
        if event & POLLOUT:
            stream.flush()
            self._written(stream)
        if event & (POLLIN | POLLHUP) and stream.reads and stream.credit > 0 and stream.file is None:
            self._read(stream)
        if event & POLLHUP and not stream.reads:  # both directions are shut: nobody has the other end any more
            self._refuse(stream)
        self._watch(stream)

    def _read(self, stream: Stream) -> None:
        if stream.channel is None:
            self._read_bytes(stream)
            return
        try:
            self._read_frame(stream, stream.channel.receive(NOWAIT))
        except BlockingIOError:
            return
        except (OSError, ProtocolError, EOFError):
            self._end(stream)

    def _read_bytes(self, stream: Stream) -> None:
        credit = stream.credit
        try:
            count = stream.sock.recv_into(self._room, PIECE if credit > PIECE else credit, NOWAIT)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._end(stream)
            self._watch(stream)
            return
        stream.credit = credit - count
        self._line.say(pack(DATA, stream.number, count) + self._room[:count])
        if credit == count:
            self._watch(stream)

    def _read_frame(self, stream: Stream, frame: Frame | None) -> None:
        if frame is None:
            self._end(stream)
            return
        if frame.kind == FORK:
            stream.forks += 1
            if LOST_DESCRIPTOR in frame.fds:
                _refuse_fork(stream, frame.fds)
                return
        if frame.kind & ~IN_FILE in (START, PROGRAM):
            self.started.add(stream.number + NEXT)  # the status stream was opened behind the control stream
        elif frame.kind & ~IN_FILE in STEPS:
            self.asked = True
        fds = [*frame.fds]
        file = fds.pop() if frame.kind & IN_FILE else -1
        body = self._packed(frame, [self._carry(fd, at, frame.kind) for at, fd in enumerate(fds)])
        if frame.kind & ~IN_FILE in LAST_FRAMES:
            stream.channel = None
        if file >= 0:
            self._files.add(stream)
            stream.file = File(file, os.fstat(file).st_size, body)
            self._send_file(stream)
        else:
            self._send_frame(stream, body)

    def _carry(self, fd: int, place: int, kind: int) -> int:
        """The number of the stream that stands for a descriptor; -1 for a lifeline, of which each side has its own, and
        for what has no business here."""
        mode = os.fstat(fd).st_mode if fd >= 0 else 0
        if S_ISSOCK(mode) and (kind != FORK or place <= STATUS):
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
            return self.open(sock, place if kind == FORK else PLAIN).number
        if S_ISFIFO(mode) and kind == EXECUTING:
            return self.open(Pipe(fd), PLAIN).number
        close_all((fd,))
        return -1

    @staticmethod
    def _packed(frame: Frame, numbers: Sequence[int]) -> bytes:
        carried = [NUMBER.pack(number) for number in numbers if number >= 0]
        header = FRAME_HEADER.pack(FRAME_VERSION, frame.kind, len(carried), len(frame.body), frame.value)
        return b"".join((header, *carried, frame.body))

    def _send_frame(self, stream: Stream, body: bytes) -> None:
        count = FRAME_HEADER.unpack_from(body)[2]
        stream.credit -= len(body) - count * NUMBER.size
        self.say(FRAME, stream.number, body)

    def _send_file(self, stream: Stream) -> None:
        """Go on with a file, as far as may be; behind it goes its frame."""
        file = stream.file
        while file is not None and stream.credit > 0 and self._line.size <= CONGESTED:
            piece = file.read(min(PIECE, stream.credit))
            if not piece:
                stream.drop_file()
                self._send_frame(stream, file.behind)
                self._watch(stream)
                break
            stream.credit -= len(piece)
            self.say(FILE, stream.number, piece)
        if stream.file is None:
            self._files.discard(stream)

    # --- The ends of streams ---

    def _end(self, stream: Stream) -> None:
        if stream.reads:
            stream.reads = False
            self.say(EOF, stream.number)

    def _refuse(self, stream: Stream) -> None:
        """Whoever writes to this stream on the other side is to see that nobody reads it."""
        stream.give_up()
        stream.broken = False
        self.say(STOP, stream.number)

    def _watch(self, stream: Stream) -> None:
        """Wait for what the stream can do now; close it when it is finished."""
        if stream.finished:
            if self.streams.pop(stream.number, None) is not None:
                del self._by_fd[stream.fd]
                if stream.mask >= 0:
                    self._poller.remove(stream.fd)
                stream.close()
            return
        wanted = stream.interest
        if wanted == stream.mask:
            return
        if wanted < 0:
            self._poller.remove(stream.fd)
        elif stream.mask < 0:
            self._poller.add(stream.fd, wanted)
        else:
            self._poller.change(stream.fd, wanted)
        stream.mask = wanted


def _refuse_fork(stream: Stream, fds: Sequence[int]) -> None:
    """This relay has no room for the sockets of another process: say so in the place of its template."""
    failure = Failure("fork", "", DescriptorsLostError()).pack()
    if fds[0] < 0:
        stream.put_frame(Frame(LOST, stream.forks - 1, failure))
    else:
        control = Stream(0, _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0]), CONTROL)
        control.put_frame(Frame(FAILED, 0, failure))
        control.close()
    close_all(fds[1:])


def settle_in() -> None:
    """Let this process do nothing but relay: with as many descriptors as it may have, because it needs two for each
    process, and without looking for garbage in what it has loaded."""
    import gc
    import resource

    gc.freeze()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT if hard == resource.RLIM_INFINITY else min(hard, LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
