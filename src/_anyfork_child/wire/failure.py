"""What went wrong in a process, on its way to the owner: text fields in the body of a FAILED frame, never pickled."""

from __future__ import annotations

from _struct import Struct

from .. import HOST
from .own_imports import import_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = Struct("<I")
_TEXT_LIMIT = 60_000  # bytes a field: below what a socket takes at once, above any traceback a person reads


outer: BaseException | None = None  # in a copy of a program: what that was handling, which concerns nobody here


class Failure(Exception):  # noqa: N818  # on its way to the owner, which makes the error of it
    """One failure: which step (``category``), of what (``subject``), with errno, one line, and the traceback.

    Packed, it also says on which other machine, if it is one.
    """

    def __init__(self, category: str, subject: str, error: BaseException | str, remote_traceback: str = "") -> None:
        super().__init__(category, subject, str(error))
        self.category = category
        self.subject = subject
        self.errno = getattr(error, "errno", None) or 0
        self.summary = error if isinstance(error, str) else _one_line(error)
        self.traceback = remote_traceback

    def pack(self) -> bytes:
        """The body of a FAILED frame."""
        number = f"{self.errno} {HOST}".rstrip()
        return pack_texts((self.category, self.subject, number, self.summary, self.traceback))


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:  # a __str__ of the user's that raises must not hide the error itself
        text = f"<its __str__ raised {type(second).__name__}>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failure_of(category: str, subject: str, error: BaseException, frames: int = 1) -> Failure:
    """A failure with the error's traceback, without the first ``frames`` frames, which are ours."""
    trace = error.__traceback__
    for _ in range(frames):
        trace = trace and trace.tb_next
    error = error.with_traceback(trace)
    return Failure(category, subject, error, format_error(error))


def cut(error: BaseException | None) -> None:
    """Take what the program was handling when it was copied out of the context of an error."""
    while error is not None and outer is not None:
        if error.__context__ is outer:
            error.__context__ = None
        error = error.__context__


def format_error(error: BaseException) -> str:
    """The traceback as text; only what was raised where that cannot be had.

    It is what tells the owner of a failure, so it must not fail itself: the traceback module may be unreadable for this
    process, or import what is (after setuid, or without a descriptor), and it asks the user's exception for attributes.
    """
    try:
        traceback = import_own("traceback")  # only now: it is large, and most processes never fail
        cut(error)
        return "".join(traceback.format_exception(error))
    except Exception:
        return _one_line(error) + "\n"


def shorten(text: bytes) -> bytes:
    """Cut the middle out of a text that is too long."""
    half = _TEXT_LIMIT // 2
    return text if len(text) <= _TEXT_LIMIT else text[:half] + b"\n[...]\n" + text[-half:]


def pack_texts(texts: Iterable[str]) -> bytes:
    """Texts one after the other, as pack_parts does it."""
    return pack_parts([shorten(text.encode("utf-8", "backslashreplace")) for text in texts])


def unpack_texts(body: bytes) -> list[str]:
    """The inverse of pack_texts. Raises ValueError for anything else."""
    return [part.decode("utf-8", "replace") for part in unpack_parts(body)]


def pack_parts(parts: Iterable[bytes]) -> bytes:
    """Parts one after the other, each behind its length: u32, little endian."""
    return b"".join([_LENGTH.pack(len(part)) + part for part in parts])


def unpack_parts(body: bytes) -> list[bytes]:
    """The inverse of pack_parts. Raises ValueError for anything else."""
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
