"""The start of a program by a template that does not fork itself for it.

A fork copies the page tables of the template, which the program then drops. A child of ``vfork`` borrows the memory of
the template until it executes the program, whatever the template's size. The interpreter's ``fork_exec``, which
subprocess uses, does that.

Runs in templates. When the owner's request arrives, the frame with the program is already in the socket of the new
process. If something needs a fork (see ``_allows``), the template forks, and the new process reads that frame, as
always (see template.entry).
"""

from __future__ import annotations

import _signal
import _socket
import os
import sys
from _signal import SIG_BLOCK, SIG_IGN, SIGINT, getsignal, signal

from ..birth.last_words import to_nobody
from ..values.decode import Payload
from ..wire.channel import NOWAIT, Channel, close_all, wait_for_memory
from ..wire.failure import Failure, failure_of
from ..wire.frames import (
    AS_STDOUT,
    BORN,
    BORN_AS_PROGRAM,
    CHANNEL,
    DETACHED,
    FAILED,
    FORK,
    FORK_DESCRIPTORS,
    HEADER,
    HEADER_SIZE,
    LOST_DESCRIPTOR,
    PROGRAM,
    STDIO,
    VERSION,
    Frame,
)
from ..wire.own_imports import import_own
from ..wire.platform import NOSIGNAL
from . import shutdown
from .fork_check import obstacle
from .fork_hooks import is_of_executor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .state import TemplateState

PEEK = _socket.MSG_PEEK | NOWAIT
LIMIT = 1 << 16  # bytes of a frame with a program; a longer one takes the way of a fork
fork_exec: Any = import_own("_posixsubprocess").fork_exec
INHERIT = -1  # instead of a descriptor: that of the template
MAY_VFORK = () if sys.version_info >= (3, 14) else (True,)  # the last argument of fork_exec, which later versions lack
# Hooks of os.register_at_fork that renew what only an interpreter needs.
STANDARD = frozenset(
    {
        "asyncio.events.on_fork",
        "logging._acquireLock",
        "logging._after_at_fork_child_reinit_locks",
        "logging._afterFork",
        "logging._prepareFork",
        "logging._releaseLock",
        "multiprocessing.resource_tracker.ResourceTracker._after_fork_in_child",
        "random.Random.seed",
        "threading._after_fork",
    }
)


def start_without_fork(template: TemplateState, frame: Frame) -> bool:
    """Start the program of a FORK_PROGRAM frame. Return False, with nothing done, if a fork has to do it."""
    if not _allows(template, frame):
        return False
    start = _Start(frame)
    try:
        if not start.look():
            return False
        start.open(template)
    except OSError:  # no descriptors are left, or the owner has revoked the start: the new process reports it
        return False
    else:
        _begin(template, start)
        return True
    finally:
        start.close()


def _allows(template: TemplateState, frame: Frame) -> bool:
    """Return whether this template can start programs; prepare it as for a fork if necessary.

    It cannot in a container, which knows its processes in another way, nor where user code expects a fork: with hooks,
    handlers or blocked signals.
    """
    fds: Any = frame.fds
    if LOST_DESCRIPTOR in fds or (not template.settled and obstacle(template, fds, 0) is not None):
        return False
    children = template.children
    if template.container or template.hooks is None or children is None:
        return False
    if any(number not in children.signals for number in template.signals):
        return False
    if _signal.pthread_sigmask(SIG_BLOCK, ()):
        return False
    return all(_is_standard(hook) for hooks in template.hooks for hook in hooks)


def _is_standard(hook: Any) -> bool:
    name = f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', '')}"
    return name in STANDARD or is_of_executor(hook)


