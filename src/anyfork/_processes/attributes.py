"""The attributes of ``fork`` and ``new_exec``: checked in the owner, applied in the new process in a fixed order."""

from __future__ import annotations

import os

from _anyfork_child.values.decode import file_name
from _anyfork_child.values.encode import CannotTravelError, Encoded, pickle_into
from _anyfork_child.wire.frames import AS_STDOUT, CHANNEL, NO_LIMIT, STDIO

from .._errors import ArgumentError
from .._system.import_path import ORDINARY
from .._system.pipes import open_pipe
from .arguments import encode_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol, TypeAlias, TypedDict

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.wire.descriptors import Owned

    class HasFileno(Protocol):
        """An object that has a descriptor."""

        def fileno(self) -> int:
            """Return the descriptor."""

    Stdio: TypeAlias = int | str | HasFileno | None
    Limit: TypeAlias = int | tuple[int, int]

    class Attributes(TypedDict, total=False):
        """The attributes of a new process. Attributes that are not given are inherited from the template."""

        before: Callable[[], object] | str
        cwd: str | bytes | os.PathLike[str] | os.PathLike[bytes] | int
        env: Mapping[str, str] | Mapping[bytes, bytes]
        umask: int
        stdin: Stdio
        stdout: Stdio
        stderr: Stdio
        nice: int
        rlimits: Mapping[int, Limit] | Mapping[str, Limit]
        user: int | str
        group: int | str
        extra_groups: Sequence[int | str]
        new_session: bool
        title: str
        detached: bool
        contain: bool


PIPE, STDOUT, DEVNULL = -1, -2, -3  # the numbers that subprocess uses


class EncodedAttributes(Encoded):
    """Encoded attributes, and this program's ends of the pipes among them, by the stream's name."""

    __slots__ = ("pipes", "receiver")

    def __init__(self, receiver: Receiver = ORDINARY) -> None:
        super().__init__()
        self.pipes: dict[str, Owned] = {}
        self.receiver = receiver

    def add_pipe(self, name: str) -> int:
        """Open a pipe for a standard stream; return the index of the process's end."""
        read, write = open_pipe()
        far, self.pipes[name] = (read, write) if name == STDIO[0] else (write, read)
        self.holders.append(f"{name}=PIPE")
        return self.add_made(far)


def encode_attributes(call: str, attributes: Mapping[str, object], receiver: Receiver = ORDINARY) -> EncodedAttributes:
    """Encode attributes: a body, and their descriptors. Raises ArgumentError, which names the attribute."""
    encoded = EncodedAttributes(receiver)
    values = check_attributes(call, encoded, attributes)
    if values:
        pickle_into(encoded, values)
    return encoded


def check_attributes(call: str, encoded: EncodedAttributes, attributes: Mapping[str, object]) -> dict[str, object]:
    """Return the attributes as they travel, and add their descriptors to ``encoded``. Drop ``detached``, which the FORK
    frame carries as a flag, and ``contain``, which is for another process. Raises ArgumentError.
    """
    values: dict[str, object] = {}
    for name, value in attributes.items():
        check = _CHECKS.get(name)
        if check is None:
            raise ArgumentError(f"{call}() has no attribute {name!r}; there are {', '.join(_CHECKS)}")
        if value is None:
            continue  # treated as if it were not given
        try:
            values[name] = check(encoded, value)
        except (TypeError, ValueError, OSError, AttributeError, CannotTravelError) as error:
            raise ArgumentError(f"{call}() cannot use {name}={value!r}: {error}") from error
    values.pop("detached", None)
    values.pop("contain", None)
    if values.get("stderr") == AS_STDOUT and "stdout" in values:
        values["stderr"] = values["stdout"]
    return values


