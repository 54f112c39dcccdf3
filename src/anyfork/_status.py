"""The exit status of a process, the resources it has used, and the immutable records that such values are."""

from __future__ import annotations

import os
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, NoReturn

    class _UsageFields(NamedTuple):
        user_time: float
        system_time: float
        max_rss: int
        minor_faults: int
        major_faults: int
        blocks_in: int
        blocks_out: int
        voluntary_switches: int
        involuntary_switches: int
else:  # loading typing would double the cost of importing anyfork
    _UsageFields = namedtuple(  # noqa: PYI024
        "_UsageFields",
        "user_time system_time max_rss minor_faults major_faults blocks_in blocks_out "
        "voluntary_switches involuntary_switches",
    )


class Record:
    """An immutable record: ``__match_args__`` names the fields, and ``__init__`` sets them with ``_set``.

    It is written out because dataclasses would double the cost of importing anyfork.
    """

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def _set(self, *values: object) -> None:
        """Set all fields, in their order."""
        for name, value in zip(self.__match_args__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self._values())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({fields})"


class Usage(_UsageFields):
    """The resources that a process has used, as getrusage(2) counts them.

    Times are in seconds, ``max_rss`` is in KiB, the rest are counts.

    For example::

        import anyfork

        with anyfork.Template().run_code("pass") as process:
            usage = process.wait().usage
        print(usage.user_time + usage.system_time, usage.max_rss)
    """

    __slots__ = ()


class ExitStatus(Record):
    """The exit status of a process: it ended with ``code``, or by ``signal``; if both are None, the status is unknown.

    ``usage`` are the resources it has used, or None if unknown. ``error`` is the traceback of the exception that ended
    its function, or says why the status is unknown: the process was never forked, or the connection to its machine is
    lost.

    For example::

        import anyfork

        with anyfork.Template().run_code("raise SystemExit(3)") as process:
            status = process.wait()
        assert (status.code, status.signal, status.known) == (3, None, True)
    """

    __match_args__: tuple[str, ...] = ("code", "signal", "usage", "error")
    __slots__ = __match_args__
    code: int | None
    signal: int | None
    usage: Usage | None
    error: str | None

    def __init__(
        self,
        code: int | None = None,
        signal: int | None = None,
        usage: Usage | None = None,
        error: str | None = None,
    ) -> None:
        if code is not None and signal is not None:
            raise ValueError("a process ends with a code or by a signal, not both")
        self._set(code, signal, usage, error)

    @property
    def known(self) -> bool:
        """True when the status is known; False when the process has ended, but how is unknown.

        For example::

            import anyfork

            assert not anyfork.ExitStatus().known
        """
        return self.code is not None or self.signal is not None

    @property
    def returncode(self) -> int | None:
        """The code, or the negative number of the signal, as in subprocess; None when unknown.

        For example::

            import anyfork

            assert anyfork.ExitStatus(signal=9).returncode == -9
        """
        return self.code if self.signal is None else -self.signal

    def __str__(self) -> str:
        if self.signal is not None:
            return f"ended by signal {self.signal} ({signal_name(self.signal)})"
        if self.code is not None:
            return f"ended with exit code {self.code}"
        return (
            f"ended with an unknown exit status ({self.error})" if self.error else "ended with an unknown exit status"
        )


UNKNOWN = ExitStatus()


def exit_status(wait_status: int, usage: Usage | None = None, error: str | None = None) -> ExitStatus:
    """Return the ExitStatus for a wait status of waitpid."""
    code = os.waitstatus_to_exitcode(wait_status)
    return ExitStatus(code, None, usage, error) if code >= 0 else ExitStatus(None, -code, usage, error)


def signal_name(number: int) -> str:
    """Return the name of a signal: SIGTERM for 15."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
