"""The transport between two relays: two descriptors, polled with many others, with an output buffer and keep-alive.

A relay waits with epoll if there is one, because its cost does not grow with the number of descriptors.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from select import POLLIN, POLLOUT, poll
from time import monotonic

from ..wire.channel import is_short_of_memory
from ..wire.platform import epoll
from .protocol import BEAT, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Sequence


MAX_WAITING = 16 << 20  # bytes in the output buffer at which a side that does not read is given up
CONGESTED = 256 << 10  # bytes in the output buffer above which nothing should be added
READ = 256 << 10  # bytes to read at once
BEATS = 4  # keep-alive messages per ``keep_alive`` seconds, after which silence means a lost connection
TICKS = 3 * BEATS  # checks per ``keep_alive`` seconds for a due keep-alive message


class LostError(Exception):
    """Raised when the connection is closed or no longer usable; the text gives the reason."""


def _check_open(error: OSError) -> None:
    """Wait a moment if the kernel had no memory for a read or a write. Raises LostError for all other errors."""
    if not is_short_of_memory(error):
        raise LostError(f"it was closed: {error.strerror}") from None


class Transport:
    """The two non-blocking descriptors of a connection, which may be the same one; ``poller`` waits for them.

    ``now`` is the time of the current step, which the user of the line sets; ``tick`` is the longest wait in seconds.
    Every method raises LostError.
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
        self.out: list[bytes | memoryview] = []  # the output buffer
        self.size = 0  # bytes in the output buffer
        self.now = self._heard = self._said = self._look_at = monotonic()
        self._keep_alive = keep_alive
        self._room = memoryview(bytearray(READ))  # the buffer for reading: new memory for each piece would cost more
        self._waits = False  # whether ``outgoing`` takes nothing now
        self._poller = poller

    def say(self, data: bytes) -> None:
        """Add bytes to the output buffer; the next ``write`` sends them."""
        self.out.append(data)
        self.size += len(data)
        if self.size > MAX_WAITING:
            raise LostError(f"{self.size} bytes wait for the other side, which does not read")

    def write(self) -> bool:
        """Send as much as the connection takes; return whether the output buffer is empty."""
        data = self.out[0] if len(self.out) == 1 else b"".join(self.out)
        try:
            sent = os.write(self.outgoing, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            _check_open(error)
            sent = 0
        self._said = self.now
        self.size = len(data) - sent
        self.out = [memoryview(data)[sent:]] if self.size else []
        if self._waits != bool(self.size):
            self._waits = not self._waits
            wanted = POLLIN if self.incoming == self.outgoing else 0
            self._poller.change(self.outgoing, wanted | POLLOUT if self._waits else wanted)
        return not self.size

    def read(self) -> bytes:
        """Return the bytes that have arrived; no bytes if none have."""
        try:
            count = os.readv(self.incoming, (self._room,))
        except BlockingIOError:
            return b""
        except OSError as error:
            _check_open(error)
            return b""
        if not count:
            raise LostError("it was closed by the other side")
        self._heard = self.now
        return bytes(self._room[:count])

    def broken(self, event: int) -> None:
        """Raise LostError for any event at ``outgoing`` but room for more bytes."""
        if not event & POLLOUT:
            raise LostError("the other side does not read it any more")

    def wait(self) -> bool:
        """Wait for the connection alone, at most one tick; return whether bytes have arrived."""
        poller = poll()
        poller.register(self.incoming, POLLIN)
        poller.register(self.outgoing, POLLOUT | (POLLIN if self.incoming == self.outgoing else 0))
        ready = dict(poller.poll(self.tick * 1000))
        self.now = monotonic()
        return bool(ready.get(self.incoming, 0) & ~POLLOUT)

    def look(self) -> None:
        """Give up a silent other side, and send it a keep-alive message if one is due."""
        if self.now < self._look_at:
            return
        self._look_at = self.now + self.tick
        if self.now - self._heard > self._keep_alive:
            raise LostError(f"nothing was received over it for {self._keep_alive:g} seconds")
        if not self.out and self.now - self._said >= self._keep_alive / BEATS:
            self.say(message(BEAT, 0))


EVENTS = 64  # most events per call: epoll allocates memory for all of them at each call


class Poller(ABC):
    """A set of watched descriptors. Events are those of poll; epoll uses the same values."""

    add: Callable[[int, int], object]
    change: Callable[[int, int], object]
    remove: Callable[[int], object]

    @abstractmethod
    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        """Wait up to ``seconds``. Return the descriptors with events, each with its events."""


class EpollPoller(Poller):
    """The poller of Linux, by epoll."""

    def __init__(self) -> None:
        events: select.epoll = epoll()
        self.add, self.change, self.remove = events.register, events.modify, events.unregister
        self._poll = events.poll

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        return self._poll(seconds, EVENTS)


class PollPoller(Poller):
    """The poller of every other system, by poll."""

    def __init__(self) -> None:
        events = poll()
        self.add = self.change = events.register
        self.remove = events.unregister
        self._poll = events.poll

    def wait(self, seconds: float) -> Sequence[tuple[int, int]]:
        return self._poll(seconds * 1000)


make_poller: Callable[[], Poller] = PollPoller if epoll is None else EpollPoller
