"""A job of Dagster for tests, whose steps run in processes of the start method forkserver."""

import multiprocessing
import os
from pathlib import Path

from dagster import job, multiprocess_executor, op


@op
def tell() -> str:
    """Tell which context this process has, which process it is, and which one is its parent."""
    return f"{type(multiprocessing.get_context()).__name__} {os.getpid()} {os.getppid()}"


@op
def write(told: str) -> None:
    """Write what the step before has told, and this one."""
    Path("told").write_text(f"{told}\n{tell()}")


@job(executor_def=multiprocess_executor.configured({"start_method": {"forkserver": {}}}))
def two_steps() -> None:
    """Run two steps, one after the other."""
    write(tell())
