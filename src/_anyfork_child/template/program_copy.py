"""How a copy of the running program becomes a template: it never goes back into the frames of the program.

Runs in the copy. The frames stay where they are, below, and so do all objects of the program: what is not taken apart
has no destructors that run, and ``finally`` blocks that are never reached do nothing.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os
import sys
from types import ModuleType

from ..__main__ import run
from ..birth.last_words import to_nobody
from ..birth.title import Title
from ..values.shared_main import inherit
from ..wire import failure
from ..wire.descriptors import lift, open_stdio
from ..wire.signals import default_actions, handled_signals
from .fork_safety import resets
from .template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, NoReturn

    from ..values.shared_main import Main

_kept: list[object] = []  # what is not used any more, and must not be finalized here


def become_template(
    control: int, lifeline: int, flags: int, owner: int, main: Main, unwanted: Collection[int], collects: bool
) -> NoReturn:
    """Be a template of ``owner``, and what takes it over; do not return.

    ``main`` is what both have in ``__main__``, ``unwanted`` are descriptors that the owner keeps for itself, and
    ``collects`` says whether garbage was collected in the program.
    """
    gc.freeze()
    if collects:
        gc.enable()
    _leave_program()
    _give_up(unwanted)
    inherit(main)
    control, lifeline = map(lift, (control, lifeline))
    open_stdio()
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, control)
    template = Template(sock, lifeline, flags, to_nobody(), Title(owner))
    template.generation = 1  # it was forked
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    run(template)


def _leave_program() -> None:
    """Undo what would make code of the program run here, or wait for it."""
    handled = handled_signals()
    _kept.extend(_signal.getsignal(number) for number in handled)
    default_actions((*handled, _signal.SIGCHLD))  # where that is ignored, nobody could be waited for
    for reset in resets():
        reset()
    _finish_imports()
    failure.outer = sys.exc_info()[1]
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]  # the last one has none
    sys.setrecursionlimit(sys.getrecursionlimit() + depth)


def _finish_imports() -> None:
    """Modules that were being imported are loaded as far as they ever will be here. Nobody has to wait for the rest."""
    locks: Any = sys.modules["_frozen_importlib"]._module_locks
    for name, module in [*sys.modules.items()]:
        if not issubclass(type(module), ModuleType):
            continue
        spec = ModuleType.__getattribute__(module, "__dict__").get("__spec__")  # past modules that load when asked
        if spec is not None and getattr(spec, "_initializing", False):
            spec._initializing = False
            lock = locks[name]() if name in locks else None
            while lock is not None and lock.owner is not None:
                lock.release()


def _give_up(fds: Collection[int]) -> None:
    """Close descriptors that objects of the program go on to name: their numbers must not become anything else's."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        if fd != null:
            os.dup2(null, fd, False)
    if null not in fds:
        os.close(null)
