"""The launch of an interpreter: the default template, from which everything else is forked.

The default template is the only process that the owner starts itself, by posix_spawn, which costs the same from a large
program as from a small one. Fresh interpreters for ``Template.new_exec`` are forked from it and then executed, so that
every process but the default template has a template as its parent, which reaps it.
"""

from __future__ import annotations

import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl
from itertools import repeat
from posix import (
    posix_spawn,  # not that of os, which debuggers replace to enter every interpreter, see _processes.debugger
)

import _anyfork_child
from _anyfork_child.values.decode import file_name
from _anyfork_child.values.encode import pickle_into
from _anyfork_child.wire.descriptors import Owned, duplicates, is_standard_stream, socket_pair
from _anyfork_child.wire.frames import INIT, STDIO
from _anyfork_child.wire.memfd import new_file
from _anyfork_child.wire.platform import OLDEST, affinity, bind_now

from .._errors import ArgumentError, LaunchError
from .._system.import_path import current_directory, note_given, places
from .._system.interpreter import (
    OTHER_PARTS,
    TOO_OLD,
    check_reentry,
    executable_environment,
    find_python,
    frozen_program,
)
from .._system.lifeline import open_lifeline
from .._system.link_socket import quiet
from .._system.stderr import StderrTail
from .arguments import encode_values
from .attributes import EncodedAttributes, check_attributes
from .link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _anyfork_child.values.encode import Encoded

# Runs in the new interpreter. Any Python since 2.7 can run it up to the end of the first check. The directory of the
# package goes to the end of the path, where it hides nothing, but before the directories of PYTHONPATH: the program may
# have set that for other programs. INIT brings the path of the program. An interpreter with an anyfork of its own loads
# the package of that, which serves only if it is of the same version: INIT and all that follows may differ otherwise.
BOOT = (
    f"import os,sys;sys.version_info<{OLDEST!r}and sys.exit('{TOO_OLD}%d.%d.%d'%sys.version_info[:3]);"
    "start_path=sys.path;d=sys.argv[1];"
    "e=[os.path.normpath(p)for p in os.environ.get('PYTHONPATH','').split(os.pathsep)];"
    "sys.path=sorted([p for p in sys.path if p]+[d],key=lambda p:p!=d and p in e);"
    "import _anyfork_child as e;a=getattr(e,'__version__','an older version');"
    f"a!={_anyfork_child.__version__!r}and sys.exit('{OTHER_PARTS}%s|%s'%(a,os.path.dirname(e.__path__[0])));"
    "from _anyfork_child.__main__ import main;a=sys.argv[2:];"
    "del sys.argv[1:];main(*a)"
)

PACKAGE_DIRECTORY = os.path.dirname(os.path.dirname(os.path.abspath(_anyfork_child.__file__)))
REENTRY = "--anyfork-template"  # the first argument of a frozen program that is to become a template, see frozen
HIGH = 10  # descriptors are moved here first, so that moving them to 2 to 5 overwrites none of them


def command(python: str, flags: Sequence[str] | None) -> list[bytes]:
    """Return the command that makes an interpreter a template; its descriptors follow as further arguments.

    Raises ArgumentError for options that a frozen program cannot be given, and LaunchError.
    """
    owner = str(os.getpid())
    if python == frozen_program():
        check_reentry()
        if flags:
            raise ArgumentError(f"new_exec() cannot give options to a frozen program: {list(flags)!r}")
        parts = [python, REENTRY, owner]
    else:
        if flags is None:
            from .._system.interpreter import options  # only now: a program starts few interpreters

            flags = options()
        parts = [python, *flags, *_of_no_directory(), "-c", BOOT, PACKAGE_DIRECTORY, owner]
    return [os.fsencode(part) for part in parts]


def _of_no_directory() -> list[str]:
    """Return the options for an interpreter that starts in a directory that was removed.

    CPython 3.13 looks there for files that hide standard modules, even to import socket, and fails.
    """
    return ["-P"] if sys.version_info[:2] == (3, 13) and not current_directory() else []


