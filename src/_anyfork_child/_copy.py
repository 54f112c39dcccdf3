"""How a copy of the running program becomes a template: it never goes back into the frames of the program.

Runs in the copy. The frames stay where they are, below, and so do all objects of the program: what is not taken apart
has no destructors that run, and ``finally`` blocks that are never reached do nothing.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os
from fcntl import F_DUPFD_CLOEXEC, fcntl

from . import _main
from .__main__ import open_stdio, run
from ._reports import to_nobody
from ._settle import resets
from ._signals import default_actions, handled_signals
from ._template import Template
from ._title import Title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import NoReturn

    from ._main import Names

FIRST = 3  # the lowest descriptor that is not a standard stream


def become_template(
    control: int, lifeline: int, flags: int, owner: int, main: Names, unwanted: Collection[int]
) -> NoReturn:
    """Be a template of ``owner``, and what takes it over; do not return.

    ``main`` is what both have in ``__main__``, ``unwanted`` are descriptors that the owner keeps for itself.
    """
    _leave_program(unwanted)
    _main.inherited.update(main)
    control, lifeline = (fcntl(fd, F_DUPFD_CLOEXEC, FIRST) if fd < FIRST else fd for fd in (control, lifeline))
    open_stdio()
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, control)
    template = Template(sock, lifeline, flags, to_nobody(), Title(owner))
    template.forks = 1  # so many the owner has counted: see anyfork._here
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    run(template)


def _leave_program(unwanted: Collection[int]) -> None:
    """Undo what would make code of the program run here: collections, exit handlers, signal handlers, descriptors."""
    gc.freeze()
    default_actions(handled_signals())
    _give_up(unwanted)
    for reset in resets():
        reset()


def _give_up(fds: Collection[int]) -> None:
    """Close descriptors that objects of the program go on to name: their numbers must not become anything else's."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        if fd != null:
            os.dup2(null, fd, False)
    if null not in fds:
        os.close(null)
