"""The end of a program that has Executors: all jobs are done, and all workers end, before the program does."""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .dispatcher import Dispatcher

exiting = False
dispatchers: set[Dispatcher] = set()  # whose threads run


def _finish_all() -> None:
    global exiting
    exiting = True
    here = [one for one in list(dispatchers) if one.owner == os.getpid()]
    for dispatcher in here:
        dispatcher.close(cancel=False)
    for dispatcher in here:
        dispatcher.join()


# Before the threads that are no daemons are waited for; concurrent.futures does the same.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # there is no public way
