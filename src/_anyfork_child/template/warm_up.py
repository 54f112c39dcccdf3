"""Going through births in a template, before the first real one.

What a new process executes before user code it executes once, and everything that the interpreter writes down on the
way (specialised instructions, entries in its cache of attributes) is a page copied, in every process anew. Done here
some times, it is written down already when the template forks: a fifth of a start's page faults, once per interpreter.
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
from .template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..birth.title import Title

ROUNDS = 20  # CPython specialises a function after 8 calls, and an instruction some executions later
SIGNALS = (_signal.SIGTERM, _signal.SIGINT)


def nothing(_channel: object) -> None:
    """Be what is called: nothing that prints, or returns what nobody gets."""


CALL = f"{__name__}:{nothing.__name__}".encode()


def rehearse(title: Title) -> None:
    """Be born and started, with sockets made for it, up to the call of the function. Leaves nothing but experience."""
    handlers = [_signal.getsignal(number) for number in SIGNALS]
    # What preloads have registered for the end is not for now.
    last = (lambda _code: flush()) if count_handlers() or "threading" in modules else wind_up
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    try:
        for _ in range(ROUNDS):
            _once(title, last)
    finally:
        for number, handler in zip(SIGNALS, handlers, strict=True):
            _signal.signal(number, handler)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)


def _once(title: Title, last: Callable[[int], object]) -> None:
    first, first_far = _socket.socketpair()
    owner, far = _socket.socketpair()
    status, status_far = _socket.socketpair()
    line, held = os.pipe()
    understudy = Template(public_socket(first_far), line, 0, to_nobody(), title)
    understudy.changed = False
    understudy.make_children()
    children = understudy.children
    assert children is not None
    become(understudy, (far.detach(), status_far.detach(), os.dup(line)), os.pipe(), FOLLOWED, b"")
    owner.sendall(HEADER.pack(VERSION, START, 0, len(CALL), len(CALL)) + CALL)
    call = serve(understudy)
    channel = call[1]
    run(call, understudy.reports, last)
    children.forsake()
    for sock in (first, owner, status, channel):
        sock.close()
    close_all((line, held, understudy.reports))
