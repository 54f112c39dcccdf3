"""What futures of an Executor raise: the errors of anyfork, which are also those that concurrent.futures has for it.

So a program that was written for ProcessPoolExecutor catches them where it catches those.
"""

from __future__ import annotations

import sys
from _pickle import PicklingError
from concurrent.futures import BrokenExecutor

from ._errors import AnyforkError, ArgumentError, InitializerError, ResultError, WorkerDiedError, rebuild


class BrokenWorkerError(WorkerDiedError, BrokenExecutor):
    """The worker of this job has ended. The Executor goes on."""


class BrokenInitializerError(InitializerError, BrokenExecutor):
    """The initializer of the workers raises: there will be none."""


class ArgumentPicklingError(ArgumentError, PicklingError):
    """The function or its arguments cannot travel."""


class ResultPicklingError(ResultError, PicklingError):
    """The result cannot travel."""


_KINDS: dict[type[AnyforkError], type[AnyforkError]] = {
    WorkerDiedError: BrokenWorkerError,
    InitializerError: BrokenInitializerError,
    ArgumentError: ArgumentPicklingError,
    ResultError: ResultPicklingError,
}


def drop_in(error: BaseException) -> BaseException:
    """The error as a kind that concurrent.futures knows too, where there is one."""
    kind = _KINDS.get(type(error))  # type: ignore[arg-type]  # any error may be asked for
    if kind is None:
        return error
    if kind is BrokenWorkerError and "concurrent.futures.process" in sys.modules:  # or nobody knows that class
        from ._process_pool_errors import BrokenProcessError

        kind = BrokenProcessError
    made = rebuild(kind, error)
    made.__cause__ = error.__cause__
    return made
