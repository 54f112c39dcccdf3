"""The meaning of a worker's answers: values, and the exceptions that were raised in the worker."""

from __future__ import annotations

from _anyfork_child.values.message import decode_values
from _anyfork_child.wire.call_messages import BAD_ARGUMENT, BAD_RESULT, IN_FILE, MAX_IN_FILE, NO_FUNCTION
from _anyfork_child.wire.channel import close_all
from _anyfork_child.wire.failure import unpack_texts
from _anyfork_child.wire.memfd import read_all

from .._errors import (
    AnyforkError,
    ArgumentDecodeError,
    FunctionNotFoundError,
    InitializerError,
    PeerError,
    RemoteError,
    ResultError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from _anyfork_child.values.serializers import Decoder
    from _anyfork_child.wire import call_messages


AWAIT = "an async function needs a worker with concurrency=, or another function that calls asyncio.run()"


class RemoteTraceback(Exception):  # noqa: N818  # not an error itself, but the traceback of one
    """The traceback in the worker, as the cause of an exception that was raised there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def decode_value(decoder: Decoder | None, message: call_messages.Message) -> Any:
    """Decode the value in a message of a worker. Raises ResultError."""
    _, _, detail, flags, body, fds = message
    try:
        if decoder is not None:
            data = read_all(fds[0], MAX_IN_FILE) if flags & IN_FILE else body
            (value,) = decoder.loads(data)
            return value
        value = decode_values(flags, body, fds)
        return value[0] if detail else value
    except (Exception, SystemExit) as error:  # decoding runs code of the value's class, which may raise anything
        raise ResultError(f"the worker's message cannot be decoded here: {type(error).__name__}: {error}") from error


def error_of(
    detail: int,
    flags: int,
    body: bytes,
    fds: Sequence[int],
    trusted: bool,
    rebuilt: tuple[type[BaseException], ...] = (Exception,),
) -> BaseException:
    """Return the exception that an answer carries.

    It has its own type if that type can be rebuilt and is one of ``rebuilt``, and only if the worker is ``trusted``,
    because unpickling may run any code.
    """
    try:
        if flags & IN_FILE:
            *rest, file = fds
            fds = rest
            body = read_all(file, MAX_IN_FILE)
        end = 4 + int.from_bytes(body[:4], "little")
        name, text, trace = unpack_texts(body[4:end])
    except (ValueError, OSError) as error:
        close_all(fds)
        return PeerError(f"the worker sent a malformed error report: {error}")
    summary = f"{name}: {text}" if text else name
    if detail == NO_FUNCTION:
        return FunctionNotFoundError(f"the function was not found in the worker: {text}", remote_traceback=trace)
    if detail == BAD_ARGUMENT:
        return ArgumentDecodeError(f"the arguments cannot be decoded in the worker: {summary}", remote_traceback=trace)
    if detail == BAD_RESULT:
        remedy = f"; {AWAIT}" if "coroutine" in text else ""
        return ResultError(f"the result cannot travel: {summary}{remedy}", remote_traceback=trace)
    why = "it cannot be pickled there" if trusted else "this serializer does not support exceptions"
    if trusted and len(body) > end:
        try:
            (raised,) = decode_values(0, body[end:], fds)
            if isinstance(raised, rebuilt):
                # Bypass the __setattr__ of the class: the user's may refuse assignments.
                BaseException.__setattr__(raised, "__cause__", RemoteTraceback(trace))
                return raised
            why = "this program would take it for an exception of its own"  # KeyboardInterrupt, or the end of a task
        except Exception as failure:  # rebuilding an exception calls its constructor, which may raise anything
            why = f"{type(failure).__name__}: {failure}"
    remote = RemoteError(
        f"the function raised {summary} (which cannot be rebuilt here: {why})", type_name=name, text=text
    )
    remote.__cause__ = RemoteTraceback(trace)
    return remote


def failure_to_begin(message: call_messages.Message, trusted: bool) -> Callable[[bool], AnyforkError]:
    """Return what makes the error of each call of a worker that tells why it cannot begin."""
    _, _, detail, flags, body, fds = message
    error = error_of(detail, flags, body, fds, trusted)
    name = getattr(error, "type_name", type(error).__name__)
    if name == "WorkerVersionError":
        return lambda _: PeerError(str(error), may_have_run=False)

    def make(_: bool) -> AnyforkError:
        failure = InitializerError(f"the worker's initializer raised {name}: {error}", may_have_run=False)
        failure.__cause__ = error
        return failure

    return make
