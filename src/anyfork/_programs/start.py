"""The start of a command line in a template, with the attributes that a program started by this process inherits."""

from __future__ import annotations

import errno
import os

from _anyfork_child.values.decode import Descriptor
from _anyfork_child.wire.descriptors import is_standard_stream

from .._blocking.process import Process
from .._blocking.template import Template
from .._errors import AnyforkError, ArgumentError, AttributeRefusedError
from .._processes.handles import check_template
from .._processes.new_interpreter import present_attributes
from .._processes.start import fork, fork_default
from .command_line import NotAProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .command_line import CommandLine

FAILED, COLD = b"E", b"C"  # see _anyfork_child.program.starter


def start_warm(
    template: Template | None,
    line: CommandLine,
    attributes: Mapping[str, object],
    passed: Sequence[int],
    group: int | None,
) -> tuple[Process, str]:
    """Start a command line; return its process, and why a new interpreter runs it, if one does.

    ``passed`` are descriptors that it gets under their numbers, ``group`` the process group that it joins. Raises
    NotAProgramError if nothing was started, and OSError if the system has refused an attribute.
    """
    _check_streams(attributes)
    try:
        read, write = os.pipe()
    except OSError as error:
        raise NotAProgramError(f"no descriptor is left for it: {error}") from error
    try:
        starter = (line.line, line.options, Descriptor(write), [(fd, Descriptor(fd)) for fd in passed], group)
        process = _start(template, line, attributes, starter)
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    try:
        said = _read_all(read)
    finally:
        os.close(read)
    if said.startswith(FAILED):
        process.wait()
        raise _refused(int(said[1:]))
    return process, said[1:].decode("utf-8", "replace")


def check_local(template: object) -> None:
    """Raise ArgumentError for what is not a template on this machine, in the blocking face."""
    check_template("Popen", template)
    if not isinstance(template, Template) or template._link.session.host:
        raise ArgumentError("Popen() needs a template on this machine, as anyfork.Template() makes one")


def _check_streams(attributes: Mapping[str, object]) -> None:
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if name not in attributes and not is_standard_stream(fd):
            raise NotAProgramError(f"{name} of this program is closed")


def _start(
    template: Template | None, line: CommandLine, attributes: Mapping[str, object], starter: Sequence[object]
) -> Process:
    try:
        handle = _fork(template, attributes)
        return handle._take_over_by_python(Process._of, line.kind, line.target, line.argv, starter)._ready_or_gone(None)
    except AttributeRefusedError as error:
        where = attributes["cwd"] if error.attribute == "cwd" else None
        raise _refused(error.errno, where) from error
    except (AnyforkError, OSError) as error:
        raise NotAProgramError(f"the template cannot start it: {error}") from error


def _fork(template: Template | None, attributes: Mapping[str, object]) -> Template:
    """Return a fork of a template, or of the default one, with all that a child of this process would inherit."""
    if template is not None:
        template._link.check("Popen")
    encoded = present_attributes(attributes)
    try:
        if template is None:
            return Template._of(fork_default(attributes, encoded))
        template._link.check_descriptors_stay_here("Popen", encoded)
        return Template._of(fork(template._link, attributes, encoded))
    finally:
        encoded.close_made()


def _refused(number: int | None, where: object = None) -> OSError:
    number = number or errno.EINVAL
    return OSError(number, os.strerror(number), *([] if where is None else [where]))


def _read_all(fd: int) -> bytes:
    said = b""
    while part := os.read(fd, 1 << 16):
        said += part
    return said
