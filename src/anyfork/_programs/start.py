"""The start of a command line in a template, with the attributes that a program started by this process inherits."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from _anyfork_child.values.decode import Descriptor
from _anyfork_child.wire.descriptors import is_standard_stream
from _anyfork_child.wire.program_reports import FAILED

from .._blocking.process import Process
from .._blocking.template import Template
from .._errors import AnyforkError, ArgumentError, AttributeRefusedError, NotReadyError
from .._processes.handles import TemplateHandle, check_template
from .._processes.start import fork_present
from .._system.pipes import open_pipe
from .._system.timeouts import NotInTimeError, remaining
from .command_line import NotAProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from _anyfork_child.wire.descriptors import Owned

    from .._processes.arguments import Signals
    from .._processes.link import Link
    from .command_line import CommandLine

    Made = TypeVar("Made")

SHORTEST_START = 0.5  # seconds that a start may take whatever the timeout is; a warm one takes milliseconds


def start_warm(
    template: Template | None,
    line: CommandLine,
    attributes: Mapping[str, object],
    passed: Sequence[int],
    group: int | None,
    imports_to: str = "",
    until: float | None = None,
) -> tuple[Process, str]:
    """Start a command line; return its process, and why a new interpreter runs it, if one does.

    ``passed`` are descriptors that it gets under their numbers, ``group`` the process group that it joins. It tells
    the address ``imports_to`` what it has imported. Raises NotAProgramError if nothing was started, OSError if the
    system has refused an attribute, and NotInTimeError if it has not started at the deadline ``until``, or a moment
    later: with a timeout of 0, too, the standard module says why a command cannot be started.
    """
    with errors_of_start(attributes):
        handle, report = request(Template, Process._of, template, line, attributes, passed, group, imports_to)
        left = remaining(until)
        process = handle._ready_or_gone(None if left is None else max(left, SHORTEST_START))
    said = read_report(report)
    if said.startswith(FAILED):
        process.wait()
    return process, reason(said)


def request(
    face: type[TemplateHandle],
    make: Callable[[Link], Made],
    template: TemplateHandle | None,
    line: CommandLine,
    attributes: Mapping[str, object],
    passed: Sequence[int],
    group: int | None,
    imports_to: str = "",
) -> tuple[Made, Owned]:
    """Request the start of a command line; return its handle, and the pipe over which it reports how it begins.

    ``face`` is the class of template handles in this face, and ``make`` makes the handle of the process. The other
    arguments are those of ``start_warm``. Raises NotAProgramError, AnyforkError and OSError.
    """
    _check_streams(attributes)
    handle = _fork(face, template, attributes)
    numbered = [(fd, fd) for fd in sorted({*map(int, passed)})]
    return take_over(handle, make, line, numbered, group, imports_to=imports_to)


def take_over(
    handle: TemplateHandle,
    make: Callable[[Link], Made],
    line: CommandLine,
    passed: Iterable[tuple[int, int]] = (),
    group: int | None = None,
    signals: Signals | None = None,
    terminal: int | None = None,
    imports_to: str = "",
) -> tuple[Made, Owned]:
    """Let a command line take over a process; return its handle, and the pipe over which it reports how it begins.

    ``passed`` are numbers with the descriptors that the program gets under them. It joins the process group ``group``,
    gets ``terminal`` as its controlling one, and tells the address ``imports_to`` what it has imported.
    """
    report, far = open_pipe()
    try:
        numbered = [(number, Descriptor(fd)) for number, fd in passed]
        own_terminal = None if terminal is None else Descriptor(terminal)
        starter = (line.line, line.options, Descriptor(far.fd), numbered, group, own_terminal, imports_to)
        return handle._take_over_by_python(make, line.kind, line.target, line.argv, starter, signals), report
    finally:
        far.close()


def read_report(report: Owned) -> bytes:
    """Wait until a program has begun; return its report."""
    with open(report.fd, "rb", closefd=False) as file:
        said = file.read()
    report.close()
    return said


@contextmanager
def errors_of_start(attributes: Mapping[str, object]) -> Iterator[None]:
    """Turn errors of a start into OSError, if the system refused an attribute, NotInTimeError and NotAProgramError."""
    try:
        yield
    except AttributeRefusedError as error:
        raise _refused(error.errno, attributes["cwd"] if error.attribute == "cwd" else None) from error
    except NotReadyError:
        raise NotInTimeError from None
    except (AnyforkError, OSError) as error:
        raise NotAProgramError(f"the template cannot start it: {error}") from error


def reason(said: bytes) -> str:
    """Return why a program starts cold, by its report; empty if it is warm. Raises OSError if it does not start."""
    if said.startswith(FAILED):
        raise _refused(int(said[1:]))
    return said[1:].decode("utf-8", "replace")


def check_local(call: str, face: type[TemplateHandle], template: object) -> None:
    """Raise ArgumentError for an object that is not a template of this face on this machine.

    One that is used up is no error: programs start cold then.
    """
    if not isinstance(template, face) or template._link.session.host:
        check_template(call, template)
        raise ArgumentError(f"{call}() needs a template on this machine, as {face.__module__}.Template() makes one")


def program_attributes(
    stdin: object,
    stdout: object,
    stderr: object,
    cwd: object = None,
    env: Mapping[Any, Any] | None = None,
    umask: int = -1,
    user: str | int | None = None,
    group: str | int | None = None,
    extra_groups: Iterable[str | int] | None = None,
    start_new_session: bool = False,
) -> dict[str, object]:
    """Return the attributes of a program, which are given as Popen's. A user without a group keeps this process's."""
    attributes = {
        "stdin": stdin,
        "stdout": stdout,
        "stderr": stderr,
        "cwd": cwd,
        "env": env,
        "umask": None if umask < 0 else umask,
        "user": user,
        "group": os.getegid() if group is None and user is not None else group,
        "extra_groups": None if extra_groups is None else list(extra_groups),
        "new_session": True if start_new_session else None,
        "detached": True,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _check_streams(attributes: Mapping[str, object]) -> None:
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if name not in attributes and not is_standard_stream(fd):
            raise NotAProgramError(f"{name} of this program is closed")


def _fork(
    face: type[TemplateHandle], template: TemplateHandle | None, attributes: Mapping[str, object]
) -> TemplateHandle:
    """Return a fork of a template, or of the default one, with all that a child of this process would inherit."""
    if template is not None:
        template._link.check("Popen")
    return face._of(fork_present(None if template is None else template._link, "Popen", attributes))


def _refused(number: int | None, where: object = None) -> OSError:
    number = number or errno.EINVAL
    return OSError(number, os.strerror(number), *([] if where is None else [where]))
