"""The job loop of a worker of an Executor: the owner may take back jobs that have not begun.

The owner sends several jobs ahead, so that a worker never waits for the next one. For each job behind another one
(HELD), a permit, which is the number of the job, is in a pipe that the owner can read, too. The side that reads the
permit has the job: the worker to begin it, the owner to give it to another worker. So no job is stuck behind a long
one, and the owner of a worker that has died knows for certain which jobs had not begun. The owner writes the permit
before it sends the job: if the worker finds no permit, the owner has taken back all jobs that the worker holds. The
first job after those is held, too: otherwise the worker would find the permit of a later job before it has begun this
one, and the owner could not take back the later job.
"""

from __future__ import annotations

from _pickle import loads
from collections import deque
from time import monotonic_ns

from ..values.encode import INLINE
from ..values.message import decode_values
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
    MEASURE,
    RAISED,
    RESULT,
    SMALL_CALL,
    SMALL_KEYWORDS,
    VALUE,
)
from ..wire.channel import close_all
from .loop import Loop, begin, pack
from .server import NobodyListensError, handle_interrupts

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

LONGEST = (1 << 32) - 2  # the longest time that the detail of a result can hold: twice the time in units of 1024 ns


def serve(channel: socket.socket, *given: Any) -> None:
    """Run this process as a worker of an Executor; the arguments are those of worker.loop.serve."""
    server, _, _, permits, title = begin(channel, given)
    loop = JobLoop(server, permits)
    if title is not None:
        title.follow(loop, apply, run_chunk)
    loop.run()


def run_chunk(function: Callable[..., Any], chunk: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the results of one chunk of a map."""
    return [function(*args) for args in chunk]


def apply(function: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Call a function with positional and keyword arguments."""
    return function(*args, **keywords)


class JobLoop(Loop):
    """The loop of a worker of an Executor: it runs one job after the other, held jobs only with a permit."""

    def __init__(self, server: WorkerServer, permits: Descriptor | None) -> None:
        super().__init__(server, permits)
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
            self._serving.send_size(number, detail)
        else:
            self._drop_held()  # a job without HELD begins at once: the owner has taken back any job held here
            if kind in (ITEMS, CHUNKS):
                (body,) = loads(body)
            self._run(number, kind, detail, flags, body, fds)

    def _hold(self, kind: int, number: int, detail: int, flags: int, body: bytes, fds: Sequence[int]) -> None:
        if kind in (ITEMS, CHUNKS):
            self._held.extend([(number + n, kind, detail, 0, value, ()) for n, value in enumerate(loads(body))])
        else:
            self._held.append((number, kind, detail, flags, body, fds))

    def _next_held(self) -> None:
        """Begin the next job that has a permit; if no permit is left, drop all held jobs, which the owner took back."""
        try:
            number = self._read_permit()
        except BlockingIOError:
            self._drop_held()
            return
        job = self._held.popleft()
        while job[0] != number:
            close_all(job[5])
            job = self._held.popleft() if self._held else self._await_held()
        if job[1] == ITEMS and callable(function := self._serving.functions[job[2]]):
            self.answer(number, function, job[4])
        else:
            self._run(*job)

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
            close_all(self._held.popleft()[5])

    def _run(self, number: int, kind: int, detail: int, flags: int, body: Any, fds: Sequence[int]) -> None:
        if kind == CALL:
            self._call(number, detail, flags, body, fds)
            return
        try:
            function = self._serving.function(detail)
        except BaseException as error:  # decoding a function by value may raise anything
            close_all(fds)
            self._serving.refuse(number, error)
            return
        if kind == SMALL_CALL:
            self.answer(number, function, load_plain(body))
        elif kind == SMALL_KEYWORDS:
            self.answer(number, apply, (function, *loads(body)))
        elif kind == ITEMS:
            self.answer(number, function, body)
        elif kind == CHUNKS:
            self.answer(number, run_chunk, (function, body))
        else:
            try:
                values = decode_values(flags, body, fds)
            except BaseException as error:  # decoding runs code of the values, which may raise anything
                self._serving.refuse(number, error)
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
        if took > LONGEST:
            took = LONGEST
        if type(result) in SCALARS:
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
