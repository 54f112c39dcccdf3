"""Going through births in a template, before the first real one.

What a new process executes before user code it executes once, and everything that the interpreter writes down on the
way (specialised instructions, entries in its cache of attributes) is a page copied, in every process anew. Done here
some times, it is written down already when the template forks: a fifth of a start's page faults, once per interpreter.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os

from ._birth import flush_stdio
from ._channel import close_all, public_socket
from ._owner import Lifeline
from ._template import Template
from ._wire import FORK, HEADER, START, VERSION, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._title import Title

ROUNDS = 20  # CPython specialises a function after 8 calls, and an instruction some executions later
SIGNALS = (_signal.SIGTERM, _signal.SIGINT)
CALL = b"posix:getpid"


def rehearse(title: Title) -> None:
    """Be born and started, with sockets made for it, up to the call of the function. Leaves nothing but experience."""
    handlers = [_signal.getsignal(number) for number in SIGNALS]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    try:
        for _ in range(ROUNDS):
            _once(title)
            flush_stdio()
    finally:
        gc.disable()
        for number, handler in zip(SIGNALS, handlers, strict=True):
            _signal.signal(number, handler)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)


def _once(title: Title) -> None:
    first, first_far = _socket.socketpair()
    owner, far = _socket.socketpair()
    status, status_far = _socket.socketpair()
    parent_reports = _socket.socketpair()
    line, held = os.pipe()
    lifeline = Lifeline(line)
    lifeline.check()
    understudy = Template(public_socket(first_far), lifeline, parent_reports[0], title)
    understudy.changed = False
    understudy.children = children = understudy._make_children()
    understudy._born(Frame(FORK, 0, b"", (far.detach(), status_far.detach())))
    owner.sendall(HEADER.pack(VERSION, START, 0, len(CALL), len(CALL)) + CALL)
    call = understudy.serve()
    parent_reports[0].detach()
    children.forsake()
    close_all((line, held, first.detach(), owner.detach(), status.detach(), parent_reports[1].detach()))
    call[1].close()
