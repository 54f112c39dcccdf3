"""The exit of a program with Executors: it waits until all jobs are done and all workers have ended."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Running(Protocol):
        """A dispatcher whose thread runs."""

        @property
        def foreign(self) -> bool: ...
        def close(self, cancel: bool) -> None: ...
        def join(self) -> None: ...


exiting = False
dispatchers: set[Running] = set()  # dispatchers whose threads run


def _finish_all() -> None:
    global exiting
    exiting = True
    here = [one for one in list(dispatchers) if not one.foreign]
    for dispatcher in here:
        dispatcher.close(cancel=False)
    for dispatcher in here:
        dispatcher.join()


# Runs before the interpreter waits for non-daemon threads; concurrent.futures does the same.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # there is no public way
