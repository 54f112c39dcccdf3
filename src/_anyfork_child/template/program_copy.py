"""The copy of the running program that becomes a template: it never returns into the frames of the program.

Runs in the copy. The frames stay on the stack below, and all objects of the program stay alive: no destructors run, and
``finally`` blocks are never reached.
"""

from __future__ import annotations

import _signal
import _socket
import atexit
import gc
import os
import sys
from types import ModuleType

from ..birth import exit as birth
from ..birth.last_words import to_nobody
from ..birth.title import Title
from ..values.objects_of_main import inherit
from ..wire import failure
from ..wire.descriptors import lift, open_stdio
from ..wire.signals import default_actions, handled_signals
from .fork_check import resets
from .template import Template
from .top_frame import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, NoReturn

    from ..values.objects_of_main import SharedMain

_kept: list[object] = []  # unused objects that must not be finalized in this process


def become_template(
    control: int, lifeline: int, flags: int, owner: int, main: SharedMain, unwanted: Collection[int], collects: bool
) -> NoReturn:
    """Run as a template of ``owner``, and then the call that takes it over; do not return.

    ``main`` describes the objects that both have in ``__main__``, ``unwanted`` are descriptors that the owner keeps for
    itself, and ``collects`` is True if garbage collection was enabled in the program.
    """
    birth.is_copy = True
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
    """Undo state of the program that would run its code in this process, or wait for it."""
    handled = handled_signals()
    _kept.extend(_signal.getsignal(number) for number in handled)
    default_actions((*handled, _signal.SIGCHLD))  # if SIGCHLD is ignored, no child can be waited for
    if atexit._ncallbacks():
        birth.fence()
    for reset in resets():
        reset()
    _finish_imports()
    failure.outer = sys.exc_info()[1]
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]  # the last one has none
    sys.setrecursionlimit(sys.getrecursionlimit() + depth)


def _finish_imports() -> None:
    """Mark the modules that were being imported as loaded and release their locks: their import never goes on here."""
    locks: Any = sys.modules["_frozen_importlib"]._module_locks
    for name, module in [*sys.modules.items()]:
        if not issubclass(type(module), ModuleType):
            continue
        spec = ModuleType.__getattribute__(module, "__dict__").get("__spec__")  # does not trigger lazy modules
        if spec is not None and getattr(spec, "_initializing", False):
            spec._initializing = False
            lock = locks[name]() if name in locks else None
            while lock is not None and lock.owner is not None:
                lock.release()


def _give_up(fds: Collection[int]) -> None:
    """Replace descriptors that objects of the program still refer to with the null device.

    Their numbers must not be reused for other files.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        if fd != null:
            os.dup2(null, fd, False)
    if null not in fds:
        os.close(null)