class _Start:
    """One program to start, with its attributes and the descriptors of the request."""

    __slots__ = (
        "argv",
        "attributes",
        "errors",
        "fds",
        "flags",
        "opened",
        "reports",
        "size",
        "sock",
        "streams",
    )

    def __init__(self, frame: Frame) -> None:
        self.fds: Any = frame.fds
        self.flags = frame.value & DETACHED
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, self.fds[0])
        self.attributes: Any = Payload(Frame(FORK, 0, frame.body)).load() if frame.body else {}
        self.argv: list[bytes] = []
        self.size = 0  # of its frame
        self.opened: list[int] = []
        self.streams: list[int] = []
        self.errors: tuple[int, int] = (-1, -1)
        self.reports = -1

    def look(self) -> bool:
        """Look at the frame with the program, and leave it in the socket. Return whether it can be started so."""
        data = self.sock.recv(LIMIT, PEEK)
        if len(data) < HEADER_SIZE or type(self.attributes) is not dict or type(self.attributes.get("cwd")) is int:
            return False
        self.size = HEADER_SIZE + HEADER.unpack_from(data)[3]
        usual = HEADER.pack(VERSION, PROGRAM, 0, self.size - HEADER_SIZE, 0)
        if not data.startswith(usual) or len(data) != self.size:  # or the owner has already revoked it
            return False
        self.argv = Payload(Frame(PROGRAM, 0, data[HEADER_SIZE:])).load()
        return bool(self.argv[0])

    def open(self, template: TemplateState) -> None:
        """Open all descriptors. Raises OSError, also if the owner has revoked the start."""
        children = template.children
        assert children is not None
        if children.reserve < 0:
            children.prepare()
        self.streams = self._streams(template.attributes)
        self.errors = os.pipe()
        self.opened += self.errors
        self.reports = to_nobody()
        self.opened.append(self.reports)
        self.sock.send(b"", NOSIGNAL)  # an error if the owner does not listen any more
        self.sock.recv(self.size, NOWAIT)  # what follows is for the program

    def _streams(self, inherited: dict[str, Any]) -> list[int]:
        """Return the descriptors for the standard streams, as birth.attributes gives them to a new process."""
        wanted = self.attributes
        if wanted.get("stderr") == AS_STDOUT and inherited.get("stdout") == CHANNEL:
            wanted["stderr"] = CHANNEL
        found: list[int] = []
        for name in STDIO:
            value = wanted.get(name, inherited.get(name))
            if value == CHANNEL:
                found.append(self.fds[0])
            elif name not in wanted:
                found.append(INHERIT)
            elif value == AS_STDOUT:
                found.append(1 if wanted.get("stdout", CHANNEL) == CHANNEL else found[1])
            elif type(value) is int:
                found.append(self.fds[FORK_DESCRIPTORS + value])
            else:
                found.append(os.open(value, os.O_RDWR | os.O_CLOEXEC))
                self.opened.append(found[-1])
        return found

    def fork_exec(self) -> int:
        """Execute the program in a new process; return its pid. Raises OSError, and ValueError for its arguments."""
        name, wanted = self.argv[0], self.attributes
        paths = [name] if b"/" in name else [os.path.join(place, name) for place in search_path()]
        stdin, stdout, stderr = self.streams
        streams = (stdin, -1, -1, stdout, -1, stderr)
        signals, session = True, bool(wanted.get("new_session"))
        identity = (-1, None, None, None)  # process group, group, further groups, user
        then = (signals, session, *identity, wanted.get("umask", -1), None, *MAY_VFORK)
        pid: int = fork_exec(self.argv, paths, False, (), wanted.get("cwd"), None, *streams, *self.errors, *then)
        return pid

    def failure(self) -> Failure | None:
        """Return why the process could not execute the program, or None."""
        read, write = self.errors
        self.opened.remove(write)
        os.close(write)
        said = _read(read)
        if not said:
            return None
        _, number, step = said.decode().split(":", 2)
        errno = int(number, 16)
        if step.startswith("noexec") and "cwd" in self.attributes:
            path = os.fsdecode(self.attributes["cwd"])
            return failure_of("attribute", "cwd", OSError(errno, os.strerror(errno), path))
        return Failure("program", os.fsdecode(self.argv[0]), OSError(errno, os.strerror(errno)))

    def give_away(self) -> None:
        """Note that the status socket and the reports belong to the template's list of its processes."""
        self.fds[1] = LOST_DESCRIPTOR
        self.opened.remove(self.reports)

    def close(self) -> None:
        """Close what was opened."""
        self.sock.detach()
        close_all(self.opened)


def search_path() -> list[bytes]:
    """Return what os.get_exec_path does, as bytes, and without a change of the filters of warnings."""
    path = os.environb.get(b"PATH")
    return (os.fsencode(os.defpath) if path is None else path).split(b":")


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, LIMIT)
        except OSError as error:
            wait_for_memory(error)


def _begin(template: TemplateState, start: _Start) -> None:
    """Start a program that is completely prepared, and report why it cannot be executed."""
    template.forks += 1
    template.forking = True
    failure = _execute(template, start)
    if failure is not None:
        _report(start, failure)
    close_all(start.fds)
    template.forking = False
    if template.told_to_end:
        shutdown.terminated(template, template.told_to_end)


def _report(start: _Start, failure: Failure) -> None:
    try:
        Channel(start.sock).send(Frame(FAILED, 0, failure.pack()))
    except ConnectionError:  # the owner does not wait for it any more
        pass


def _execute(template: TemplateState, start: _Start) -> Failure | None:
    children = template.children
    assert children is not None
    try:
        pid = _fork_exec(template, start)
    except ValueError as error:
        return Failure("program", os.fsdecode(start.argv[0]), error)
    except OSError as error:
        return Failure("fork", "", error)
    failure = start.failure()
    children.high = max(children.high, *start.fds, start.reports)
    birth = BORN_AS_PROGRAM if failure is None else BORN
    if not children.add(pid, start.fds[1], start.reports, start.flags, birth):
        return Failure("fork", "", children.lost)
    start.give_away()
    children.obey_owner(pid)  # it may have revoked the start before it knew the pid
    return failure


def _fork_exec(template: TemplateState, start: _Start) -> int:
    """Start a program with the default action of the signals that this template ignores.

    Execution resets signals with a handler, and the template must not die of one in between.
    """
    numbers = [number for number in {SIGINT, *template.ignored} if getsignal(number) == SIG_IGN]
    for number in numbers:
        signal(number, _ignore)
    try:
        return start.fork_exec()
    finally:
        for number in numbers:
            signal(number, SIG_IGN)


def _ignore(_number: int, _frame: object) -> None:
    pass
