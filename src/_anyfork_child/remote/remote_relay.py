"""The remote relay, beside remote templates: the first process on the other machine, which acts as the owner there.

The relay forks the first template, on real sockets, and holds the lifeline of all processes that descend from it: to
them, the end of the relay, for whatever reason, is the end of the owner.
"""

from __future__ import annotations

import _socket
import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl

from ..birth.last_words import to_nobody
from ..birth.title import Title
from ..template.template import Template
from ..template.top_frame import run
from ..wire.frames import CLOSE, DETACHED, FORK, Frame, ProtocolError
from ..wire.lifeline import open_anew, open_pipe
from ..wire.platform import pidfd_open
from .protocol import BYE
from .relay import SPEAKS, Relay, settle_in
from .stream import CONTROL
from .transport import LostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

ROOT = 0  # the number of the stream of the first template's control socket, which is open from the beginning
HIGH = 10  # the lowest descriptor for the connection, above those of standard streams


def serve(_host: str, mark: bytes, owner: int, keep_alive: float) -> NoReturn:
    """Act as the remote relay of a connection over standard input and output, until the connection ends."""
    incoming, outgoing = _take_stdio()
    title = Title(owner)
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    lifeline, alive = open_pipe()
    pid = os.fork()
    if not pid:
        for fd in (incoming, outgoing, near.detach(), alive):
            os.close(fd)
        _be_template(far, lifeline, title)
    far.close()
    title.show(b"anyfork/relay", short=True)
    settle_in()
    os.write(outgoing, b"%sready %s\n" % (mark, SPEAKS.encode()))
    for fd in (incoming, outgoing):
        os.set_blocking(fd, False)
    _relay(incoming, outgoing, near, pid, lifeline, keep_alive)
    os._exit(0)


def _relay(incoming: int, outgoing: int, root: _socket.socket, pid: int, lifeline: int, keep_alive: float) -> None:
    """Relay until the first template, ``pid``, has ended; it stays until all processes that descend from it have ended.

    Ends this process with the connection, even while processes run to which the owner has no handle.
    """

    def admit(kind: int, streams: int, flags: int) -> tuple[Sequence[int], int]:
        if kind != FORK:
            if streams:
                raise ProtocolError(f"{streams} streams with a frame of kind {kind}")
            return (), flags
        if streams != 2:
            raise ProtocolError(f"a fork with {streams} sockets")
        line, followed = open_anew(lifeline)
        return (line,), flags & DETACHED | followed

    relay = Relay(incoming, outgoing, 2, keep_alive, admit)
    first = relay.open(root, CONTROL, ROOT)
    try:
        relay.run(lambda: first.forks > 0)
        first.put_frame(Frame(CLOSE))  # the first template forks one template, the owner's, and stays to reap it
        relay.run(lambda: not relay.streams)
        _watch(relay, pid)
        relay.run(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
        relay.say(BYE, 0)
        relay.flush()
    except LostError:
        os._exit(1)  # the lifeline ends all other processes on this machine


def _watch(relay: Relay, pid: int) -> None:
    """Let the end of a process wake the relay, which otherwise notices the end at its next tick."""
    if pidfd_open is not None:
        try:
            relay.watch(pidfd_open(pid), lambda _event: None)
        except OSError:  # no descriptor is left
            pass


def _take_stdio() -> tuple[int, int]:
    """Move the connection away from standard input and output; return its descriptors.

    Standard input becomes the null device, and standard output goes where standard error goes.
    """
    incoming, outgoing = (fcntl(fd, F_DUPFD_CLOEXEC, HIGH) for fd in (0, 1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return incoming, outgoing


def _be_template(control: _socket.socket, lifeline: int, title: Title) -> NoReturn:
    line, followed = open_anew(lifeline)
    os.close(lifeline)
    template = Template(control, line, followed, to_nobody(), title)
    sys.argv[:] = [""]
    run(template)
