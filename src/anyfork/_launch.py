"""Finding and starting an interpreter: the default template, from which everything else is forked.

It is the only process that the owner starts itself, by posix_spawn, which costs the same from a large program as from
a small one. Fresh interpreters for ``Template.new_exec`` are forked from it and then executed, so that every process
but this one has a template as its parent, which reaps it.
"""

from __future__ import annotations

import _socket
import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl

import _anyfork_child
from _anyfork_child._attributes import bind_now
from _anyfork_child._files import new_file
from _anyfork_child._steps import is_standard_library
from _anyfork_child._wire import INIT

from ._arguments import encode_values
from ._errors import LaunchError
from ._lifeline import open_lifeline
from ._link import Link
from ._output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Runs in the new interpreter. The directory of the package goes to the end of the path, where it hides nothing.
BOOT = (
    "import sys;sys.path=[p for p in sys.path if p]+[sys.argv[1]];"
    "from _anyfork_child.__main__ import main;a=sys.argv[2:];"
    "del sys.argv[1:];main(*a)"
)
PACKAGE_DIRECTORY = os.path.dirname(os.path.dirname(os.path.abspath(_anyfork_child.__file__)))
HIGH = 10  # descriptors are moved here first, so that moving them to 2 to 5 overwrites none of them


def find_python(python: str | os.PathLike[str] | None = None) -> str:
    """The interpreter to start: what was asked for, ANYFORK_PYTHON, or the running one. Raises LaunchError."""
    for candidate, source in (
        (python and os.fspath(python), "python="),
        (os.environ.get("ANYFORK_PYTHON"), "ANYFORK_PYTHON"),
        (sys.executable, "sys.executable"),
    ):
        if candidate:
            if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                return candidate
            raise LaunchError(f"{source} is {candidate!r}, which is no executable file; name an interpreter there")
    raise LaunchError("sys.executable is empty: name an interpreter with python= or in ANYFORK_PYTHON")


def command(python: str, flags: Sequence[str] | None) -> list[bytes]:
    """The command that makes an interpreter a template; its descriptors follow as further arguments."""
    if flags is None:
        import subprocess  # only now: it is large, and a program starts few interpreters

        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # multiprocessing uses it too
    owner = str(os.getpid())
    return [os.fsencode(part) for part in (python, *flags, "-c", BOOT, PACKAGE_DIRECTORY, owner)]


def initialise(link: Link) -> None:
    """Give a fresh interpreter what a program gives its own: where modules are found, and its arguments."""
    try:
        here: list[str | None] = [os.getcwd()]
    except FileNotFoundError:  # it was removed: nothing can be found there
        here = []
    path: list[str | None] = []
    for entry in sys.path:
        if isinstance(entry, str):
            path += here if not entry else [None if is_standard_library(entry) else entry]
    link.post(INIT, encode_values("Template", (path, list(getattr(sys, "argv", [""])))))
    link.ask()


def launch() -> Link:
    """Start the default template. Raises LaunchError."""
    python = find_python()
    stderr = _stderr()  # first: where there is none, something of ours would get its number
    control, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    line, follows = open_lifeline()
    output = new_file()
    link = Link(control, None, None)
    link.interpreter = python
    link.output = Output(output)
    try:
        pid = _spawn(python, command(python, None), (far.fileno(), line, stderr, output), follows)
    except OSError as error:
        raise LaunchError(f"the interpreter {python!r} cannot be executed: {error}") from error
    finally:
        os.close(stderr)
        far.close()
        os.close(line)
    link.session.pid = link.child = pid
    initialise(link)
    return link


def _spawn(python: str, argv: list[bytes], fds: Sequence[int], follows: int) -> int:
    high = [fcntl(fd, F_DUPFD_CLOEXEC, HIGH) for fd in fds]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(high, (3, 4, 5, 2), strict=True)]
        numbers = (b"3", b"4", b"-1", b"5", b"%d" % follows)
        return os.posix_spawn(python, [*argv, *numbers], bind_now(os.environb), file_actions=actions)
    finally:
        for fd in high:
            os.close(fd)


def _stderr() -> int:
    try:
        return os.dup(2)
    except OSError:  # a daemon without standard error
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
