"""Conversion of anyfork's errors to errors that a program written for concurrent.futures catches."""

from __future__ import annotations

import sys

from .._errors import AnyforkError, ArgumentError, InitializerError, ResultError, WorkerDiedError, rebuild
from .errors import ArgumentPicklingError, BrokenInitializerError, BrokenWorkerError, ResultPicklingError

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
        from .process_pool_errors import BrokenProcessError

        kind = BrokenProcessError
    made = rebuild(kind, error)
    made.__cause__ = error.__cause__
    return made
