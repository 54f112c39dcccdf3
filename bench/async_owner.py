"""The owner program of a contender of the async face: as owner, but each slice is measured inside of an event loop."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from . import async_callers, async_starters
from .owner import own

KINDS = {**async_starters.KINDS, **async_callers.KINDS}


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind."""
    fd, kind = sys.argv[1:]
    own(fd, lambda: _available(KINDS[kind]), lambda starter, measure, amount: getattr(starter, measure)(amount))


def _available(starter: async_starters.AsyncStarter) -> async_starters.AsyncStarter:
    if find_spec(starter.needs) is None:
        raise ImportError(f"{starter.needs} is not installed")
    return starter
