"""Raw descriptors with an owner. Used by both sides.

No signal handler runs inside a function written in C, nor between a loop in C over such functions and the assignment of
its result. So the call that makes a descriptor also puts it into its owner, as in ``Owned(map(os.dup, (fd,)))``. This
uses the ``map`` up: its calls are made once, even if a signal handler interrupts the caller or enters it again.
"""

from __future__ import annotations

from .descriptors import FIRST, duplicates
from .platform import epoll, kqueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# A class written in C whose objects close any descriptor when they are deleted, without a warning. A destructor in
# Python could lose an interrupt, because the interpreter drops the exceptions of destructors.
# macOS has no epoll, but objects of its kqueue hold a descriptor just as well.
_Holder: Any = epoll or kqueue


class Owned:
    """Descriptors that are closed once: by ``close``, or with the last reference to this object.

    ``fds`` are the open ones.
    """

    __slots__ = ("_held", "fds")

    def __init__(self, made: Iterable[int] = ()) -> None:
        self._held = [*map(_Holder.fromfd, made)]
        self.fds: list[int] = [*map(_Holder.fileno, self._held)]

    @property
    def fd(self) -> int:
        """The number of the only descriptor. Raises ValueError once it is closed."""
        [fd] = self.fds
        return fd

    def lifted(self) -> Owned:
        """Return the owner of the same files with numbers above those of the standard streams. Raises OSError."""
        return Owned(duplicates(self.fds)) if self.fds and min(self.fds) < FIRST else self

    def split(self) -> list[Owned]:
        """Return an owner of each descriptor; this object has none afterwards."""
        owners = [Owned() for _ in self._held]
        for owner, holder, fd in zip(owners, self._held, self.fds, strict=True):
            owner._held, owner.fds = [holder], [fd]
        self._held, self.fds = [], []
        return owners

    def close(self) -> None:
        """Close the descriptors. Closing twice is harmless."""
        self.fds = []
        any(map(_Holder.close, self._held))
