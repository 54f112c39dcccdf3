"""The attributes of a fresh interpreter: a fork of the default template that takes over the owner's present state."""

from __future__ import annotations

import os

from _anyfork_child.values.encode import pickle_into
from _anyfork_child.wire.descriptors import is_standard_stream
from _anyfork_child.wire.frames import STDIO
from _anyfork_child.wire.memfd import new_file
from _anyfork_child.wire.owned_descriptors import Owned

from .._system.interpreter import executable_environment, find_python
from .attributes import EncodedAttributes, check_attributes
from .launch import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _anyfork_child.values.encode import Encoded


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
    if hasattr(os, "sched_getaffinity"):
        values["affinity"] = os.sched_getaffinity(0)
    umask = _umask()
    if umask is not None:
        values["umask"] = umask
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
