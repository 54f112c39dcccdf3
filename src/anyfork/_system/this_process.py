"""The pid of this process, as a name that costs nothing to look at: os.getpid asks the system each time."""

from __future__ import annotations

import os

pid = os.getpid()


def _renew() -> None:
    """Runs in a forked copy of the owner."""
    global pid
    pid = os.getpid()


os.register_at_fork(after_in_child=_renew)
