"""The default template: one for the program, started at its first need and replaced when it is gone."""

from __future__ import annotations

import atexit
import os
from _thread import allocate_lock

from ._launch import initialise, launch
from ._offspring import offspring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._link import Link


class DefaultTemplate:
    """Holds the link to it. Belongs to one process and one set of credentials; in any other it starts anew."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._link: Link | None = None
        self._identity: tuple[object, ...] = ()
        self._unused_copy = False  # it gets the program's path at its first use, as one that is started then

    def get(self) -> Link:
        """The template, started if there is none. Raises LaunchError."""
        if offspring.leaving:
            offspring.reap()
        with self._lock:
            self._check_identity()
            if self._link is None:
                self._keep(launch(), unused_copy=False)
            assert self._link is not None
            if self._unused_copy:
                self._unused_copy = False
                initialise(self._link)
            return self._link

    @property
    def is_copy(self) -> bool:
        """Whether it is a copy of this program (anyfork.early), and no interpreter of its own."""
        with self._lock:
            self._check_identity()
            return self._link is not None and self._link.receiver.main is not None

    def replace(self, link: Link) -> None:
        """Use this copy of the program from now on."""
        with self._lock:
            self._let_go()
            self._keep(link, unused_copy=True)

    def discard(self, link: Link) -> None:
        """This one is known to be gone."""
        with self._lock:
            if self._link is link:
                self._let_go()

    def _keep(self, link: Link, *, unused_copy: bool) -> None:
        self._link = link
        self._unused_copy = unused_copy
        self._identity = _identity()

    def _check_identity(self) -> None:
        if self._link is not None and self._identity != _identity():
            self._let_go()

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None and not link.foreign:  # or its sockets and its process are another process's business
            link.close_template()

    def renew(self) -> None:
        """Runs in a forked copy of the owner: whatever thread held the lock is not there."""
        self._lock = allocate_lock()


def _identity() -> tuple[object, ...]:
    return os.getpid(), os.getuid(), os.geteuid(), os.getgid(), os.getegid()


default_template = DefaultTemplate()
atexit.register(default_template._let_go)  # or its socket would be reported as never closed
os.register_at_fork(after_in_child=default_template.renew)
