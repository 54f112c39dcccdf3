"""The errors of an Executor's futures: errors of anyfork that are also the matching errors of concurrent.futures.

A program that was written for ProcessPoolExecutor catches them where it catches the errors of that class.
"""

from __future__ import annotations

from _pickle import PicklingError
from concurrent.futures import BrokenExecutor

from .._errors import ArgumentError, InitializerError, ResultError, WorkerDiedError


class BrokenWorkerError(WorkerDiedError, BrokenExecutor):
    """The error of a job whose worker has ended. The Executor goes on."""


class BrokenInitializerError(InitializerError, BrokenExecutor):
    """The error of jobs that get no worker, because the initializer of the workers raises."""


class ArgumentPicklingError(ArgumentError, PicklingError):
    """The error of a job whose function or arguments cannot be sent to a worker."""


class ResultPicklingError(ResultError, PicklingError):
    """The error of a job whose result cannot be sent back."""
