"""A relay: carries the bytes of sockets over a connection to another relay, which has the other ends of the sockets.

The local relay runs beside the owner (remote.local_relay), the remote relay beside the remote templates
(remote.remote_relay). The command of a remote template, ssh for instance, connects them. To the owner the local relay
is a template, to the processes the remote relay is their owner: both exchange ordinary frames with it.

The relay sends all that arrives at one wake-up in one write. It never waits for one socket alone.
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
from ..wire.channel import NOWAIT, close_all, is_short_of_memory
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
    START,
    Frame,
    ProtocolError,
)
from ..wire.frames import HEADER as FRAME_HEADER
from ..wire.frames import HEADER_SIZE as FRAME_SIZE
from ..wire.frames import VERSION as FRAME_VERSION
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
    WINDOW_BYTES,
    MessageDecoder,
    credit,
    message,
    pack,
)
from .stream import CONTROL, PLAIN, STATUS, RelayFile, RelayPipe, RelayStream
from .transport import CONGESTED, LostError, Transport, make_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # Decides about a frame from the other side by its kind, its number of streams and its value. Returns the
    # descriptors to add to those of its streams, and the value to deliver. Raises ProtocolError for a frame that is not
    # allowed here.
    Admit = Callable[[int, int, int], tuple[Sequence[int], int]]

HALF = WINDOW_BYTES // 2
NEXT = 2  # the step between two stream numbers of one end
STEPS = frozenset((EXECUTE, PRELOAD, PREPARE))
HURRY = 0.05  # seconds between looks of a relay that is about to end
MOST_DESCRIPTORS = 1 << 16  # most descriptors that a relay asks for
SPEAKS = f"{FRAME_VERSION}.{CALL_VERSION}"  # the versions of the two protocols that a connection carries
LAST_FRAMES = frozenset((START, PROGRAM, ENTERED, EXECUTING))  # after these the socket carries the user's own bytes


class Relay:
    """An end of a connection over ``incoming`` and ``outgoing``, see Line.

    ``numbers`` is the first number that this end gives to a stream. The relay gives up the connection after
    ``keep_alive`` seconds without a byte from the other side.
    """

    def __init__(self, incoming: int, outgoing: int, numbers: int, keep_alive: float, admit: Admit) -> None:
        self.streams: dict[int, RelayStream] = {}
        self.said_bye = False  # whether the other side has said BYE
        self._poller = make_poller()
        self._transport = Transport(incoming, outgoing, keep_alive, self._poller)
        self._room = memoryview(bytearray(PIECE))  # the buffer for reading from sockets
        self._decoder = MessageDecoder()
        self._numbers = count(numbers, NEXT)
        self._admit = admit
        self._actions: dict[int, Callable[[int], None]] = {}
        self._by_fd: dict[int, RelayStream] = {}
        self._files: set[RelayStream] = set()  # streams that are sending a file
        self.asked = False  # whether anything was requested that runs code there: only the other side knows its end
        self.started: set[int] = set()  # the status streams of started processes whose end was not reported yet
        if outgoing != incoming:
            self.watch(outgoing, self._transport.broken, 0)
        self.watch(incoming, self._receive)

    def watch(self, fd: int, action: Callable[[int], None], events: int = POLLIN) -> None:
        """Call ``action`` with the events whenever ``events``, or its end, occur at a descriptor."""
        self._actions[fd] = action
        self._poller.add(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor."""
        del self._actions[fd]
        self._poller.remove(fd)

    def open(self, sock: _socket.socket | RelayPipe, role: int, number: int = -1) -> RelayStream:
        """Open a stream for a socket, with a new number or with the number that the other side has given it."""
        stream = RelayStream(next(self._numbers) if number < 0 else number, sock, role)
        self.streams[stream.number] = self._by_fd[stream.fd] = stream
        self._watch(stream)
        return stream

    # --- The loop: each step tests for the usual case first, because every call goes through four steps ---

    def run(self, done: Callable[[], bool]) -> None:
        """Relay until ``done`` returns True. Raises LostError."""
        wait, by_fd, actions, transport = self._poller.wait, self._by_fd, self._actions, self._transport
        while not done():
            if transport.out:
                self._write()
                while transport.size > CONGESTED:
                    self._wait()
            events = wait(transport.tick)
            transport.now = monotonic()
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
            transport.look()

    def _write(self) -> None:
        """Send as much as the connection takes."""
        transport = self._transport
        while transport.out and transport.write():
            for stream in list(self._files):
                self._send_file(stream)

    def _wait(self) -> None:
        """Wait at most one tick until the connection takes more bytes; process what arrives meanwhile."""
        if self._transport.wait():
            self._receive(POLLIN)
        self._transport.look()
        self._write()

    @property
    def now(self) -> float:
        """The time of the current step."""
        return self._transport.now

    def hurry(self) -> None:
        """Shorten the tick, so that ``run`` calls ``done`` often from now on."""
        self._transport.tick = min(self._transport.tick, HURRY)

    def flush(self) -> None:
        """Send everything that is queued for the connection. Raises LostError."""
        while self._transport.out:
            self._wait()

    # --- What comes over the connection ---

    def say(self, kind: int, number: int, body: bytes = b"") -> None:
        """Queue a message for the connection; the loop sends it at the end of this step."""
        self._transport.say(message(kind, number, body))

    def _receive(self, event: int) -> None:
        if event != POLLOUT and (data := self._transport.read()):
            self.take(data)

    def take(self, data: bytes) -> None:
        """Process bytes that came over the connection. Raises LostError."""
        streams = self.streams
        try:
            for kind, number, body in self._decoder.take(data):
                if kind != DATA:
                    self._obey(kind, number, body)
                elif number in streams:
                    stream = streams[number]
                    stream.put(body)
                    if stream.owed >= HALF or stream.queued or not stream.writes:
                        self._written(stream)
        except ProtocolError as error:
            raise LostError(f"the data that came over it is not anyfork's protocol: {error}") from None

    def _obey(self, kind: int, number: int, body: bytes) -> None:
        stream = self.streams.get(number)
        if kind == BYE:
            self.said_bye = True
        elif kind == FRAME:
            self._deliver(stream, body)
        elif kind == BEAT or stream is None:
            pass  # a message for a socket that was closed meanwhile
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

    def _deliver(self, stream: RelayStream | None, body: bytes) -> None:
        """Deliver a frame to a socket, with new descriptors for the streams and the file that belong to it."""
        if len(body) < FRAME_SIZE:
            raise ProtocolError(f"a frame of {len(body)} bytes")
        version, kind, count, length, value = FRAME_HEADER.unpack_from(body)
        start = FRAME_SIZE + count * NUMBER.size
        if version != FRAME_VERSION or kind & ~IN_FILE not in KINDS or start + length != len(body):
            raise ProtocolError(f"a frame of version {version}, kind {kind} and {len(body)} bytes")
        numbers = [number for (number,) in NUMBER.iter_unpack(body[FRAME_SIZE:start])]
        if stream is None:  # the socket is closed: end the streams that belong to the frame
            for number in numbers:
                self.say(EOF, number)
                self.say(STOP, number)
            return
        others, value = self._admit(kind, count, value)
        if kind == DIED:
            self.started.discard(stream.number)
        elif kind == FORK:
            stream.forks += 1
        ends = [self._make_stream(number, at if kind == FORK else PLAIN) for at, number in enumerate(numbers)]
        files = [stream.take_file()] if kind & IN_FILE else []
        stream.put_frame(Frame(kind, value, body[start:], [*ends, *others, *files]))
        stream.answers = stream.answers and kind not in LAST_FRAMES
        self._written(stream)

    def _make_stream(self, number: int, role: int) -> int:
        """Make a socket pair whose near end is a stream; return the far end."""
        if number in self.streams:
            raise ProtocolError(f"a second stream of the number {number}")
        near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.open(near, role, number)
        return far.detach()

    def _written(self, stream: RelayStream) -> None:
        """Update a stream after bytes for its socket were written or queued: give credit, report that nobody reads.

        Raises ProtocolError if more bytes are queued than the other side may have sent.
        """
        if stream.queued > WINDOW_BYTES + MAX_BODY:
            raise ProtocolError(f"{stream.queued} bytes wait at one stream, which has room for {WINDOW_BYTES}")
        if stream.owed >= HALF:
            self._transport.say(credit(stream.number, stream.owed))
            stream.owed = 0
        if stream.broken:
            self._refuse(stream)
        self._watch(stream)

    # --- From a socket to the other side ---

    def _serve(self, stream: RelayStream, event: int) -> None:
        if event & POLLOUT:
            stream.flush()
            self._written(stream)
        if event & (POLLIN | POLLHUP) and stream.reads and stream.credit > 0 and stream.file is None:
            self._read(stream)
        if event & POLLHUP and not stream.reads:  # both directions are shut: the other end is closed
            self._refuse(stream)
        self._watch(stream)

    def _read(self, stream: RelayStream) -> None:
        if stream.channel is None:
            self._read_bytes(stream)
            return
        try:
            frame = stream.channel.receive(NOWAIT)
        except BlockingIOError:
            return
        except (OSError, ProtocolError, EOFError) as error:
            if not is_short_of_memory(error):  # then the poller brings the stream again
                self._end(stream)
            return
        try:
            self._read_frame(stream, frame)
        except (OSError, ProtocolError):
            self._end(stream)

    def _read_bytes(self, stream: RelayStream) -> None:
        credit = stream.credit
        try:
            count = stream.sock.recv_into(self._room, PIECE if credit > PIECE else credit, NOWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if is_short_of_memory(error):
                return
            count = 0
        if not count:
            self._end(stream)
            self._watch(stream)
            return
        stream.credit = credit - count
        self._transport.say(pack(DATA, stream.number, count) + self._room[:count])
        if credit == count:
            self._watch(stream)

    def _read_frame(self, stream: RelayStream, frame: Frame | None) -> None:
        if frame is None:
            self._end(stream)
            return
        if frame.kind == FORK:
            stream.forks += 1
            self.asked = self.asked or bool(frame.body)  # attributes: there may be a function among them
            if LOST_DESCRIPTOR in frame.fds:
                _refuse_fork(stream, frame.fds)
                return
        if frame.kind & ~IN_FILE in (START, PROGRAM):
            self.started.add(stream.number + NEXT)  # the status stream was opened just after the control stream
        elif frame.kind & ~IN_FILE in STEPS:
            self.asked = True
        fds = [*frame.fds]
        file = fds.pop() if frame.kind & IN_FILE else -1
        body = self._packed(frame, [self._carry(fd, at, frame.kind) for at, fd in enumerate(fds)])
        if frame.kind & ~IN_FILE in LAST_FRAMES:
            stream.channel = None
        if file >= 0:
            self._files.add(stream)
            stream.file = RelayFile(file, os.fstat(file).st_size, body)
            self._send_file(stream)
        else:
            self._send_frame(stream, body)

    def _carry(self, fd: int, place: int, kind: int) -> int:
        """Return the number of a new stream for a descriptor.

        Return -1, and close the descriptor, for a lifeline, because each side has its own, and for any descriptor that
        such a frame should not bring.
        """
        mode = os.fstat(fd).st_mode if fd >= 0 else 0
        if S_ISSOCK(mode) and (kind != FORK or place <= STATUS):
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
            return self.open(sock, place if kind == FORK else PLAIN).number
        if S_ISFIFO(mode) and kind == EXECUTING:
            return self.open(RelayPipe(fd), PLAIN).number
        close_all((fd,))
        return -1

    @staticmethod
    def _packed(frame: Frame, numbers: Sequence[int]) -> bytes:
        carried = [NUMBER.pack(number) for number in numbers if number >= 0]
        header = FRAME_HEADER.pack(FRAME_VERSION, frame.kind, len(carried), len(frame.body), frame.value)
        return b"".join((header, *carried, frame.body))

    def _send_frame(self, stream: RelayStream, body: bytes) -> None:
        count = FRAME_HEADER.unpack_from(body)[2]
        stream.credit -= len(body) - count * NUMBER.size
        self.say(FRAME, stream.number, body)

    def _send_file(self, stream: RelayStream) -> None:
        """Send as much of a stream's file as credit and congestion allow, and then the frame that it belongs to."""
        file = stream.file
        while file is not None and stream.credit > 0 and self._transport.size <= CONGESTED:
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

    def end_streams(self) -> None:
        """Write to the sockets what has arrived for them, and close them; the connection has ended."""
        for fd in {self._transport.incoming, self._transport.outgoing}:
            self.forget(fd)
        for stream in list(self.streams.values()):
            stream.refuse()
            stream.stop()
            self._watch(stream)
        while self.streams:
            for fd, event in self._poller.wait(-1):
                if (writer := self._by_fd.get(fd)) is not None:
                    writer.flush()
                    self._watch(writer)
                elif fd in self._actions:
                    self._actions[fd](event)

    def _end(self, stream: RelayStream) -> None:
        if stream.reads:
            stream.reads = False
            self.say(EOF, stream.number)

    def _refuse(self, stream: RelayStream) -> None:
        """Tell the other side that nobody reads this stream, so that writers there get an error."""
        stream.give_up()
        stream.broken = False
        self.say(STOP, stream.number)

    def _watch(self, stream: RelayStream) -> None:
        """Watch a stream for the events that it can handle now; close it if it is finished."""
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


def _refuse_fork(stream: RelayStream, fds: Sequence[int]) -> None:
    """Report, in place of the template, that a fork failed because this relay has no descriptors for its sockets."""
    failure = Failure("fork", "", DescriptorsLostError()).pack()
    if fds[0] < 0:
        stream.put_frame(Frame(LOST, stream.forks - 1, failure))
    else:
        control = RelayStream(0, _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0]), CONTROL)
        control.put_frame(Frame(FAILED, 0, failure))
        control.close()
    close_all(fds[1:])


def settle_in() -> None:
    """Prepare this process for relaying alone.

    Raise its limit of descriptors as far as allowed, because it needs two for each process, and exclude everything
    loaded so far from garbage collection.
    """
    import gc
    import resource

    gc.freeze()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
