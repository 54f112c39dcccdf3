"""Raw descriptors with an owner.

No signal handler runs inside a function written in C, nor between a loop in C over such functions and the assignment of
its result. So the call that makes a descriptor also puts it into its owner, as in ``Owned(map(os.dup, (fd,)))``. This
uses the ``map`` up: its calls are made once, even if a signal handler interrupts the caller or enters it again.
"""

from __future__ import annotations

import _socket
from itertools import chain

from _anyfork_child.wire.descriptors import FIRST, duplicates

from .polling import holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    Socket = TypeVar("Socket", bound=socket.socket)

# A class written in C whose objects close any descriptor when they are deleted, without a warning. A destructor in
# Python could lose an interrupt, because the interpreter drops the exceptions of destructors.
_Holder = holder()


class Owned:
    """Descriptors that are closed once: by ``close``, or with the last reference to this object."""

    __slots__ = ("_held",)

    def __init__(self, made: Iterable[int] = ()) -> None:
        self._held = [*map(_Holder.fromfd, made)]

    @property
    def fds(self) -> list[int]:
        """The open descriptors."""
        return [one.fileno() for one in self._held if not one.closed]

    def lifted(self) -> Owned:
        """Return the owner of the same files with numbers above those of the standard streams. Raises OSError."""
        fds = self.fds
        return self if min(fds, default=FIRST) >= FIRST else Owned(duplicates(fds))

    def close(self) -> None:
        """Close the descriptors. Closing twice is harmless."""
        any(map(_Holder.close, self._held))


def unopened(kind: type[Socket]) -> Socket:
    """Return a socket object without a descriptor, for ``hand_on``."""
    sock = kind.__new__(kind)
    if isinstance(sock, _socket.socket):
        sock._io_refs, sock._closed = 0, False  # type: ignore[attr-defined]  # as socket.socket.__init__ does
    return sock


def hand_on(sock: _socket.socket, to: socket.socket, *attributes: tuple[object, str, object]) -> Iterator[None]:
    """Return the steps, for ``any``, that move a Unix socket to another object and set attributes of objects.

    No interrupt splits the steps, unless a library has replaced ``socket.socket`` by a class of its own.
    """
    open_by = _socket.socket.__init__ if isinstance(to, _socket.socket) else type(to).__init__
    descriptor = map(_socket.socket.detach, (sock,))
    moved = map(open_by, (to,), (_socket.AF_UNIX,), (_socket.SOCK_STREAM,), (0,), descriptor)
    return chain(moved, map(setattr, *zip(*attributes, strict=True)))
