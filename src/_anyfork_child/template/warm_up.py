"""The warm-up of a template: rehearsals of the birth of a process, before the first real fork.

A new process runs the code before the user's function once. Everything that the interpreter stores on the way
(specialised instructions, entries in its attribute cache) copies a page, anew in every process. After some rehearsals
in the template, it is stored before the fork. That saves a fifth of a start's page faults, and is done once per
interpreter.
"""

from __future__ import annotations

import _signal
import _socket
import os
from atexit import _ncallbacks as count_handlers
from sys import modules

from ..birth.exit import flush, run, wind_up
from ..birth.last_words import to_nobody
from ..wire.channel import close_all, public_socket
from ..wire.frames import FOLLOWED, HEADER, START, VERSION
from .fork_loop import become, serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..birth.title import Title
    from .state import TemplateState

ROUNDS = 20  # CPython specialises a function after 8 calls, and an instruction some executions later
SIGNALS = (_signal.SIGTERM, _signal.SIGINT)


def nothing(_channel: object) -> None:
    """Do nothing: the function of a rehearsal must not print, nor return a value, which would cause a warning."""


CALL = f"{__name__}:{nothing.__name__}".encode()


def rehearse(new_template: Callable[..., TemplateState], title: Title) -> None:
    """Rehearse the birth and start of a process, up to the call of its function and its end, with sockets made for it.

    Leaves only the interpreter's specialisations and caches.
    """
    handlers = [_signal.getsignal(number) for number in SIGNALS]
    # Exit handlers and threads of preloaded modules must not be touched now.
    last = (lambda _code: flush()) if count_handlers() or "threading" in modules else wind_up
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    try:
        for _ in range(ROUNDS):
            _once(new_template, title, last)
    finally:
        for number, handler in zip(SIGNALS, handlers, strict=True):
            _signal.signal(number, handler)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)


def _once(new_template: Callable[..., TemplateState], title: Title, last: Callable[[int], object]) -> None:
    first, first_far = _socket.socketpair()
    owner, far = _socket.socketpair()
    status, status_far = _socket.socketpair()
    line, held = os.pipe()
    trial = new_template(public_socket(first_far), line, 0, to_nobody(), title)
    trial.changed = False
    trial.make_children()
    children = trial.children
    assert children is not None
    become(trial, (far.detach(), status_far.detach(), os.dup(line)), os.pipe(), FOLLOWED, b"")
    owner.sendall(HEADER.pack(VERSION, START, 0, len(CALL), len(CALL)) + CALL)
    call = serve(trial)
    assert call is not None
    channel = call[1]
    run(call, trial.reports, last)
    children.forget_numbers()
    for sock in (first, owner, status, channel):
        sock.close()
    close_all((line, held, trial.reports))
