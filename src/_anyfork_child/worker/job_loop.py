"""The job loop of a worker of a pool: the owner may take back jobs that have not begun.

The owner sends several jobs ahead, so that a worker never waits for the next one. For each job behind another one
(HELD), a permit, which is the number of the job, is in a pipe that the owner can read, too. The side that reads the
permit has the job: the worker to begin it, the owner to give it to another worker. So no job is stuck behind a long
one, and the owner of a worker that has died knows for certain which jobs had not begun. The owner writes the permit
before it sends the job: if the worker finds no permit, the owner has taken back all jobs that the worker holds. The
first job after those is held, too: otherwise the worker would find the permit of a later job before it has begun this
one, and the owner could not take back the later job. On another machine there are no permits, and no job is held.

A concurrent worker of a pool runs worker.async_loop instead.
"""

from __future__ import annotations

from _pickle import loads
from collections import deque
from fcntl import F_GETOWN, fcntl
from os import read
from sys import byteorder
from time import monotonic_ns

from ..values.encode import INLINE
from ..values.scalars import FORMAT, SCALARS, dump_scalars, load_plain
from ..wire.call_messages import (
    BAD_RESULT,
    CALL,
    CHUNK,
    CHUNKS,
    FORGET,
    FUNCTION,
    HELD,
    ITEMS,
    KEYWORDS,
    MEASURE,
    RAISED,
    RESULT,
    SMALL_CALL,
    SMALL_KEYWORDS,
    VALUE,
)
from ..wire.channel import close_all
from .loop import UNRESOLVED, Loop, begin, pack
from .server import NobodyListensError, apply, handle_interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from ..values.decode import Descriptor
    from ..wire import call_messages
    from .server import WorkerServer

    # Its number, its kind, the number of its function, flags, its arguments, descriptors.
    Job: TypeAlias = tuple[int, int, int, int, Any, Sequence[int]]

LARGEST_TIME = (1 << 32) - 2  # the most that the detail of a result can hold: twice the time in units of 1024 ns


def serve(channel: socket.socket, *given: Any) -> None:
    """Run this process as a worker of a pool; the arguments are those of worker.loop.serve."""
    server, concurrency, backend, permits, title = begin(channel, given)
    if concurrency is not None:
        from .async_loop import serve_concurrently

        serve_concurrently(server, backend)
        return
    loop = JobLoop(server, permits)
    if title is not None:
        title.follow(loop, apply, run_chunk)
    loop.run()


