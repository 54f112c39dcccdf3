"""The start of a keeper: a daemon of the user, and no child of the program that starts it."""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIG_SETMASK, SIGPIPE, SIGXFSZ, pthread_sigmask, signal
from fcntl import LOCK_EX, LOCK_NB, flock

from .place import SUFFIX, UnusableError, file_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from .arguments import RunArguments

BOOT = (
    "import sys;d=sys.argv[1];sys.path=[p for p in sys.path if p];d in sys.path or sys.path.append(d);"
    "from anyfork._programs.keeper import main;main(sys.argv[2:])"
)
LOCK = ".lock"


def start_keeper(directory: int, name: str, options: Sequence[str], wanted: RunArguments) -> str:
    """Start a keeper, unless another process is starting one; return what there is to say about it.

    Raises UnusableError.
    """
    lock = take_lock(directory, name + LOCK)
    if lock < 0:
        return "the keeper is being started"
    _remove(file_in(directory, name + SUFFIX))
    place = os.readlink(f"/proc/self/fd/{directory}")
    given = [word for module in wanted.preload for word in ("--preload", module)]
    given += [word for path in wanted.watch for word in ("--watch", path)]
    given += ["--idle", str(wanted.idle), *([wanted.kind] if wanted.kind else []), wanted.target]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, *options, "-c", BOOT, package, place, name, str(lock), *given]
    child = os.fork()
    if child == 0:
        _detach(command, lock)
    os.waitpid(child, 0)
    os.close(lock)
    return "there was no keeper; one is being started"


def _remove(path: str) -> None:
    """Remove the socket of a keeper that was killed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def take_lock(directory: int, name: str) -> int:
    """Return a descriptor with the lock of a keeper, -1 if another process has it. Raises UnusableError."""
    path = file_in(directory, name)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UnusableError(f"the lock of the keeper cannot be made: {error.strerror}") from error
    try:
        flock(lock, LOCK_EX | LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(lock)):
            return lock
    except OSError:  # another process has the lock, or a keeper that has left has removed it
        pass
    os.close(lock)
    return -1


def _detach(command: list[str], lock: int) -> NoReturn:
    """Become a process that is no relative of the client's, and execute the keeper there."""
    try:
        os.setsid()
        if os.fork() == 0:
            _execute(command, lock)
    finally:
        os._exit(0)


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # that of the listing itself
        pass


def _execute(command: list[str], lock: int) -> None:
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != lock:
            _close(fd)
    pthread_sigmask(SIG_SETMASK, ())
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    os.set_inheritable(lock, True)
    os.execve(command[0], command, os.environ)
