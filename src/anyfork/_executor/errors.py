"""The errors of an Executor's futures: errors of anyfork that are also the matching errors of concurrent.futures.

A program that was written for ProcessPoolExecutor catches them where it catches the errors of that class.
"""

from __future__ import annotations

import sys
from _pickle import PicklingError
from concurrent.futures import BrokenExecutor

from .._errors import AnyforkError, ArgumentError, InitializerError, ResultError, WorkerDiedError, rebuild


class BrokenWorkerError(WorkerDiedError, BrokenExecutor):
    """The error of a job whose worker has ended. The Executor goes on."""


class BrokenInitializerError(InitializerError, BrokenExecutor):
    """The error of jobs that get no worker, because the initializer of the workers raises."""


class ArgumentPicklingError(ArgumentError, PicklingError):
    """The error of a job whose function or arguments cannot be sent to a worker."""


class ResultPicklingError(ResultError, PicklingError):
    """The error of a job whose result cannot be sent back."""


_KINDS: dict[type[AnyforkError], type[AnyforkError]] = {
    WorkerDiedError: BrokenWorkerError,
    InitializerError: BrokenInitializerError,
    ArgumentError: ArgumentPicklingError,
    ResultError: ResultPicklingError,
}


def drop_in(error: BaseException) -> BaseException:
    """Return the error as a kind that concurrent.futures knows too, if there is one; otherwise return it unchanged."""
    kind = _KINDS.get(type(error))  # type: ignore[arg-type]  # any error may be asked for
    if kind is None:
        return error
    # A program that has not loaded that module cannot catch its class.
    if kind is BrokenWorkerError and "concurrent.futures.process" in sys.modules:
        kind = sys.modules[__name__].BrokenProcessError
    made = rebuild(kind, error)
    made.__cause__ = error.__cause__
    return made


def __getattr__(name: str) -> type[BrokenWorkerError]:
    """Make BrokenProcessError, for programs that have loaded ProcessPoolExecutor, and multiprocessing with it."""
    if name != "BrokenProcessError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from concurrent.futures.process import BrokenProcessPool

    class BrokenProcessError(BrokenWorkerError, BrokenProcessPool):
        """The error of a job whose worker has ended. The Executor goes on."""

    BrokenProcessError.__qualname__ = name

    return globals().setdefault(name, BrokenProcessError)  # type: ignore[no-any-return]  # one class for all threads
