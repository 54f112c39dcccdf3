"""The owner program of a contender of the async face: as owner, but each slice is measured inside of an event loop."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from . import async_callers, async_starters
from .owner import serve

KINDS = {**async_starters.KINDS, **async_callers.KINDS}


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind."""
    fd, kind = sys.argv[1:]
    os.set_inheritable(int(fd), False)
    with open(int(fd), "r+b", buffering=0) as control:
        starter = KINDS[kind]
        if find_spec(starter.needs) is None:
            control.write(f"unavailable {starter.needs} is not installed\n".encode())
            return
        serve(control, lambda measure, amount: getattr(starter, measure)(amount))
