"""What futures of an Executor raise: the errors of anyfork, which are also those that concurrent.futures has for it.

So a program that was written for ProcessPoolExecutor catches them where it catches those.
"""

from __future__ import annotations

from _pickle import PicklingError
from concurrent.futures import BrokenExecutor

from .._errors import ArgumentError, InitializerError, ResultError, WorkerDiedError


class BrokenWorkerError(WorkerDiedError, BrokenExecutor):
    """The worker of this job has ended. The Executor goes on."""


class BrokenInitializerError(InitializerError, BrokenExecutor):
    """The initializer of the workers raises: there will be none."""


class ArgumentPicklingError(ArgumentError, PicklingError):
    """The function or its arguments cannot travel."""


class ResultPicklingError(ResultError, PicklingError):
    """The result cannot travel."""
