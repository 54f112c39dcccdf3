"""The error for programs that have loaded ProcessPoolExecutor, and multiprocessing with it; see _executor.errors."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from .errors import BrokenWorkerError


class BrokenProcessError(BrokenWorkerError, BrokenProcessPool):
    """The error of a job whose worker has ended. The Executor goes on."""
