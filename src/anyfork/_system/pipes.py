"""Pipes, each end with an owner of its own."""

from __future__ import annotations

import os
from itertools import chain, starmap

from _anyfork_child.wire.owned_descriptors import Owned


def open_pipe() -> tuple[Owned, Owned]:
    """Open a pipe; return its reading and its writing end. Raises OSError when descriptors have run out."""
    ends = Owned(chain.from_iterable(starmap(os.pipe, [()])))  # in one step for interrupts
    read, write = ends.lifted().split()
    return read, write