def _function(encoded: EncodedAttributes, value: Any) -> tuple[bytes, bytes, int, int]:
    """Return the function's name, or else its pickle, and the range of its descriptors."""
    given = encode_call("before", value, (), encoded.receiver)
    first = len(encoded.fds)
    encoded.fds += given.fds
    encoded.holders += given.holders
    encoded.made += given.made
    encoded.by_value |= given.by_value
    return given.name, b"".join(given.pieces), first, len(encoded.fds)


def _integer(_: Encoded, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"it must be an integer, not {type(value).__name__}")
    return value


def _flag(_: Encoded, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"it must be True or False, not {type(value).__name__}")
    return value


def _text(_: Encoded, value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("it must be a str without null characters")
    return value


def _name_or_id(_: Encoded, value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"it must be a name or a number, not {type(value).__name__}")
    return value


def _names_or_ids(encoded: Encoded, value: Any) -> list[int | str]:
    if isinstance(value, str | bytes):
        raise TypeError("it must be a sequence of names or numbers")
    return [_name_or_id(encoded, part) for part in value]


def _directory(encoded: Encoded, value: Any) -> object:
    if isinstance(value, int):
        return encoded.add_descriptor(value, _integer(encoded, value))
    return file_name(os.fspath(value))


def _environment(_: Encoded, value: Any) -> dict[bytes, bytes]:
    env = {os.fsencode(name): os.fsencode(text) for name, text in value.items()}
    for name, text in env.items():
        if not name or b"=" in name or b"\0" in name + text:
            raise ValueError(f"{os.fsdecode(name)!r} cannot be in an environment")
    return env


def _limits(encoded: Encoded, value: Any) -> dict[int, tuple[int, int]]:
    import resource

    limits: dict[int, tuple[int, int]] = {}
    for name, limit in value.items():
        if isinstance(name, str):
            number = getattr(resource, "RLIMIT_" + name.upper().removeprefix("RLIMIT_"), None)
            if number is None:
                raise ValueError(f"unknown limit {name!r}")
        else:
            number = _integer(encoded, name)
        soft, hard = (limit, limit) if isinstance(limit, int) else limit
        limits[number] = (_limit(encoded, soft), _limit(encoded, hard))
    return limits


def _limit(encoded: Encoded, value: Any) -> int:
    import resource

    limit = _integer(encoded, value)
    return NO_LIMIT if limit == resource.RLIM_INFINITY else limit


def _stdin(encoded: EncodedAttributes, value: Any) -> object:
    return _stream(encoded, "stdin", value)


def _stdout(encoded: EncodedAttributes, value: Any) -> object:
    return _stream(encoded, "stdout", value)


def _stderr(encoded: EncodedAttributes, value: Any) -> object:
    return AS_STDOUT if value == STDOUT else _stream(encoded, "stderr", value)


def _stream(encoded: EncodedAttributes, name: str, value: Any) -> object:
    if value == PIPE:
        return encoded.add_pipe(name)
    if value == STDOUT:
        raise ValueError("STDOUT is for stderr only")
    if value == DEVNULL:
        return os.devnull
    if isinstance(value, str):
        if value != CHANNEL:
            raise TypeError("it must be a file, a descriptor, PIPE, DEVNULL or CHANNEL")
        return CHANNEL
    if isinstance(value, int):
        return encoded.add_descriptor(value, _integer(encoded, value))
    flush = getattr(value, "flush", None)
    if flush is not None and value.writable():
        flush()
    return encoded.add_descriptor(value, value.fileno())


_CHECKS: dict[str, Callable[[EncodedAttributes, Any], object]] = {
    "cwd": _directory,
    "env": _environment,
    "umask": _integer,
    "stdin": _stdin,
    "stdout": _stdout,
    "stderr": _stderr,
    "nice": _integer,
    "rlimits": _limits,
    "user": _name_or_id,
    "group": _name_or_id,
    "extra_groups": _names_or_ids,
    "new_session": _flag,
    "title": _text,
    "detached": _flag,
    "before": _function,
    "contain": _flag,
}
