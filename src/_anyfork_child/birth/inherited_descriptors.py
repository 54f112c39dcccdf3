"""Inherited descriptors: a new process closes those that belong to its owner, its template, or its siblings.

An exec'ed template closes everything that it was not given, a forked process what its template holds (see
template.children, which lists that).
"""

from __future__ import annotations

import os
from os import closerange


def close_all_but(*keep: int) -> None:
    """Close all other descriptors: the owner's libraries may have let this new interpreter inherit them."""
    start = 0
    for fd in sorted(keep):
        if fd > start:  # closerange(0, 0) would close everything: the kernel's range has an inclusive end
            closerange(start, fd)
        start = max(start, fd + 1)
    closerange(start, os.sysconf("SC_OPEN_MAX"))


def close_each(fds: list[int]) -> None:
    """Close many descriptors with few system calls: one for each run of consecutive numbers."""
    fds.sort()
    start = previous = fds[0]
    for fd in fds[1:]:
        if fd != previous + 1:
            closerange(start, previous + 1)
            start = fd
        previous = fd
    closerange(start, previous + 1)
