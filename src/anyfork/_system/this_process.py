"""The pid of this process, as a variable that costs nothing to read: os.getpid asks the system each time."""

from __future__ import annotations

import os

pid = os.getpid()


def _renew() -> None:
    """Update the pid. Runs in a forked copy of the owner."""
    global pid
    pid = os.getpid()


os.register_at_fork(after_in_child=_renew)
