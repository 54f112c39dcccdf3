"""The default template: one for the program, started when first needed and replaced when it is gone."""

from __future__ import annotations

import atexit
import os
from _thread import RLock

from .._system.locks import locked
from .._system.this_process import reaper
from .launch import initialise, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .link import Link

    Step: TypeAlias = Callable[[Link], None]


class DefaultTemplate:
    """The holder of the default template's link, for one process and one set of credentials; another process or other
    credentials get a new template.
    """

    def __init__(self) -> None:
        self.lock: RLock = RLock()  # reentrant: a signal handler that uses it may run at any point
        self._link: Link | None = None
        self._identity: tuple[object, ...] = ()
        self._unused_copy = False  # it gets the program's path at its first use, as a template started then would
        self._steps: list[Step] = []  # what each new template does first

    def get(self) -> Link:
        """Return the link to the template; start one if there is none. Raises LaunchError."""
        if reaper.leaving:
            reaper.reap()
        link = self._link
        if link is not None and not self._unused_copy and self._identity == _identity():
            return link
        return self._get_ready()

    @locked
    def _get_ready(self) -> Link:
        self._check_identity()
        if self._link is None:
            link = self._launch()
            if self._link is None:
                self._keep(link, unused_copy=False)
            else:  # a signal handler has started one meanwhile
                link.close_template()
        template = self._link
        assert template is not None
        if self._unused_copy:
            self._unused_copy = False
            initialise(template)
        return template

    def _launch(self) -> Link:
        """Start a template with its steps. It is not kept if one of them fails or is interrupted."""
        link = launch()
        for step in self._steps:
            step(link)
        return link

    @locked
    def begin_with(self, step: Step) -> None:
        """Queue a step in this default template, and in each that replaces it. Raises LaunchError."""
        link = self.get()
        self._steps.append(step)
        step(link)

    @property
    def is_copy(self) -> bool:
        """True when the template is a copy of this program (anyfork.early), and not an interpreter of its own."""
        link = self._link
        return link is not None and self._identity == _identity() and link.receiver.main is not None

    @locked
    def replace(self, link: Link) -> None:
        """Use this copy of the program as the default template from now on."""
        self._let_go()
        self._keep(link, unused_copy=True)

    @locked
    def discard(self, link: Link) -> None:
        """Let go of a template that is known to be gone."""
        if self._link is link:
            self._let_go()

    def _keep(self, link: Link, *, unused_copy: bool) -> None:
        self._unused_copy, self._identity = unused_copy, _identity()
        self._link = link
        link.hold()

    def _check_identity(self) -> None:
        if self._link is not None and self._identity != _identity():
            self._let_go()

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None and not link.foreign:  # otherwise its sockets and its process belong to another process
            link.close_template()

    def renew(self) -> None:
        """Replace the lock. Runs in a forked copy of the owner, where the thread that held the lock does not exist."""
        self.lock = RLock()


def _identity() -> tuple[object, ...]:
    return os.getpid(), os.getuid(), os.geteuid(), os.getgid(), os.getegid()


default_template = DefaultTemplate()
atexit.register(default_template._let_go)  # otherwise its socket would be reported as never closed
os.register_at_fork(after_in_child=default_template.renew)
