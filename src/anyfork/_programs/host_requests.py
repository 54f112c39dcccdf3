"""Requests of a host: lines of JSON that are checked before anything happens."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from dataclasses import dataclass
from signal import Signals, valid_signals
from subprocess import DEVNULL, PIPE, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    Id: TypeAlias = str | int
    Stream: TypeAlias = str | int

PROGRAMS = {"module": ["-m"], "script": [], "code": ["-c"]}  # what comes before each on a command line
STREAMS = {"stdin": "null", "stdout": "pipe", "stderr": "pipe"}  # with what they are if nothing is said
LONGEST = 32 << 20  # bytes of a request
KINDS = {"null": DEVNULL, "pipe": PIPE, "stdout": STDOUT}


class RequestError(Exception):
    """Raised for a request that cannot be carried out; the text says why. ``id`` is that of the request, if known."""

    def __init__(self, text: str, id: Id | None = None) -> None:  # noqa: A002  # the name in the protocol
        super().__init__(text)
        self.id = id


@dataclass(frozen=True, slots=True)
class Start:
    """The request to start a program: its part of the command line, and what it begins with."""

    id: Id
    program: Sequence[str]
    env: dict[bytes, bytes] | None
    cwd: str | None
    streams: dict[str, Stream]

    def keywords(self, fds: Sequence[int]) -> dict[str, Any]:
        """Return the streams as arguments of Popen; ``fds`` are the descriptors that came with the request."""
        chosen: dict[str, Any] = {}
        for name, stream in self.streams.items():
            if isinstance(stream, int) and not 0 <= stream < len(fds):
                raise RequestError(f"{name} is descriptor {stream}, and {len(fds)} came with the request", self.id)
            chosen[name] = fds[stream] if isinstance(stream, int) else KINDS[stream]
        return chosen


@dataclass(frozen=True, slots=True)
class Input:
    """The request to write to the standard input of a program, and to close it at the ``end``."""

    id: Id
    data: bytes
    end: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """The request to send a signal to a program."""

    id: Id
    number: int


def read_request(line: bytes) -> Start | Input | Signal:
    """Return the request in a line. Raises RequestError."""
    if len(line) > LONGEST:
        raise RequestError(f"a request has at most {LONGEST} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"a request must be a line of JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RequestError("a request must be a JSON object")
    id = fields.pop("id", None)  # noqa: A001  # as above
    if not isinstance(id, str | int) or isinstance(id, bool):
        raise RequestError('a request needs an "id", which is a string or an integer')
    do = fields.pop("do", None)
    read = _READERS.get(do) if isinstance(do, str) else None
    if read is None:
        raise RequestError(f'"do" must be one of {", ".join(_READERS)}, not {json.dumps(do)}', id)
    try:
        request = read(id, fields)
    except ValueError as error:
        raise RequestError(str(error), id) from error
    if fields:
        raise RequestError(f"{do} has no field {json.dumps(min(fields))}", id)
    return request


def _start(id: Id, fields: dict[str, Any]) -> Start:  # noqa: A002  # as above
    named = [name for name in PROGRAMS if name in fields]
    if len(named) != 1:
        raise ValueError(f"start needs one of {', '.join(PROGRAMS)}")
    target = _text(named[0], fields.pop(named[0]))
    if named == ["script"] and target.startswith("-"):
        target = f"./{target}"  # not an option
    argv = _list("argv", fields.pop("argv", []))
    env = fields.pop("env", None)
    cwd = fields.pop("cwd", None)
    return Start(
        id,
        [*PROGRAMS[named[0]], target, *argv],
        None if env is None else _environment(env),
        None if cwd is None else _text("cwd", cwd),
        {name: _stream(name, fields.pop(name, usual)) for name, usual in STREAMS.items()},
    )


def _input(id: Id, fields: dict[str, Any]) -> Input:  # noqa: A002  # as above
    data, end = fields.pop("data", ""), fields.pop("end", False)
    if not isinstance(data, str) or not isinstance(end, bool):
        raise ValueError('"data" must be a string in base64, and "end" true or false')
    return Input(id, b64decode(data, validate=True), end)


def _signal(id: Id, fields: dict[str, Any]) -> Signal:  # noqa: A002  # as above
    given = fields.pop("signal", None)
    number = Signals.__members__.get(given, 0) if isinstance(given, str) else given
    if isinstance(number, bool) or not isinstance(number, int) or number not in valid_signals():
        raise ValueError(f'"signal" must be the name or the number of a signal, not {json.dumps(given)}')
    return Signal(id, int(number))


_READERS: dict[str, Callable[[Id, dict[str, Any]], Start | Input | Signal]] = {
    "start": _start,
    "input": _input,
    "signal": _signal,
}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f'"{name}" must be a string without null characters')
    os.fsencode(value)  # raises UnicodeEncodeError, which is a ValueError
    return value


def _list(name: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f'"{name}" must be a list of strings')
    return [_text(name, each) for each in value]


def _environment(value: object) -> dict[bytes, bytes]:
    if not isinstance(value, dict) or not all(name and "=" not in name for name in value):
        raise ValueError('"env" must be an object of names and values')
    return {os.fsencode(_text("env", name)): os.fsencode(_text("env", text)) for name, text in value.items()}


def _stream(name: str, value: Any) -> Stream:
    known = isinstance(value, int) and not isinstance(value, bool)
    if known or value in ("null", "pipe") or (name, value) == ("stderr", "stdout"):
        stream: Stream = value
        return stream
    raise ValueError(f'"{name}" must be "null", "pipe" or the index of a descriptor that comes with the request')
