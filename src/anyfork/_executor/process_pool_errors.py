"""As _executor.errors, for programs that have loaded ProcessPoolExecutor, and multiprocessing with it."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from .errors import BrokenWorkerError


class BrokenProcessError(BrokenWorkerError, BrokenProcessPool):
    """The worker of this job has ended. The Executor goes on."""
