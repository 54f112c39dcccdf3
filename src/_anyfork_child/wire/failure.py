"""Failures of a process as it reports them to the owner: text fields in the body of a FAILED frame, never pickled."""

from __future__ import annotations

from _struct import Struct

from .. import HOST
from .own_imports import import_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = Struct("<I")
MISSING = "missing"  # the category of a failure: the owner's __main__ has no such function or class
UNSENT = "unsent"  # the category of a failure: a function or class of the owner's __main__ cannot travel
_TEXT_LIMIT = 60_000  # bytes a field: below what a socket takes at once, above any traceback that a person reads


outer: BaseException | None = None  # in a copy of a program: the exception that the program was handling


class Failure(Exception):  # noqa: N818  # the owner makes an error of it
    """A failure: the step (``category``), its object (``subject``), errno, a summary of one line, and the traceback.

    The packed form also names the host if the process runs on another machine.
    """

    def __init__(self, category: str, subject: str, error: BaseException | str, remote_traceback: str = "") -> None:
        super().__init__(category, subject, str(error))
        self.category = category
        self.subject = subject
        self.errno = getattr(error, "errno", None) or 0
        self.summary = error if isinstance(error, str) else _one_line(error)
        self.traceback = remote_traceback

    def pack(self) -> bytes:
        """Return the body of a FAILED frame."""
        number = f"{self.errno} {HOST}".rstrip()
        return pack_texts((self.category, self.subject, number, self.summary, self.traceback))


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as second:  # a __str__ of the user's that raises must not hide the error itself
        text = f"<its __str__ raised {type(second).__name__}>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failure_of(category: str, subject: str, error: BaseException, frames: int = 1) -> Failure:
    """Return a failure with the error's traceback, without its first ``frames`` frames, which are anyfork's own."""
    trace = error.__traceback__
    for _ in range(frames):
        trace = trace and trace.tb_next
    error = error.with_traceback(trace)
    return Failure(category, subject, error, format_error(error))


def cut(error: BaseException | None) -> None:
    """Remove the exception that the program was handling when it was copied from the context of an error."""
    while error is not None and outer is not None:
        if error.__context__ is outer:
            error.__context__ = None
        error = error.__context__


def format_error(error: BaseException) -> str:
    """Return the traceback as text, or only the line of the exception if the traceback cannot be formatted.

    The report of a failure must not fail itself: this process may be unable to read the traceback module or one of its
    imports (after setuid, or without a descriptor), and the module reads attributes of the user's exception.
    """
    try:
        traceback = import_own("traceback")  # only now: it is large, and most processes never fail
        cut(error)
        return "".join(traceback.format_exception(error))
    except Exception:
        return _one_line(error) + "\n"


def shorten(text: bytes) -> bytes:
    """Cut the middle out of a text that is longer than the limit of a field."""
    half = _TEXT_LIMIT // 2
    return text if len(text) <= _TEXT_LIMIT else text[:half] + b"\n[...]\n" + text[-half:]


def pack_texts(texts: Iterable[str]) -> bytes:
    """Return texts in the format of pack_parts, each shortened to the limit of a field."""
    return pack_parts([shorten(text.encode("utf-8", "backslashreplace")) for text in texts])


def unpack_texts(body: bytes) -> list[str]:
    """Return the texts in the output of pack_texts. Raises ValueError for any other bytes."""
    return [part.decode("utf-8", "replace") for part in unpack_parts(body)]


def pack_parts(parts: Iterable[bytes]) -> bytes:
    """Join parts, each after its length (u32, little endian)."""
    return b"".join([_LENGTH.pack(len(part)) + part for part in parts])


def unpack_parts(body: bytes) -> list[bytes]:
    """Return the parts in the output of pack_parts. Raises ValueError for any other bytes."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        start = at + _LENGTH.size
        if start > len(body):
            raise ValueError("a part without its length")
        at = start + _LENGTH.unpack_from(body, at)[0]
        if at > len(body):
            raise ValueError("a part shorter than its length")
        parts.append(body[start:at])
    return parts
