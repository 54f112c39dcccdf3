"""Raw descriptors with an owner.

No signal handler runs inside of a function written in C, nor between a loop in C over such functions and the assignment
of what it gives. So a descriptor is put into its owner by the call that makes it, as in ``Owned(map(os.dup, (fd,)))``.
A ``map`` is used up by that: what stands in one is called once, whatever interrupts its caller or enters it again.
"""

from __future__ import annotations

from os import close

from _anyfork_child._descriptors import FIRST, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Owned:
    """Descriptors that are closed once: by ``close``, or with the last reference to this object."""

    __slots__ = ("_closing", "fds")

    def __init__(self, made: Iterable[int] = ()) -> None:
        self.fds: list[int] = []
        self._closing = map(close, self.fds)
        self.fds.extend(made)

    def lifted(self) -> Owned:
        """Return the owner of the same files with numbers above those of the standard streams. Raises OSError."""
        return self if min(self.fds, default=FIRST) >= FIRST else Owned(map(duplicate, self.fds))

    def close(self) -> None:
        """Close them. Closing twice is harmless."""
        any(self._closing)

    def __del__(self) -> None:
        any(self._closing)
