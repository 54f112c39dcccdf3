"""The loop of a template, and the path of a new process from the fork to its function.

The loop goes on in both processes after a fork: in the template with the next frame, in the new process as a template
of its own on its own control socket. So the stack does not grow with the number of ancestors, and user code runs at the
top of the stack: ``serve`` returns the call to run.

**Why this module looks as it does.** A start costs page faults: the first write to a page after a fork copies it, in
the template and in the new process, and in Python using an object writes its reference count. Every start runs the code
of this module. So it is flat (a function costs two pages), its names are global (finding one writes nothing), a new
process keeps its template's objects and moves its own descriptors under their numbers, and rare cases are in other
modules. ``python -m bench create --only parts`` measures the effect of a change.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, SIG_UNBLOCK
from _signal import pthread_sigmask as sigmask
from fcntl import fcntl
from os import close, closerange, dup2, getpid, pipe

from ..values.decode import load_call
from ..wire.channel import NOWAIT, ROOM, close_all, receive_body, unpack_descriptors, wait_for_memory
from ..wire.descriptors import claim
from ..wire.failure import Failure
from ..wire.frames import (
    DETACHED,
    FOLLOWED,
    FORK,
    FORK_DESCRIPTORS,
    HEADER,
    HEADER_SIZE,
    LOST_DESCRIPTOR,
    MAX_BODY,
    START,
    VERSION,
)
from ..wire.lifeline import F_OWNER_PID, F_SETOWN_EX, pack_owner
from ..wire.platform import CLOEXEC
from . import shutdown
from .entry import enter, ignore_no_more, refuse_start
from .fork_check import may_fork, refuse
from .heap import SEVERAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .state import TemplateState

unpack = HEADER.unpack
RECEIVE = NOWAIT | CLOEXEC
KEPT = DETACHED | FOLLOWED  # of the flags of a fork


def serve(template: TemplateState) -> list[Any] | None:
    """Process the owner's requests until a function takes over the process; return the function and its arguments.

    Return None if the compiled loop can go on. End the process when the owner closes its handle or ends.
    """
    channel = template.channel
    while True:
        children = template.children
        if children is not None:
            loop = template.loop
            if loop is not None and template.settled and channel.whole and children.reserve >= 0:
                return None
            if template.lifeline in (own := children.wait()):
                shutdown.owner_gone(template)
            if not own:
                if template.collapses and template.forks >= SEVERAL and not len(children):
                    template.collapse_heap()
                continue
        try:
            data, ancillary, got, _ = channel.sock.recvmsg(channel.wanted, ROOM, RECEIVE)
        except BlockingIOError:
            template.idle()
            continue
        except ConnectionResetError:  # the owner ended with unread data from this process
            shutdown.owner_gone(template)
        except OSError as error:
            wait_for_memory(error)
            continue
        fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        # The two frames of every start, in their usual form. All others go through the decoder.
        if channel.whole and len(data) == HEADER_SIZE:
            version, kind, count, length, value = unpack(data)
            if version == VERSION and count == len(fds):
                if kind == FORK and count == FORK_DESCRIPTORS and not length:
                    fork_for(template, fds, value, b"")
                    continue
                plain = children is None and template.failure is None and not template.arguments
                if kind == START and plain and not count and 0 < length <= MAX_BODY:
                    body = receive_body(channel.sock, length)
                    if len(body) < length:
                        shutdown.owner_gone(template)
                    ignore_no_more(template)
                    try:
                        call = load_call(body, value, template)
                    except BaseException as error:  # decoding runs code of the values, which may raise anything
                        refuse_start(template, error)
                    return enter(template, call, body[:value])
        if (taken_over := template.hear(data, fds, got)) is not None:
            return taken_over


def fork_for(template: TemplateState, fds: Sequence[int], flags: int, body: bytes) -> None:
    """Fork, and return in both processes: in the template, and in the new process, which is a template of its own."""
    number, template.forks = template.forks, template.forks + 1
    if not template.settled or LOST_DESCRIPTOR in fds:
        fds = [*fds]
        if not may_fork(template, fds, number, flags):
            return
    flags &= KEPT
    children = template.children
    assert children is not None
    # The user's signal handlers must not run in an incomplete new process. Our own (template.shutdown) checks for this.
    if template.signals:
        sigmask(SIG_BLOCK, template.signals)
    read_end = write_end = -1
    try:
        if children.reserve < 0:
            children.prepare()
        read_end, write_end = pipe()
        if fds[-1] > children.high:
            children.high = fds[-1]
        if write_end > children.high:
            children.high = write_end
        template.forking = True
        pid = template.fork()
    except Exception as error:  # an audit hook may raise anything
        refuse(template, (*fds, read_end, write_end), number, Failure("fork", "", error))
    else:
        if pid == 0:
            become(template, fds, (read_end, write_end), flags, body)
        elif children.add(pid, fds[1], read_end, flags):
            close(fds[0])
            close(fds[2])
            close(write_end)
            if body:
                close_all(fds[FORK_DESCRIPTORS:])
        else:
            refuse(template, (*fds, read_end, write_end), number, Failure("fork", "", children.lost))
    template.forking = False
    if template.hook_errors:
        template.tell_hook_errors()
    if template.told_to_end:
        shutdown.terminated(template, template.told_to_end)
    if template.signals:
        sigmask(SIG_UNBLOCK, template.signals)


def become(template: TemplateState, fds: Sequence[int], reports: Sequence[int], flags: int, body: bytes) -> None:
    """Make the new process a template: drop the descriptors and the state of its template and siblings.

    Runs in the new process.
    """
    children = template.children
    assert children is not None
    dup2(fds[0], template.channel.fd, False)
    dup2(fds[2], template.lifeline, False)
    dup2(reports[1], template.reports, False)
    if children.dense and not body:
        closerange(children.first, children.high + 1)
    else:
        children.close_in_copy((*fds[:FORK_DESCRIPTORS], *reports))
    template.children = None
    template.settled = template.titled = False
    template.pid = pid = getpid()
    template.flags = flags
    template.generation = 1
    template.forks = 0
    if flags == FOLLOWED:
        owner = pack_owner(F_OWNER_PID, pid)
        fcntl(template.lifeline, F_SETOWN_EX, owner)
        fcntl(template.reports, F_SETOWN_EX, owner)  # as claim, at less cost
    else:
        claim(template.reports)
    template.keep_signals()
    if template.resets or template.hook_errors or body:
        template.differ(body, fds[FORK_DESCRIPTORS:])