def run_chunk(function: Callable[..., Any], chunk: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the results of one chunk of a map."""
    return [function(*args) for args in chunk]


class JobLoop(Loop):
    """The loop of a worker of a pool: it runs one job after the other, held jobs only with a permit."""

    def __init__(self, server: WorkerServer, permits: Descriptor | None) -> None:
        super().__init__(server)
        self._permits = -1 if permits is None else permits.fileno()  # without permits, no job is held
        self._held: deque[Job] = deque()

    def run(self) -> None:
        """Answer jobs until the owner closes the channel."""
        handle_interrupts(self._interrupted)
        held = self._held
        while self._read():
            while held:
                self._next_held()

    def _read(self) -> bool:
        """Read and process messages; return False at the end of the stream."""
        messages = self._serving.read()
        if messages is None:
            return False
        for message in messages:
            self._take(message)
        return True

    def _take(self, message: call_messages.Message) -> None:
        kind, number, detail, flags, body, fds = message
        if detail & HELD:
            self._hold(kind, number, detail ^ HELD, flags, body, fds)
        elif kind == FUNCTION:
            self._serving.define(number, body)
        elif kind == VALUE:
            self._serving.keep(number, detail, flags, body, fds)
        elif kind == FORGET:
            self._serving.forget(number)
        elif kind == MEASURE:
            self._held.append((number, kind, detail, flags, body, fds))  # after the jobs before it
        else:
            self._drop_held()  # a job without HELD begins at once: the owner has taken back any job held here
            if kind in (ITEMS, CHUNKS):
                for place, item in enumerate(loads(body)):
                    self._run(number + place, kind, detail, flags, item, fds)
            else:
                self._run(number, kind, detail, flags, body, fds)

    def _hold(self, kind: int, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        if kind in (ITEMS, CHUNKS):
            self._held.extend([(number + n, kind, detail, 0, value, ()) for n, value in enumerate(loads(body))])
        else:
            self._held.append((number, kind, detail, flags, body, fds))

    def _next_held(self) -> None:
        """Begin the next job that has a permit; if no permit is left, drop all held jobs, which the owner took back."""
        if self._held[0][1] == MEASURE:
            self._skip(self._held.popleft())
            return
        try:
            number = self._read_permit()
        except BlockingIOError:
            self._drop_held()
            return
        job = self._held.popleft()
        while job[0] != number:
            self._skip(job)
            job = self._held.popleft() if self._held else self._await_held()
        if job[1] == ITEMS and type(function := self._serving.functions[job[2]]) not in UNRESOLVED:
            self.answer(number, function, job[4])  # type: ignore[arg-type]  # no name any more
        else:
            self._run(*job)

    def _read_permit(self) -> int:
        """Return the next permit.

        Raises BlockingIOError if there is none, and ChannelLostError if a function has closed or replaced the pipe.
        """
        try:
            if fcntl(self._permits, F_GETOWN) != self._serving.claimant:  # a function has replaced the descriptor
                self._serving.check_descriptor(self._permits)
            return int.from_bytes(read(self._permits, 4), byteorder)
        except BlockingIOError:
            raise
        except OSError:
            self._serving.check_descriptor(self._permits)
            raise

    def _await_held(self) -> Job:
        """Wait for the next held job, whose permit was read before the job arrived; return it.

        Raises NobodyListensError at the end of the stream.
        """
        while not self._held:
            if not self._read():
                raise NobodyListensError(0)
        return self._held.popleft()

    def _drop_held(self) -> None:
        while self._held:
            self._skip(self._held.popleft())

    def _skip(self, job: Job) -> None:
        """Skip a job that the owner has taken back. A request for the size of this process, after it, stays."""
        number, kind, detail, _, _, fds = job
        if kind == MEASURE:
            self._serving.send_size(number, detail)
        else:
            close_all(fds)

    def _run(self, number: int, kind: int, detail: int, flags: int, body: Any, fds: Sequence[int]) -> None:
        if kind in (CALL, KEYWORDS, CHUNK):
            self._run_encoded(number, kind, detail, flags, body, fds)
            return
        try:
            function = self._serving.function(detail)
        except BaseException as error:  # decoding a function by value may raise anything
            self._serving.refuse(number, error)
            return
        if kind == SMALL_CALL:
            self.answer(number, function, load_plain(body))
        elif kind == SMALL_KEYWORDS:
            self.answer(number, apply, (function, *loads(body)))
        elif kind == ITEMS:
            self.answer(number, function, body)
        else:
            self.answer(number, run_chunk, (function, body))

    def _run_encoded(self, number: int, kind: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        try:
            function, *values = self._serving.decode(detail, flags, body, fds)
        except BaseException as error:  # decoding runs code of the values, which may raise anything
            self._serving.refuse(number, error)
            return
        if kind == CALL:
            self.answer(number, function, values)
        else:
            self.answer(number, run_chunk if kind == CHUNK else apply, (function, *values))

    def answer(self, number: int, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """Call a function with its arguments, and send its result or exception, even SystemExit."""
        server = self._serving
        began = monotonic_ns()
        try:
            server.number = number
            result = function(*args)
            server.number = 0
        except BaseException as error:
            server.number = 0
            server.send_failure(number, error)
            return
        took = (monotonic_ns() - began >> 10) + 1 << 1
        if took > LARGEST_TIME:
            took = LARGEST_TIME
        if type(result) in SCALARS and server.serializer is None:
            body = dump_scalars(result, FORMAT)
            if len(body) <= INLINE:
                server.send(pack(len(body), number, took, RESULT, 0, 0) + body)
                return
        self._send(number, took, result)

    def _send(self, number: int, took: int, result: Any) -> None:
        server = self._serving
        server.took = took
        try:
            server.send_value(RESULT, number, result)
        except NobodyListensError:
            raise
        except BaseException as error:  # encoding runs code of the result, which may raise anything
            server.send_error(number, RAISED if isinstance(error, SystemExit) else BAD_RESULT, error)
        finally:
            server.took = 0
