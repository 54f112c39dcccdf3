"""The files of keepers that nobody uses any longer, in the user's own directory of keepers."""

from __future__ import annotations

import os
import time

from _anyfork_client.launch import LOCK, take_lock
from _anyfork_client.place import SUFFIX as SOCKET
from _anyfork_client.place import UnusableError, file_in

from .learned import SUFFIX as LEARNED

UNUSED = 30 * 24 * 3600  # seconds: an interpreter or environment that is still in use has had a keeper meanwhile


def remove_unused(directory: int) -> None:
    """Remove what keepers have learned that were not started for UNUSED seconds, and what killed ones have left."""
    try:
        names = os.listdir(file_in(directory, ""))
    except OSError:  # the user has removed the directory
        return
    for name in names:
        if not _is_old(file_in(directory, name)):
            continue
        if LEARNED in name:
            _remove(directory, name)
        elif name.endswith(LOCK):
            try:
                remove_killed(directory, name.removesuffix(LOCK))
            except UnusableError:  # it belongs to somebody else
                pass


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime > UNUSED
    except OSError:  # another keeper has removed it
        return False


def remove_killed(directory: int, name: str) -> bool:
    """Remove the socket and the lock of a keeper, and return True, unless it lives. Raises UnusableError."""
    held = take_lock(directory, name + LOCK)
    if held < 0:
        return False
    _remove(directory, name + SOCKET)
    _remove(directory, name + LOCK)
    os.close(held)
    return True


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:  # another keeper was faster, or the user has made a directory of that name
        pass
