"""The connection of a relay as a line for bytes: what waits to be sent, and whether the other side lives."""

from __future__ import annotations

import os
from select import POLLIN, POLLOUT, poll
from time import monotonic

from .protocol import BEAT, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .poller import Poller

MAX_WAITING = 16 << 20  # bytes that wait for a side that does not read: it is given up then
CONGESTED = 256 << 10  # bytes that wait; until they are sent nothing more should be added
READ = 256 << 10  # bytes to read at once
BEATS = 4  # in the time after which silence means death
TICKS = 3 * BEATS  # in that time: so often it is looked whether one is due


class LostError(Exception):
    """The connection is gone, or of no use any more; the text says why."""


class Line:
    """The two descriptors, which may be one, and do not block. Whoever waits for them does so with ``poller``.

    ``now`` is the time of the present step, which its owner sets; ``tick`` is for how long it may wait at most. Every
    method raises LostError.
    """

    __slots__ = (
        "_heard",
        "_keep_alive",
        "_look_at",
        "_poller",
        "_room",
        "_said",
        "_waits",
        "incoming",
        "now",
        "out",
        "outgoing",
        "size",
        "tick",
    )

    def __init__(self, incoming: int, outgoing: int, keep_alive: float, poller: Poller) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.tick = keep_alive / TICKS  # seconds
        self.out: list[bytes | memoryview] = []  # what waits to be sent
        self.size = 0  # bytes of that
        self.now = self._heard = self._said = self._look_at = monotonic()
        self._keep_alive = keep_alive
        self._room = memoryview(bytearray(READ))  # for what is read: new memory for each piece would cost more
        self._waits = False  # it takes nothing now
        self._poller = poller

    def say(self, data: bytes) -> None:
        """Have this sent with the next ``write``."""
        self.out.append(data)
        self.size += len(data)
        if self.size > MAX_WAITING:
            raise LostError(f"{self.size} bytes wait for the other side, which does not read")

    def write(self) -> bool:
        """Send what it takes; whether that was everything."""
        data = self.out[0] if len(self.out) == 1 else b"".join(self.out)
        try:
            sent = os.write(self.outgoing, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LostError(f"it was closed: {error.strerror}") from None
        self._said = self.now
        self.size = len(data) - sent
        self.out = [memoryview(data)[sent:]] if self.size else []
        if self._waits != bool(self.size):
            self._waits = not self._waits
            wanted = POLLIN if self.incoming == self.outgoing else 0
            self._poller.change(self.outgoing, wanted | POLLOUT if self._waits else wanted)
        return not self.size

    def read(self) -> bytes:
        """Return what has come; no bytes where nothing has."""
        try:
            count = os.readv(self.incoming, (self._room,))
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LostError(f"it was closed: {error.strerror}") from None
        if not count:
            raise LostError("it was closed by the other side")
        self._heard = self.now
        return bytes(self._room[:count])

    def broken(self, event: int) -> None:
        """Something has happened to ``outgoing`` that is not room for more."""
        if not event & POLLOUT:
            raise LostError("nobody reads it on the other side")

    def wait(self) -> bool:
        """Wait for this alone; whether something has come."""
        poller = poll()
        poller.register(self.incoming, POLLIN)
        poller.register(self.outgoing, POLLOUT | (POLLIN if self.incoming == self.outgoing else 0))
        ready = dict(poller.poll(self.tick * 1000))
        self.now = monotonic()
        return bool(ready.get(self.incoming, 0) & ~POLLOUT)

    def look(self) -> None:
        """Give up a side of which nothing is heard, and let it hear of this one."""
        if self.now < self._look_at:
            return
        self._look_at = self.now + self.tick
        if self.now - self._heard > self._keep_alive:
            raise LostError(f"nothing has come over it for {self._keep_alive:g} seconds")
        if not self.out and self.now - self._said >= self._keep_alive / BEATS:
            self.say(message(BEAT, 0))
