"""An exchange with a process over its standard streams, without I/O: what to write, and what was read."""

from __future__ import annotations

from .._errors import ArgumentError, OutputLimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PART = 1 << 16  # bytes to read at most at once: what a pipe holds


def check_limit(limit: object) -> None:
    """Raise ArgumentError for a limit of communicate() that is neither None nor a number of bytes."""
    if limit is not None and not (isinstance(limit, int) and limit >= 0):
        raise ArgumentError(f"communicate() takes a number of bytes, 0 or more, or None as limit, not {limit!r}")


class Exchange:
    """The input of a process that is still to be written, and its output so far. It may go on after an interruption.

    ``written`` is the number of bytes of the input that the process has taken, ``output`` what it has written so far.
    """

    def __init__(self, streams: Iterable[str], data: bytes | None) -> None:
        names = {*streams}
        if data is not None and "stdin" not in names:
            raise ArgumentError(
                "communicate() has input for a process whose stdin is no pipe: fork(stdin=anyfork.PIPE)"
            )
        try:
            self._input = memoryview(b"" if data is None else data).cast("B")
        except TypeError as error:
            raise ArgumentError(
                f"communicate() takes bytes as input, not {type(data).__name__}: encode text"
            ) from error
        self.written = 0
        self.unread = names - {"stdin"}
        self.output: dict[str, bytearray] = {name: bytearray() for name in self.unread}

    @property
    def unwritten(self) -> memoryview:
        """The input that is left."""
        return self._input[self.written :]

    @property
    def goes_on(self) -> bool:
        """True while there is something to write or to read."""
        return bool(self.unread or self.unwritten)

    def drop_input(self) -> None:
        """Note that the process takes nothing more."""
        self.written = len(self._input)

    def room(self, name: str, limit: int | None) -> int:
        """Return how many bytes to read at once from a stream: at most one more than the limit."""
        return PART if limit is None else max(1, min(PART, limit + 1 - len(self.output[name])))

    def is_over(self, limit: int | None) -> bool:
        """Return whether the process has written more than the limit."""
        return limit is not None and any(len(data) > limit for data in self.output.values())

    def check(self, limit: int | None) -> None:
        """Raise OutputLimitError if the process has written more than the limit."""
        for name, data in self.output.items():
            if limit is not None and len(data) > limit:
                text = f"communicate() has read more than {limit} bytes of {name}; the process goes on: kill it, or "
                raise OutputLimitError(f"{text}call communicate() again with a higher limit", stream=name)

    def result(self) -> tuple[bytes | None, bytes | None]:
        """Return the output: that of stdout and that of stderr, None for a stream that is no pipe."""
        stdout, stderr = (self.output.get(name) for name in ("stdout", "stderr"))
        return None if stdout is None else bytes(stdout), None if stderr is None else bytes(stderr)
