"""The floor of calls: pickles on a socketpair, answered by a loop in a forked process.

It encodes no descriptors and no errors, frames nothing, cancels nothing, and survives nothing. Nothing needs a frame,
because what is on its way at a time is less than one read takes, and the kernel cuts none of it.
"""

from __future__ import annotations

import os
import socket
from io import BytesIO
from operator import neg
from pickle import Unpickler, dumps, loads
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

IN_FLIGHT = 64
READ = 1 << 16
PROTOCOL = 5


class CallFloor:
    """Two forked processes: one answers one call after the other, one a whole read of them at once."""

    def __init__(self) -> None:
        self._single = _fork(answer_one)
        self._batching = _fork(answer_batches)

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        """A round trip."""
        self._single.sendall(dumps((function, (argument,)), PROTOCOL))
        return loads(self._single.recv(READ))

    def sequential(self, seconds: float) -> list[float]:
        """How many round trips one after the other, and the seconds that they took."""
        count = 0
        begin = perf_counter()
        while perf_counter() < begin + seconds:
            self.call(neg, 1)
            count += 1
        return [count, perf_counter() - begin]

    def in_flight(self, seconds: float) -> list[float]:
        """The same with 64 on their way: as many as were answered by one read go out by one send."""
        sock = self._batching
        count, sent = 0, IN_FLIGHT
        begin = perf_counter()
        sock.sendall(_requests(IN_FLIGHT))
        while count < sent:
            answered = sum(1 for _ in _unpickle(sock.recv(READ)))
            count += answered
            if perf_counter() < begin + seconds:
                sock.sendall(_requests(answered))
                sent += answered
        return [count, perf_counter() - begin]

    def close(self) -> None:
        """End the processes."""
        self._single.close()
        self._batching.close()


def _requests(count: int) -> bytes:
    return b"".join([dumps((neg, (1,)), PROTOCOL) for _ in range(count)])


def _unpickle(data: bytes) -> Iterator[Any]:
    """What is in these pickles."""
    file = BytesIO(data)
    while file.tell() < len(data):
        yield Unpickler(file).load()


def _fork(answer: Callable[[socket.socket], None]) -> socket.socket:
    mine, far = socket.socketpair()
    if os.fork() == 0:
        mine.close()
        answer(far)
        os._exit(0)
    far.close()
    return mine


# --- In the forked processes ------------------------------------------------------------------------------------


def answer_one(sock: socket.socket) -> None:
    """Answer one call after the other until the owner closes its end."""
    while data := sock.recv(READ):
        function, args = loads(data)
        sock.sendall(dumps(function(*args), PROTOCOL))


def answer_batches(sock: socket.socket) -> None:
    """Answer all the calls of a read by one send."""
    while data := sock.recv(READ):
        sock.sendall(b"".join([dumps(function(*args), PROTOCOL) for function, args in _unpickle(data)]))