def initialise(link: Link, *, named: bool = False) -> None:
    """Give a fresh interpreter its module path, its arguments and its setting for lazy imports, as this program has
    them. An interpreter that the user has ``named`` may have packages of its own.
    """
    from .._system.interpreter import lazy_imports

    path = [found for entry in sys.path if isinstance(entry, str) for found in places(entry)]
    note_given(path)
    arguments = getattr(sys, "argv", [""])
    texts = [*map(file_name, path)], [*map(file_name, arguments)]
    home = (file_name(sys.prefix), sys.hexversion >> 16) if named else None
    link.post(INIT, encode_values("Template", (*texts, lazy_imports(), home)))
    link.ask()


def launch() -> Link:
    """Start the default template. Raises LaunchError."""
    python = find_python()
    control, far = socket_pair()
    line, follows = open_lifeline()
    output, stderr = new_file(), open_stderr()
    link = Link(quiet(control), None, None)
    link.interpreter = python
    link.output = StderrTail(output)
    try:
        pid = _spawn(python, command(python, None), (far.fileno(), line.fd, stderr.fd, output.fd), follows)
    except OSError as error:
        raise LaunchError(f"the interpreter {python!r} cannot be executed: {error}") from error
    finally:
        stderr.close()
        far.close()
        line.close()
    link.session.pid = link.child = pid
    initialise(link)
    return link


def _spawn(python: str, argv: list[bytes], fds: Sequence[int], follows: int) -> int:
    high = Owned(map(fcntl, fds, repeat(F_DUPFD_CLOEXEC), repeat(HIGH)))
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(high.fds, (3, 4, 5, 2), strict=True)]
        numbers = (b"3", b"4", b"-1", b"5", b"%d" % follows)
        environment = bind_now(executable_environment(os.environb))
        return posix_spawn(python, [*argv, *numbers], environment, file_actions=actions)
    finally:
        high.close()


def open_stderr() -> Owned:
    """Duplicate standard error, or open the null device for a daemon without one. Raises OSError."""
    if is_standard_stream(2):
        return Owned(duplicates((2,)))
    return Owned(map(os.open, (os.devnull,), (os.O_RDWR | os.O_CLOEXEC,))).lifted()


# --- Fresh interpreters -----------------------------------------------------------------------------------------


def present_attributes(attributes: Mapping[str, object]) -> EncodedAttributes:
    """Encode the attributes of a fork of the default template that takes over the owner's present state. Raises
    ArgumentError.
    """
    encoded = EncodedAttributes()
    asked = check_attributes("new_exec", encoded, attributes)
    pickle_into(encoded, _inherited(encoded) | asked)
    return encoded


def exec_attributes(
    python: str | os.PathLike[str] | None, flags: Sequence[str] | None, attributes: Mapping[str, object]
) -> tuple[EncodedAttributes, str, Owned]:
    """Return the attributes to send, the interpreter, and a file for its error output if it does not start.

    Raises ArgumentError and LaunchError.
    """
    interpreter = find_python(python)
    encoded = EncodedAttributes()
    asked = check_attributes("new_exec", encoded, attributes)
    values = _inherited(encoded) | asked
    values["env"] = executable_environment(values["env"])  # type: ignore[arg-type]  # checked, see _processes.attributes
    values["exec"] = command(interpreter, flags)
    output = new_file()
    encoded.fds.append(output.fd)
    pickle_into(encoded, values)
    return encoded, interpreter, output


def _inherited(encoded: Encoded) -> dict[str, object]:
    """Return the attributes that an interpreter executed by this process would inherit; the default template's may
    differ.
    """
    import resource

    numbers = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    values: dict[str, object] = {
        "env": dict(os.environb),
        "limits": {number: resource.getrlimit(number) for number in numbers},
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
    }
    known = {"affinity": affinity(), "umask": _umask()}
    values |= {name: value for name, value in known.items() if value is not None}
    for fd, name in enumerate(STDIO):
        values[name] = encoded.add_descriptor(fd, fd) if is_standard_stream(fd) else os.devnull
    values["cwd"] = encoded.add_made(open_directory())
    return values


def open_directory() -> Owned:
    """Open the current directory. Raises OSError when it was removed."""
    return Owned(map(os.open, (".",), (os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,)))


def _umask() -> int | None:
    """Return the present umask, read from /proc: asking the system would mean setting it, which other threads would
    notice.
    """
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            return next((int(line.split()[1], 8) for line in file if line.startswith("Umask:")), None)
    except OSError:
        return None
