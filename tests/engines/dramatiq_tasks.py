"""An actor of Dramatiq for tests."""

import json
import multiprocessing
import os
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["TEST_BROKER"]))


@dramatiq.actor
def tell(path):
    """Tell which context this process has, which process it is, and which one is its parent."""
    context = type(multiprocessing.get_context()).__name__
    Path(f"{path}.new").write_text(json.dumps([context, os.getpid(), os.getppid()]))
    Path(f"{path}.new").rename(path)
